"""Istio's certificate service on the secure xDS port, by grpcio: every way to prove who one is, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from controlplane.citadel.istio import ca_pb2
from controlplane.citadel.istio.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from controlplane.cli.api import Api, ApiError
from tests.controlplane.citadel.kubernetes_api import KubernetesApi, jwt_like
from tests.controlplane.whole import Whole, whole
from tests.running import REPOSITORY

REVIEWS = "spiffe://cluster.local/ns/shop/sa/reviews"
PAGE = "spiffe://cluster.local/ns/shop/sa/page"


class Mesh:
    """A control plane that believes a Kubernetes API server, and a client of its certificate service."""

    def __init__(self, running: Whole, api: KubernetesApi) -> None:
        self.running = running
        self.api = api

    def create(
        self, *, token: str = "", csr: str = "", lifetime: int = 0, certificate: Any = None, **metadata: str
    ) -> list[str]:
        """A chain. ``certificate`` is (key, chain) to be known by."""
        private, chain = (None, None) if certificate is None else certificate
        credentials = grpc.ssl_channel_credentials(self.running.api.access.authority.encode(), private, chain)
        request = IstioCertificateRequest(csr=csr or request_of(), validity_duration=lifetime)
        request.metadata.update(metadata)
        with grpc.secure_channel(f"127.0.0.1:{self.running.secure_port}", credentials) as channel:
            call = channel.unary_unary(
                "/istio.v1.auth.IstioCertificateService/CreateCertificate",
                request_serializer=IstioCertificateRequest.SerializeToString,
                response_deserializer=IstioCertificateResponse.FromString,
            )
            headers = (("authorization", f"Bearer {token}"),) if token else ()
            return list(call(request, metadata=headers, timeout=20).cert_chain)

    def refused(self, code: grpc.StatusCode, **arguments: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            self.create(**arguments)
        assert caught.value.code() is code, caught.value  # type: ignore[attr-defined]
        return str(caught.value.details())  # type: ignore[attr-defined]

    def join_token(self) -> str:
        body = {"namespace": "shop", "serviceAccount": "reviews"}
        return str(self.running.api.request("POST", "/mizzen/v1/tokens", body)["token"])

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.running.directory / "audit.jsonl").read_text().splitlines()]


def request_of(key: Any = None, ask: str = "") -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if ask:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ask)])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def private(key: Any) -> bytes:
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def leaf_of(chain: list[str]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain[0].encode())


def identity(chain: list[str]) -> str:
    names = leaf_of(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (found,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    directory = tmp_path_factory.mktemp("citadel")
    with KubernetesApi(directory) as api:
        kubeconfig = api.kubeconfig(directory / "config")
        options = ("--token-review", str(kubeconfig), "--max-workload-certificate-lifetime", "172800")
        with whole(directory / "mesh", *options) as running:
            yield Mesh(running, api)


def test_a_join_token_serves_once_and_its_certificate_renews_itself(mesh: Mesh) -> None:
    key, token = ec.generate_private_key(ec.SECP256R1()), mesh.join_token()
    assert "csr: not a certificate" in mesh.refused(grpc.StatusCode.INVALID_ARGUMENT, token=token, csr="noise")
    chain = mesh.create(token=token, csr=request_of(key), lifetime=600)
    assert identity(chain) == REVIEWS and len(chain) == 2
    leaf = leaf_of(chain)
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() == 900
    assert "used before" in mesh.refused(grpc.StatusCode.UNAUTHENTICATED, token=token)
    own = (private(key), "".join(chain).encode())
    renewed = mesh.create(certificate=own, csr=request_of(ask=REVIEWS))
    assert identity(renewed) == REVIEWS and leaf_of(renewed).serial_number != leaf.serial_number
    *_, replay, renewal = mesh.audited()
    assert replay["event"] == "refused" and "used before" in replay["reason"]
    assert renewal["serial"] == f"{leaf_of(renewed).serial_number:x}"
    assert renewal["authenticated"] == f"certificate {leaf.serial_number:x}"
    assert renewal["source"].startswith("127.0.0.1:") and renewal["lifetime"] == 86400


def test_a_request_for_somebody_else_is_refused_and_written_down(mesh: Mesh) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    own = (private(key), "".join(mesh.create(token=mesh.join_token(), csr=request_of(key))).encode())
    for arguments in ({"csr": request_of(ask=PAGE)}, {"ImpersonatedIdentity": PAGE}):
        details = mesh.refused(grpc.StatusCode.PERMISSION_DENIED, certificate=own, **arguments)
        assert "asks for" in details
        line = mesh.audited()[-1]
        assert line["event"] == "refused" and line["requester"] == "system:serviceaccount:shop:reviews"
        assert line["reason"] == details and "serial" not in line
    assert identity(mesh.create(certificate=own, ImpersonatedIdentity=REVIEWS)) == REVIEWS
    denied = mesh.refused(grpc.StatusCode.PERMISSION_DENIED, token=mesh.join_token(), ImpersonatedIdentity=PAGE)
    assert "join token" in denied


def test_a_kubernetes_service_account_is_believed_as_its_api_server_says(mesh: Mesh) -> None:
    good, foreign = jwt_like("good"), jwt_like("foreign")
    mesh.api.known[good] = ("system:serviceaccount:shop:page", ["istio-ca"])
    mesh.api.known[foreign] = ("system:serviceaccount:shop:page", ["vault"])
    assert identity(mesh.create(token=good, csr=request_of(ask=PAGE))) == PAGE
    assert mesh.audited()[-1]["authenticated"] == "Kubernetes service account token"
    assert mesh.api.asked[-1] == {"token": good, "audiences": ["istio-ca"]}
    assert "for somebody" not in mesh.refused(
        grpc.StatusCode.PERMISSION_DENIED, token=good, csr=request_of(ask=REVIEWS)
    )
    mesh.refused(grpc.StatusCode.UNAUTHENTICATED, token=foreign)
    assert (
        mesh.audited()[-1]["event"] == "refused" and foreign not in (mesh.running.directory / "audit.jsonl").read_text()
    )


def test_a_kubernetes_service_account_gets_its_certificate_over_rest_too(mesh: Mesh) -> None:
    good = jwt_like("rest")
    mesh.api.known[good] = ("system:serviceaccount:shop:page", ["istio-ca"])
    access = replace(mesh.running.api.access, token=good)
    answer = Api(access).request("POST", "/mizzen/v1/certificates", {"certificateSigningRequest": request_of()})
    assert identity([answer["certificateChain"]]) == PAGE
    for path in ("/mizzen/v1/renew", "/mizzen/v1/jwt-svids"):
        with pytest.raises(ApiError, match="client certificate is required"):
            Api(access).request("POST", path, {})


def test_an_admin_names_the_identity(mesh: Mesh) -> None:
    admin = mesh.running.api.access.token
    assert identity(mesh.create(token=admin, ImpersonatedIdentity=PAGE)) == PAGE
    assert mesh.audited()[-1]["requester"] == "admin"
    assert "ImpersonatedIdentity is required" in mesh.refused(grpc.StatusCode.INVALID_ARGUMENT, token=admin)
    for wrong in ("page", "spiffe://other/ns/shop/sa/page", "spiffe://cluster.local/ns/shop/sa/page/x"):
        details = mesh.refused(grpc.StatusCode.INVALID_ARGUMENT, token=admin, ImpersonatedIdentity=wrong)
        assert "must be spiffe://cluster.local/ns/" in details
    for wrong in ("..", ".", "Shop", "a.b", "a_b", "-a", "x" * 64):
        details = mesh.refused(
            grpc.StatusCode.INVALID_ARGUMENT,
            token=admin,
            ImpersonatedIdentity=f"spiffe://cluster.local/ns/{wrong}/sa/page",
        )
        assert details.startswith("metadata: ")
    viewer = mesh.running.api.request("POST", "/mizzen/v1/tokens", {"role": "viewer", "name": "ann"})["token"]
    assert "may read" in mesh.refused(grpc.StatusCode.PERMISSION_DENIED, token=viewer, ImpersonatedIdentity=PAGE)


def test_who_proves_nothing_or_asks_for_too_much_gets_nothing(mesh: Mesh) -> None:
    mesh.refused(grpc.StatusCode.UNAUTHENTICATED)
    mesh.refused(grpc.StatusCode.UNAUTHENTICATED, token="mizzen-admin-abc-def")
    token = mesh.join_token()
    assert "validity_duration: " in mesh.refused(grpc.StatusCode.INVALID_ARGUMENT, token=token, lifetime=172801)
    mesh.refused(grpc.StatusCode.INVALID_ARGUMENT, token=token, lifetime=-1)
    assert mesh.refused(grpc.StatusCode.RESOURCE_EXHAUSTED, token=token, csr="x" * 70_000)
    assert identity(mesh.create(token=token, lifetime=172800)) == REVIEWS, "none of that cost the token"


def test_what_is_generated_is_what_the_proto_says(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    included = Path(protoc.__file__).parent / "_proto"
    path = "controlplane/citadel/istio/ca.proto"
    wanted = tmp_path / "set"
    arguments = ["protoc", f"-I{REPOSITORY}", f"-I{included}", f"--descriptor_set_out={wanted}", str(REPOSITORY / path)]
    assert protoc.main(arguments) == 0
    (file,) = FileDescriptorSet.FromString(wanted.read_bytes()).file
    file.ClearField("source_code_info")
    committed = type(file).FromString(ca_pb2.DESCRIPTOR.serialized_pb)
    for one in (file, committed):
        for message in one.message_type:
            for field in message.field:
                field.ClearField("json_name")
    assert file == committed
