"""A trust bundle is confirmed once everybody who follows the roots goes by it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from controlplane.nodeagent.current import Current, Material
from controlplane.nodeagent.metrics import Metrics
from controlplane.nodeagent.peers import Peers
from controlplane.nodeagent.sds import Conversation, Delta, SecretService, StateOfTheWorld
from controlplane.nodeagent.svid import parse_svid
from controlplane.nodeagent.trust_bundle import TrustBundle, parse_bundle
from tests.controlplane.nodeagent.test_files import AUTHORITY, OTHER, REVIEWS, answer, leaf

OLD = parse_bundle(answer(roots=AUTHORITY.pem.decode(), crl="", version=1), "cluster.local")
NEW = parse_bundle(answer(roots=(AUTHORITY.pem + OTHER.pem).decode(), crl="", version=2), "cluster.local")
SVID = parse_svid(*leaf(REVIEWS))


class Proxy:
    """One stream, without a wire."""

    def __init__(self, service: SecretService, dialect: type[Conversation], *names: str) -> None:
        self.conversation = dialect(service)
        self.delta = dialect is Delta
        self.names = names
        self.ask()

    def ask(self, **fields: Any) -> None:
        if self.delta:
            request: Any = DeltaDiscoveryRequest(**fields)
            if not fields:
                request.resource_names_subscribe.extend(self.names)
        else:
            request = DiscoveryRequest(resource_names=self.names, **fields)
        self.conversation.on_request(request)
        self.conversation.tell_subscription()

    def hear(self) -> Any:
        return self.conversation.response(self.conversation.service.current.material)

    def refuse(self, nonce: str) -> None:
        self.ask(response_nonce=nonce, error_detail={"message": "no"})


@pytest.fixture
def service() -> SecretService:
    return SecretService(Current(Material(SVID, OLD)), Peers("shop/reviews", {0}, Metrics()), Metrics())


def change(service: SecretService, bundle: TrustBundle) -> None:
    service.current.replace(Material(SVID, bundle))


@pytest.mark.parametrize("dialect", [StateOfTheWorld, Delta])
def test_once_all_have_taken_it(service: SecretService, dialect: type[Conversation]) -> None:
    current = service.current
    assert current.is_taken(OLD), "nobody is there"
    proxies = [Proxy(service, dialect, "ROOTCA"), Proxy(service, dialect, "default", "spiffe://cluster.local")]
    Proxy(service, dialect, "default")  # does not follow the roots
    for number, proxy in enumerate(proxies, 1):
        proxy.ask(response_nonce=proxy.hear().nonce)
        assert current.is_taken(OLD) == (number == len(proxies))
    change(service, NEW)
    assert not current.is_taken(NEW) and not current.is_taken(OLD)
    first, second = (proxy.hear() for proxy in proxies)
    proxies[0].ask(response_nonce=first.nonce)
    assert not current.is_taken(NEW)
    proxies[1].refuse(second.nonce)
    assert not current.is_taken(NEW), "who refuses goes by the old one"
    current.subscribers.discard(proxies[1].conversation)
    assert current.is_taken(NEW), "who has gone is not waited for"


@pytest.mark.parametrize("dialect", [StateOfTheWorld, Delta])
def test_an_acknowledgement_of_the_last_is_none_of_this(service: SecretService, dialect: type[Conversation]) -> None:
    proxy = Proxy(service, dialect, "ROOTCA")
    first = proxy.hear()
    change(service, NEW)
    second = proxy.hear()
    proxy.ask(response_nonce=first.nonce)
    assert not service.current.is_taken(NEW)
    proxy.ask(response_nonce=second.nonce)
    assert service.current.is_taken(NEW)


def test_what_proxies_do_not_see_is_taken_at_once(service: SecretService) -> None:
    proxy = Proxy(service, StateOfTheWorld, "ROOTCA")
    proxy.ask(response_nonce=proxy.hear().nonce)
    other = parse_bundle(answer(roots=AUTHORITY.pem.decode(), crl="", version=7, jwks={"keys": [{}]}), "cluster.local")
    change(service, other)
    assert proxy.hear() is None and service.current.is_taken(other)


def test_nothing_is_said_twice(service: SecretService) -> None:
    for dialect in (StateOfTheWorld, Delta):
        proxy = Proxy(service, dialect, "default", "ROOTCA")
        response = proxy.hear()
        assert len(response.resources) == 2 and proxy.hear() is None
        proxy.ask(response_nonce=response.nonce)
        assert proxy.hear() is None


def test_revocations_are_of_leaves(service: SecretService) -> None:
    change(service, parse_bundle(answer(), "cluster.local"))
    from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret

    (resource,) = Proxy(service, StateOfTheWorld, "ROOTCA").hear().resources
    context = Secret.FromString(resource.value).validation_context
    assert b"BEGIN X509 CRL" in context.crl.inline_bytes and context.only_verify_leaf_cert_crl
