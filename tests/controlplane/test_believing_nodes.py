"""A node is believed as far as its credentials go: over TLS nobody is somebody else, takes their place, or gets their keys."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from google.protobuf.json_format import ParseDict

from controlplane.cli.api import Api, ApiError
from controlplane.cli.identity import join
from controlplane.cli.kubeconfig import Access
from controlplane.xds.type_urls import CLUSTER, HEALTH, LISTENER, SECRET
from tests.controlplane.test_whole import NAMESPACE
from tests.controlplane.whole import Whole, whole
from tests.running import until

EVIL = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}}
GROUP = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "WorkloadGroup",
    "metadata": {"name": "reviews", "namespace": "shop"},
    "spec": {
        "metadata": {"labels": {"app": "reviews"}},
        "template": {"serviceAccount": "reviews", "ports": {"http": 9080}},
    },
}
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingress}
  servers:
  - port: {number: 8443, name: https, protocol: HTTPS}
    hosts: [shop.example]
    tls: {mode: SIMPLE, credentialName: shop-cert}
---
apiVersion: v1
kind: Secret
metadata: {name: shop-cert, namespace: shop}
type: kubernetes.io/tls
stringData: {}
"""
VICTIM = "sidecar~10.0.0.7~reviews-1.shop~shop.svc.cluster.local"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("mesh")) as running:
        running.apply(NAMESPACE, EVIL, GROUP)
        yield running


class Stream:
    """One ADS stream over TLS, by hand."""

    def __init__(self, call: Any, requests: queue.Queue[Any], node: Any) -> None:
        self.call = call
        self.requests = requests
        self.node = node

    def ask(self, type_url: str, *names: str, error: str = "") -> None:
        request = DiscoveryRequest(type_url=type_url, resource_names=names, node=self.node)
        if error:
            request.error_detail.message = error
        self.requests.put(request)

    def answer(self) -> Any:
        return next(self.call)


@contextmanager
def stream(mesh: Whole, directory: Path, namespace: str, account: str, node: dict[str, Any]) -> Iterator[Stream]:
    token = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": namespace, "serviceAccount": account})["token"]
    chain, key = join(mesh.api, token, directory / f"{namespace}-{account}")
    credentials = grpc.ssl_channel_credentials(mesh.api.access.authority.encode(), key.read_bytes(), chain.read_bytes())
    requests: queue.Queue[Any] = queue.Queue()
    with grpc.secure_channel(f"127.0.0.1:{mesh.secure_port}", credentials) as channel:
        call = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )(iter(requests.get, None), timeout=30)
        message = DiscoveryRequest()
        ParseDict(node, message.node)
        yield Stream(call, requests, message.node)
        requests.put(None)
        call.cancel()


def entries(mesh: Whole) -> list[Any]:
    found: list[Any] = mesh.api.request("GET", "/apis/networking.istio.io/v1/namespaces/shop/workloadentries")["items"]
    return found


def test_nobody_takes_the_place_of_another(mesh: Whole, tmp_path: Path) -> None:
    """By another's node id: a stranger's stream says nothing of the workload, neither that it is ill nor that it is gone."""
    mine = {
        "id": VICTIM,
        "metadata": {"NAMESPACE": "shop", "AUTO_REGISTER_GROUP": "reviews", "SERVICE_ACCOUNT": "reviews"},
    }
    with stream(mesh, tmp_path, "shop", "reviews", mine) as victim:
        victim.ask(CLUSTER)
        victim.answer()
        until(lambda: len(entries(mesh)) == 1, "it is registered")
        with stream(mesh, tmp_path, "evil", "mallory", {"id": VICTIM, "metadata": {"NAMESPACE": "evil"}}) as stranger:
            stranger.ask(CLUSTER)
            with pytest.raises(grpc.RpcError, match="is of the namespace shop, but metadata say evil"):
                stranger.answer()
        with stream(mesh, tmp_path, "evil", "mallory", {"id": VICTIM}) as stranger:
            stranger.ask(CLUSTER)
            with pytest.raises(grpc.RpcError, match="is not of the namespace shop"):
                stranger.answer()
        for metadata in ({}, {"AUTO_REGISTER_GROUP": "reviews"}):
            with stream(mesh, tmp_path, "shop", "details", {"id": VICTIM, "metadata": metadata}) as neighbour:
                neighbour.ask(HEALTH, error="pwned")
                neighbour.ask(CLUSTER)
                if metadata:
                    with pytest.raises(grpc.RpcError, match="is for reviews"):
                        neighbour.answer()
                else:
                    neighbour.answer()
        victim.ask(LISTENER)
        victim.answer()
        victim.ask(HEALTH, error="really ill")
        until(lambda: "really ill" in str(entries(mesh)), "its own word counts")
        assert "pwned" not in str(entries(mesh)) and len(entries(mesh)) == 1
    until(lambda: not entries(mesh), "it is gone when its own stream is")


