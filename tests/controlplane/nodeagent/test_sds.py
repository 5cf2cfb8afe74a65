"""SDS on a workload's socket, by a real gRPC client, in the three methods."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from cryptography import x509
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from envoy.service.secret.v3.sds_pb2_grpc import SecretDiscoveryServiceStub

from controlplane.nodeagent.sds import TYPE_URL
from tests.controlplane.nodeagent.node import Node, RunningAgent, node
from tests.running import until

REVIEWS = "spiffe://cluster.local/ns/shop/sa/reviews"
DOMAIN = "spiffe://cluster.local"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, RunningAgent]]:
    with node(tmp_path_factory.mktemp("node")) as one:
        one.join("reviews")
        with one.agent() as agent:
            yield one, agent


@pytest.fixture
def stub(running: tuple[Node, RunningAgent]) -> Iterator[SecretDiscoveryServiceStub]:
    with grpc.insecure_channel(f"unix:{running[0].socket('reviews')}") as channel:
        yield SecretDiscoveryServiceStub(channel)


class Talk:
    """One stream: requests are put in, responses come out."""

    def __init__(self, method: Any) -> None:
        self.requests: queue.Queue[Any] = queue.Queue()
        self.call = method(iter(self.requests.get, None), timeout=20)

    def say(self, request: Any) -> None:
        self.requests.put(request)

    def hear(self) -> Any:
        return next(self.call)

    def close(self) -> None:
        self.requests.put(None)
        self.call.cancel()


@pytest.fixture
def sotw(stub: SecretDiscoveryServiceStub) -> Iterator[Talk]:
    talk = Talk(stub.StreamSecrets)
    yield talk
    talk.close()


@pytest.fixture
def delta(stub: SecretDiscoveryServiceStub) -> Iterator[Talk]:
    talk = Talk(stub.DeltaSecrets)
    yield talk
    talk.close()


def secrets(resources: Any) -> dict[str, Secret]:
    found = [Secret.FromString(one.value) for one in resources]
    return {one.name: one for one in found}


def test_names_and_aliases(running: tuple[Node, RunningAgent], stub: SecretDiscoveryServiceStub) -> None:
    names = ["default", REVIEWS, "ROOTCA", DOMAIN]
    found = secrets(stub.FetchSecrets(DiscoveryRequest(resource_names=names, type_url=TYPE_URL), timeout=10).resources)
    assert list(found) == names
    directory = running[0].identities / "shop" / "reviews"
    for name in names[:2]:
        pair = found[name].tls_certificate
        (leaf,) = x509.load_pem_x509_certificates(pair.certificate_chain.inline_bytes)
        assert leaf == x509.load_pem_x509_certificates((directory / "chain.pem").read_bytes())[0]
        assert pair.private_key.inline_bytes == (directory / "key.pem").read_bytes()
    for name in names[2:]:
        context = found[name].validation_context
        assert context.trusted_ca.inline_bytes == (directory / "root.pem").read_bytes()


def test_state_of_the_world(running: tuple[Node, RunningAgent], sotw: Talk) -> None:
    agent = running[1]
    before = agent.metric("mizzen_agent_sds_acks_total", workload="shop/reviews")
    sotw.say(DiscoveryRequest(resource_names=["default"], type_url=TYPE_URL))
    first = sotw.hear()
    assert list(secrets(first.resources)) == ["default"] and first.version_info
    request = DiscoveryRequest(
        resource_names=["default"], type_url=TYPE_URL, response_nonce=first.nonce, version_info=first.version_info
    )
    sotw.say(request)
    until(lambda: agent.metric("mizzen_agent_sds_acks_total", workload="shop/reviews") == before + 1, "it is counted")
    request.resource_names.append("ROOTCA")
    sotw.say(request)
    second = sotw.hear()
    assert list(secrets(second.resources)) == ["default", "ROOTCA"] and second.nonce != first.nonce


def test_a_refusal_is_counted_and_logged(running: tuple[Node, RunningAgent], sotw: Talk) -> None:
    sotw.say(DiscoveryRequest(resource_names=["ROOTCA"], type_url=TYPE_URL))
    response = sotw.hear()
    before = running[1].metric("mizzen_agent_sds_nacks_total", workload="shop/reviews")
    refusal = DiscoveryRequest(resource_names=["ROOTCA"], type_url=TYPE_URL, response_nonce=response.nonce)
    refusal.error_detail.message = "these roots are not to my taste"
    sotw.say(refusal)
    running[1].wait_for("shop/reviews: a proxy refuses ROOTCA: these roots are not to my taste")
    assert running[1].metric("mizzen_agent_sds_nacks_total", workload="shop/reviews") == before + 1


def test_delta(delta: Talk) -> None:
    delta.say(DeltaDiscoveryRequest(type_url=TYPE_URL, resource_names_subscribe=["default", "ROOTCA"]))
    first = delta.hear()
    versions = {one.name: one.version for one in first.resources}
    assert set(versions) == {"default", "ROOTCA"}
    delta.say(DeltaDiscoveryRequest(type_url=TYPE_URL, response_nonce=first.nonce, resource_names_subscribe=[DOMAIN]))
    assert [one.name for one in delta.hear().resources] == [DOMAIN]


def test_delta_of_who_has_it_already(stub: SecretDiscoveryServiceStub, delta: Talk) -> None:
    delta.say(DeltaDiscoveryRequest(type_url=TYPE_URL, resource_names_subscribe=["default", "ROOTCA"]))
    versions = {one.name: one.version for one in delta.hear().resources}
    again = Talk(stub.DeltaSecrets)
    versions["ROOTCA"] = "of another time"
    again.say(
        DeltaDiscoveryRequest(
            type_url=TYPE_URL, resource_names_subscribe=["default", "ROOTCA"], initial_resource_versions=versions
        )
    )
    assert [one.name for one in again.hear().resources] == ["ROOTCA"]
    again.close()


@pytest.mark.parametrize("method", ["StreamSecrets", "DeltaSecrets"])
def test_unknown_names(running: tuple[Node, RunningAgent], stub: SecretDiscoveryServiceStub, method: str) -> None:
    def ask(*names: str) -> Talk:
        talk = Talk(getattr(stub, method))
        if method == "StreamSecrets":
            talk.say(DiscoveryRequest(resource_names=names, type_url=TYPE_URL))
        else:
            talk.say(DeltaDiscoveryRequest(resource_names_subscribe=names, type_url=TYPE_URL))
        return talk

    alone = ask("spiffe://cluster.local/ns/shop/sa/page")
    with pytest.raises(grpc.RpcError) as caught:
        alone.hear()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert f"this socket has default, {REVIEWS}, ROOTCA, {DOMAIN}" in caught.value.details()
    alone.close()
    beside = ask("ROOTCA", "another")
    response = beside.hear()
    assert len(response.resources) == 1
    (error,) = response.resource_errors
    assert error.resource_name.name == "another" and "there is no secret 'another' here" in error.error_detail.message
    beside.close()
    assert "a proxy asks for a secret 'another' that is not here" in running[1].output


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (DiscoveryRequest(type_url=TYPE_URL), grpc.StatusCode.INVALID_ARGUMENT, "no secret is named"),
        (
            DiscoveryRequest(
                type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster", resource_names=["default"]
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
            "is not served here",
        ),
        (
            DiscoveryRequest(type_url=TYPE_URL, resource_names=[f"name-{number}" for number in range(101)]),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "101 names",
        ),
        (
            DiscoveryRequest(type_url=TYPE_URL, resource_names=["x" * (300 << 10)]),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "the limit is",
        ),
    ],
    ids=["nothing", "another type", "many names", "a large request"],
)
def test_requests_that_are_refused(
    stub: SecretDiscoveryServiceStub, request_: DiscoveryRequest, code: grpc.StatusCode, words: str
) -> None:
    for ask in (
        lambda: stub.FetchSecrets(request_, timeout=10),
        lambda: next(stub.StreamSecrets(iter([request_]), timeout=10)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask()
        assert caught.value.code() is code and words in caught.value.details()


def test_streams_are_counted(running: tuple[Node, RunningAgent], stub: SecretDiscoveryServiceStub) -> None:
    def streams() -> float:
        return running[1].metric("mizzen_agent_streams", workload="shop/reviews", kind="sds")

    until(lambda: streams() == 0, "those of other tests have ended")
    talk = Talk(stub.StreamSecrets)
    talk.say(DiscoveryRequest(resource_names=["default"], type_url=TYPE_URL))
    talk.hear()
    assert streams() == 1
    talk.close()
    until(lambda: streams() == 0, "it has ended")


def test_no_key_is_logged(running: tuple[Node, RunningAgent]) -> None:
    key = (running[0].identities / "shop" / "reviews" / "key.pem").read_text()
    assert not [line for line in key.splitlines()[1:-1] if line in running[1].output]
    assert "PRIVATE" not in running[1].output
