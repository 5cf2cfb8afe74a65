"""Streams of proxies last as long as their identity is believed, by whatever it was shown; who is refused is written down."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from envoy.service.health.v3.hds_pb2 import HealthCheckRequestOrEndpointHealthResponse, HealthCheckSpecifier
from google.protobuf.json_format import ParseDict

from controlplane.cli.api import Api, ApiError
from controlplane.cli.identity import join
from controlplane.xds.type_urls import CLUSTER
from tests.controlplane.citadel.kubernetes_api import KubernetesApi, jwt_like
from tests.controlplane.test_whole import NAMESPACE
from tests.controlplane.whole import Whole, whole

ADS: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
HDS: Final = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
LONG: Final = 20  # seconds: more than anything here takes


class Mesh:
    """A control plane that believes a Kubernetes API server, too."""

    def __init__(self, running: Whole, kubernetes: KubernetesApi) -> None:
        self.running = running
        self.kubernetes = kubernetes

    def join_token(self, account: str) -> str:
        body = {"namespace": "shop", "serviceAccount": account}
        return str(self.running.api.request("POST", "/mizzen/v1/tokens", body)["token"])

    def kubernetes_token(self, account: str) -> str:
        token = jwt_like(account)
        self.kubernetes.known[token] = (f"system:serviceaccount:shop:{account}", ["istio-ca"])
        return token

    def ban(self, account: str) -> None:
        body = {"identity": identity(account), "reason": "keyCompromise"}
        self.running.api.request("POST", "/mizzen/v1/certificates/revoked", body)

    def refusals(self) -> list[dict[str, Any]]:
        lines = (self.running.directory / "audit.jsonl").read_text().splitlines()
        return [one for one in map(json.loads, lines) if one["event"] == "refused"]

    @contextmanager
    def stream(
        self, path: str, *, token: str = "", own: tuple[bytes, bytes] | None = None, namespace: str = "shop"
    ) -> Iterator[Any]:
        """The answers on a stream whose first request has been sent. ``own`` is (key, chain) of a client certificate."""
        node = {"id": f"sidecar~10.0.0.8~z.{namespace}~{namespace}.svc.cluster.local", "metadata": {}}
        request: Any = DiscoveryRequest(type_url=CLUSTER)
        answer: Any = DiscoveryResponse
        if path == HDS:
            request, answer = HealthCheckRequestOrEndpointHealthResponse(), HealthCheckSpecifier
        ParseDict(node, request.health_check_request.node if path == HDS else request.node)
        asked: queue.Queue[Any] = queue.Queue()
        asked.put(request)
        roots = self.running.api.access.authority.encode()
        credentials = grpc.ssl_channel_credentials(roots, *(own or ()))
        with grpc.secure_channel(f"127.0.0.1:{self.running.secure_port}", credentials) as channel:
            call = channel.stream_stream(
                path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
            )(
                iter(asked.get, None),
                metadata=(("authorization", f"Bearer {token}"),) if token else (),
                timeout=LONG,
            )
            yield call
            asked.put(None)
            call.cancel()

    def said(self, path: str, *, token: str, namespace: str = "shop") -> str:
        """Why nobody is served, empty for who is."""
        with self.stream(path, token=token, namespace=namespace) as answers:
            try:
                next(answers)
            except grpc.RpcError as error:
                return f"{error.code().name} {error.details()}"
            return ""


def identity(account: str) -> str:
    return f"spiffe://cluster.local/ns/shop/sa/{account}"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    directory = tmp_path_factory.mktemp("streams")
    with (
        KubernetesApi(directory) as kubernetes,
        whole(directory / "mesh", "--token-review", str(kubernetes.kubeconfig(directory / "config"))) as running,
    ):
        running.apply(NAMESPACE)
        yield Mesh(running, kubernetes)


@pytest.mark.parametrize(
    ("path", "means"),
    [
        (ADS, "join token"),
        (ADS, "Kubernetes"),
        (ADS, "certificate"),
        (HDS, "Kubernetes"),
        (HDS, "certificate"),
    ],
    ids=["configuration-join", "configuration-kubernetes", "configuration-certificate", "health-kubernetes", "health"],
)
def test_a_stream_ends_when_its_identity_is_revoked(mesh: Mesh, tmp_path: Path, path: str, means: str) -> None:
    account = f"ends-{'health' if path == HDS else 'all'}-{means.replace(' ', '-').lower()}"
    token, own = "", None
    if means == "join token":
        token = mesh.join_token(account)
    elif means == "Kubernetes":
        token = mesh.kubernetes_token(account)
    else:
        chain, key = join(mesh.running.api, mesh.join_token(account), tmp_path / "identity")
        own = (key.read_bytes(), chain.read_bytes())
    with (
        mesh.stream(path, token=token, own=own) as answers,
        mesh.stream(ADS, token=mesh.kubernetes_token("of-another")) as others,
    ):
        next(answers)
        next(others)
        mesh.ban(account)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, caught.value  # type: ignore[attr-defined]
        assert "is revoked" in caught.value.details()  # type: ignore[attr-defined]
        assert others.is_active()
    before = len(mesh.refusals())
    with mesh.stream(path, token=token, own=own) as answers, pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert ("used before" if means == "join token" else "is revoked") in caught.value.details()  # type: ignore[attr-defined]
    (line,) = mesh.refusals()[before:]
    assert line["authenticated"].startswith(means) and line["source"].startswith("127.0.0.1:")


def test_a_kubernetes_token_of_a_revoked_identity_opens_nothing(mesh: Mesh) -> None:
    token, node = mesh.kubernetes_token("banned"), {"id": "sidecar~10.0.0.8~z.shop~shop.svc.cluster.local"}
    polling = Api(replace(mesh.running.api.access, token=token))
    polling.request("POST", "/v3/discovery:clusters", {"node": node})
    assert mesh.said(ADS, token=token) == ""
    mesh.ban("banned")
    before = len(mesh.refusals())
    for path in (ADS, HDS):
        assert mesh.said(path, token=token) == f"PERMISSION_DENIED {identity('banned')} is revoked"
    lines = mesh.refusals()[before:]
    assert [line["authenticated"] for line in lines] == ["Kubernetes service account token"] * 2
    assert all(line["source"].startswith("127.0.0.1:") and "is revoked" in line["reason"] for line in lines)
    with pytest.raises(ApiError, match="is revoked"):
        polling.request("POST", "/v3/discovery:clusters", {"node": node})
    polling.close()


def test_health_discovery_uses_up_no_join_token(mesh: Mesh) -> None:
    token, before = mesh.join_token("well"), len(mesh.refusals())
    assert mesh.said(HDS, token=token) == (
        "PERMISSION_DENIED a join token is no credential for health discovery, and is not used up by this: "
        "show the certificate that it is traded for (mizzen join)"
    )
    (line,) = mesh.refusals()[before:]
    assert "health discovery" in line["reason"] and line["authenticated"].startswith("join token")
    assert line["source"].startswith("127.0.0.1:")
    assert mesh.said(ADS, token=token) == ""


def test_join_tokens_that_are_refused_are_written_down(mesh: Mesh) -> None:
    token, banned = mesh.join_token("tried"), mesh.join_token("tried-and-banned")
    mesh.ban("tried-and-banned")
    before = len(mesh.refusals())
    assert "is not of the namespace evil" in mesh.said(ADS, token=token, namespace="evil")
    assert mesh.said(ADS, token=token) == ""
    assert "used before" in mesh.said(ADS, token=token)
    assert "unknown, revoked or expired" in mesh.said(ADS, token="mizzen-join-abc-def-012")
    assert "is revoked" in mesh.said(ADS, token=banned)
    elsewhere, again, unknown, revoked = mesh.refusals()[before:]
    assert elsewhere["identity"] == identity("tried") and "is not of the namespace evil" in elsewhere["reason"]
    assert "used before" in again["reason"] and "unknown" in unknown["reason"]
    assert revoked["identity"] == identity("tried-and-banned") and "is revoked" in revoked["reason"]
    assert revoked["requester"] == "join:shop/tried-and-banned"
    for line in (elsewhere, again, unknown, revoked):
        assert line["source"].startswith("127.0.0.1:") and line["authenticated"].startswith("join token")
        assert token not in json.dumps(line) and banned not in json.dumps(line)


def test_what_somebody_calls_himself_does_not_fill_the_audit_log(mesh: Mesh) -> None:
    before = len(mesh.refusals())
    assert "is not of the namespace" in mesh.said(ADS, token=mesh.join_token("wordy"), namespace="x" * 3000)
    (line,) = mesh.refusals()[before:]
    assert len(line["reason"]) < 1100