def test_keys_of_a_gateway_are_for_who_the_operator_says_is_one(mesh: Whole, tmp_path: Path) -> None:
    """Whoever says that it is a router with a gateway's labels gets nothing by that."""
    from tests.controlplane.cli.certificates import certificate

    chain, key = certificate(tmp_path)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-cert", "namespace": "shop"},
              "type": "kubernetes.io/tls", "data": {"tls.crt": _base64(chain), "tls.key": _base64(key)}}  # fmt: skip
    mesh.apply(GATEWAY.partition("---")[0], secret)
    group = {**GROUP, "metadata": {"name": "ingress", "namespace": "shop"},
             "spec": {"metadata": {"labels": {"istio": "ingress"}}, "template": {"serviceAccount": "ingress"}}}  # fmt: skip
    mesh.apply(group)

    def secrets(account: str, group: str) -> int:
        metadata = {"NAMESPACE": "shop", "LABELS": {"istio": "ingress"}, "AUTO_REGISTER_GROUP": group}
        node = {"id": f"router~10.0.1.1~{account}.shop~shop.svc.cluster.local", "metadata": metadata}
        with stream(mesh, tmp_path, "shop", account, node) as router:
            router.ask(LISTENER)
            router.answer()
            router.ask(SECRET, "kubernetes://shop-cert")
            router.ask(CLUSTER)
            answers = [router.answer(), router.answer()] if account == "ingress" else [router.answer()]
            return sum(len(one.resources) for one in answers if one.type_url == SECRET)

    assert secrets("details", "") == 0
    assert secrets("ingress", "ingress") == 1


def test_who_polls_is_believed_no_further(mesh: Whole, tmp_path: Path) -> None:
    """What an EnvoyFilter gives to workloads of a label, those who but say so do not get; on streams and by polling alike."""
    mesh.apply(_for_label("of-vault-alone", "vault"), _for_label("of-reviews", "reviews"))
    token = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "reviews"})["token"]
    directory = tmp_path / "polls"
    join(mesh.api, token, directory)
    caller = Api(Access(mesh.api.access.server, (directory / "root.pem").read_text(), ""))
    caller.show_certificate(directory / "chain.pem", directory / "key.pem")

    def clusters(api: Api, namespace: str = "shop", **metadata: Any) -> set[str]:
        node = {"id": f"sidecar~10.0.0.9~x.{namespace}~{namespace}.svc.cluster.local", "metadata": metadata}
        found = api.request("POST", "/v3/discovery:clusters", {"node": node})["resources"]
        return {one["name"] for one in found} & {"of-vault-alone", "of-reviews"}

    assert clusters(mesh.api, LABELS={"app": "vault"}) == {"of-vault-alone"}  # an admin is believed
    assert clusters(caller, LABELS={"app": "vault"}) == set()
    assert clusters(caller, AUTO_REGISTER_GROUP="reviews", LABELS={"app": "vault"}) == {"of-reviews"}
    with pytest.raises(ApiError, match="is not the service account vault"):
        clusters(caller, SERVICE_ACCOUNT="vault")
    with pytest.raises(ApiError, match="is not of the namespace evil"):
        clusters(caller, "evil")

    node = {"id": "sidecar~10.0.0.9~y.shop~shop.svc.cluster.local", "metadata": {"LABELS": {"app": "vault"}}}
    with stream(mesh, tmp_path, "shop", "details", node) as streaming:
        streaming.ask(CLUSTER)
        assert b"of-vault-alone" not in streaming.answer().SerializeToString()


