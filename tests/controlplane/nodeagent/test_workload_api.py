"""The Workload API, by its real client: py-spiffe."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from cryptography import x509

from controlplane.nodeagent.spiffe import workload_pb2 as messages
from tests.controlplane.nodeagent.node import Node, RunningAgent, node

spiffe = pytest.importorskip("spiffe", reason="py-spiffe is not installed")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, RunningAgent]]:
    with node(tmp_path_factory.mktemp("node")) as one:
        one.join("reviews")
        with one.agent() as agent:
            yield one, agent


def address(running: tuple[Node, RunningAgent]) -> str:
    return f"unix://{running[0].socket('reviews')}"


def test_certificate_and_bundle(running: tuple[Node, RunningAgent]) -> None:
    with spiffe.WorkloadApiClient(address(running)) as client:
        context = client.fetch_x509_context(timeout=10)
        svid = context.default_svid
        assert str(svid.spiffe_id) == "spiffe://cluster.local/ns/shop/sa/reviews"
        directory = running[0].identities / "shop" / "reviews"
        leaf = x509.load_pem_x509_certificates((directory / "chain.pem").read_bytes())[0]
        assert svid.leaf == leaf and len(svid.cert_chain) == 1
        assert svid.private_key.public_key() == leaf.public_key()
        (root,) = (
            client.fetch_x509_bundles(timeout=10)
            .get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
            .x509_authorities
        )
        leaf.verify_directly_issued_by(root)


def call(running: tuple[Node, RunningAgent], method: str, request: object, *metadata: tuple[str, str]) -> grpc.RpcError:
    with grpc.insecure_channel(f"unix:{running[0].socket('reviews')}") as channel:
        ask = channel.unary_stream(
            f"/SpiffeWorkloadAPI/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=bytes,
        )
        with pytest.raises(grpc.RpcError) as caught:
            next(ask(request, metadata=metadata, timeout=10))
        return caught.value


@pytest.mark.parametrize(
    "method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"]
)
@pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "yes"),)], ids=["none", "another"])
def test_without_the_security_header(
    running: tuple[Node, RunningAgent], method: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    error = call(running, method, messages.X509SVIDRequest(), *metadata)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "workload.spiffe.io" in (error.details() or "")


def test_another_identity_is_not_given(running: tuple[Node, RunningAgent]) -> None:
    header = ("workload.spiffe.io", "true")
    request = messages.JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://cluster.local/ns/shop/sa/page")
    error = call(running, "FetchJWTSVID", request, header)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "is not the identity of this socket" in (error.details() or "")
    error = call(running, "FetchJWTSVID", messages.JWTSVIDRequest(), header)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "audience" in (error.details() or "")


def test_what_is_too_large(running: tuple[Node, RunningAgent]) -> None:
    request = messages.ValidateJWTSVIDRequest(audience="a", svid="x" * (300 << 10))
    error = call(running, "ValidateJWTSVID", request, ("workload.spiffe.io", "true"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