def test_a_join_token_is_good_for_one_stream(mesh: Whole) -> None:
    made = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "page"})
    channel = grpc.ssl_channel_credentials(mesh.api.access.authority.encode())

    def said(token: str, namespace: str) -> str:
        """The first type that is answered, or what is said instead."""
        node = {"id": f"sidecar~10.0.0.8~z.{namespace}~{namespace}.svc.cluster.local", "metadata": {}}
        request = DiscoveryRequest(type_url=CLUSTER)
        ParseDict(node, request.node)
        asked: queue.Queue[Any] = queue.Queue()
        asked.put(request)
        with grpc.secure_channel(f"127.0.0.1:{mesh.secure_port}", channel) as opened:
            call = opened.stream_stream(
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
                request_serializer=DiscoveryRequest.SerializeToString,
                response_deserializer=DiscoveryResponse.FromString,
            )(iter(asked.get, None), metadata=(("authorization", f"Bearer {token}"),), timeout=20)
            try:
                return str(next(call).type_url)
            except grpc.RpcError as error:
                return f"{error.code().name} {error.details()}"
            finally:
                asked.put(None)
                call.cancel()

    token = made["token"]
    assert "is not of the namespace evil" in said(token, "evil")  # which has not used it up
    assert said(token, "shop") == CLUSTER
    assert said(token, "shop") == "PERMISSION_DENIED the join token has been used before: each serves once"
    lines = [json.loads(line) for line in (mesh.directory / "audit.jsonl").read_text().splitlines()]
    (line,) = [one for one in lines if one["event"] == "admitted"]
    assert line["identity"] == "spiffe://cluster.local/ns/shop/sa/page"
    assert line["authenticated"].startswith("join token ")


def _for_label(name: str, app: str) -> dict[str, Any]:
    added = {"name": name, "type": "STATIC", "connect_timeout": "1s"}
    patch = {
        "applyTo": "CLUSTER",
        "match": {"context": "SIDECAR_OUTBOUND"},
        "patch": {"operation": "ADD", "value": added},
    }
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"workloadSelector": {"labels": {"app": app}}, "configPatches": [patch]},
    }


def _base64(path: Path) -> str:
    import base64

    return base64.b64encode(path.read_bytes()).decode()


def test_strangers_do_not_shut_the_doors(mesh: Whole) -> None:
    """Many who begin to say something and do not go on, at the API's only door for strangers."""
    from contextlib import ExitStack
    from http.client import HTTPSConnection
    from ssl import create_default_context

    context = create_default_context(cadata=mesh.api.access.authority)
    with ExitStack() as stack:
        for _ in range(60):
            connection = HTTPSConnection("127.0.0.1", mesh.api_port, timeout=10, context=context)
            stack.callback(connection.close)
            connection.putrequest("POST", "/mizzen/v1/join")
            connection.putheader("content-length", "1000")
            connection.endheaders(b"{")
        assert mesh.get("Namespace", "", "shop") is not None
        one = HTTPSConnection("127.0.0.1", mesh.api_port, timeout=10, context=context)
        stack.callback(one.close)
        one.request("GET", "/healthz")
        assert one.getresponse().status == 200


def test_types_that_are_not_served_are_passed_over(mesh: Whole) -> None:
    """Istio's agent asks for names and proxies' own configuration on the same stream."""
    node = {"id": "sidecar~10.0.0.9~agent.shop~shop.svc.cluster.local", "metadata": {"NAMESPACE": "shop"}}
    message = DiscoveryRequest()
    ParseDict(node, message.node)
    requests: queue.Queue[Any] = queue.Queue()
    with grpc.insecure_channel(f"127.0.0.1:{mesh.xds_port}") as channel:
        call = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )(iter(requests.get, None), timeout=30)
        asking = Stream(call, requests, message.node)
        asking.ask("type.googleapis.com/istio.networking.nds.v1.NameTable")
        asking.ask(CLUSTER)
        assert asking.answer().type_url == CLUSTER
        (mine,) = (one for one in mesh.proxies() if one["name"] == "agent.shop")
        assert list(mine["types"]) == ["CDS"]
        requests.put(None)
        call.cancel()


def test_proxies_that_come_and_go_leave_nothing(mesh: Whole) -> None:
    """Also those whose stream ends while they are registered."""
    for number in range(30):
        metadata = {"NAMESPACE": "shop", "AUTO_REGISTER_GROUP": "reviews", "SERVICE_ACCOUNT": "reviews"}
        message = DiscoveryRequest(type_url=CLUSTER)
        ParseDict(
            {"id": f"sidecar~10.0.2.{number}~r{number}.shop~shop.svc.cluster.local", "metadata": metadata}, message.node
        )
        channel = grpc.insecure_channel(f"127.0.0.1:{mesh.xds_port}")
        call = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )(iter([message]), timeout=10)
        if number % 3 == 0:
            next(call, None)
        else:
            until(lambda c=call: c.is_active(), "it is on its way")
        call.cancel()
        channel.close()
    until(lambda: not entries(mesh) and not mesh.proxies(), f"all are gone: {len(entries(mesh))}", timeout=20)
