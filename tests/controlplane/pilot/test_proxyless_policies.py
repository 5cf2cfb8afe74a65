"""Policies at gRPC servers without a proxy, which grpcio enforces, and what its clients must not send in plain text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from controlplane.model.proxy import ProxyType
from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import CLUSTER, LISTENER
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import assignment, change, clusters, mesh, proxy, resources
from tests.controlplane.xds.plain_mesh import Served
from tests.running import free_ports, until
from tests.sidecar.transport.certificates import Authority

grpc = pytest.importorskip("grpc")

from tests.controlplane.pilot.test_proxyless import TARGET, Client  # noqa: E402

SERVICE = """
kind: Service
metadata: shop/reviews
spec: {{ports: [{{name: grpc, port: 9080}}], selector: {{app: reviews}}}}
---
kind: WorkloadEntry
metadata: shop/reviews-1
spec:
  address: 127.0.0.1
  ports: {{grpc: {port}}}
  serviceAccount: reviews
  labels: {{app: reviews, security.istio.io/tlsMode: istio}}
---
kind: PeerAuthentication
metadata: shop/all
spec: {{mtls: {{mode: STRICT}}}}
"""
POLICY = "kind: AuthorizationPolicy\nmetadata: shop/p\nspec: {{selector: {{matchLabels: {{app: reviews}}}}, {}}}\n"


def _asks(what: str, action: str = "ALLOW") -> str:
    return POLICY.format(f"action: {action}, rules: [{what}]")


def _from(account: str) -> str:
    return f"{{from: [{{source: {{principals: [cluster.local/ns/shop/sa/{account}]}}}}]}}"


class Mesh:
    """A gRPC server and two clients, each with an identity."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.authority = directory, Authority()
        (directory / "roots.pem").write_bytes(self.authority.pem)
        self.served = Served(Pilot())
        (self.port,) = free_ports(1)
        self.tell(SERVICE.format(port=self.port))
        self.server = self._program("reviews")
        self.server.call("serve", self.port)
        self.clients = {name: self._program(name) for name in ("page", "admin")}

    def tell(self, text: str, *gone: ResourceKey) -> None:
        changed: dict[ResourceKey, Any] = {resource.key: resource for resource in resources(text)} if text else {}
        self.served.loop.call_soon_threadsafe(self.served.hub.changed, {**changed, **dict.fromkeys(gone)})

    def outcome(self, *metadata: str) -> dict[str, str]:
        """What becomes of a call of each client."""
        found = {}
        for name, client in self.clients.items():
            (answer,) = client.call(TARGET, 1, *metadata)
            found[name] = "yes" if answer.startswith("served") else answer.partition(":")[0]
        return found

    def _program(self, name: str) -> Client:
        made = self.authority.issue("", [f"spiffe://cluster.local/ns/shop/sa/{name}"])
        certificate, key = made.write(self.directory, name)
        watched = {
            "certificate_file": str(certificate),
            "private_key_file": str(key),
            "ca_certificate_file": str(self.directory / "roots.pem"),
            "refresh_interval": "60s",
        }
        return Client(
            self.served.port,
            name=f"{name}-1",
            metadata={"LABELS": {"app": name}, "SDS_AGENT": "true"},
            providers={"default": {"plugin_name": "file_watcher", "config": watched}},
        )

    def close(self) -> None:
        for client in (self.server, *self.clients.values()):
            client.close()
        self.served.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("grpc"))
    until(lambda: made.outcome() == {"page": "yes", "admin": "yes"}, "all get in where there is no policy")
    yield made
    made.close()


NO = "PERMISSION_DENIED"
TABLE = {
    "nobody": (POLICY.format("rules: []"), (), (NO, NO)),
    "one": (_asks(_from("admin")), (), (NO, "yes")),
    "all but one": (_asks(_from("admin"), "DENY"), (), ("yes", NO)),
    "method": (_asks("{to: [{operation: {paths: [/test.Who/Are]}}]}"), (), ("yes", "yes")),
    "another method": (_asks("{to: [{operation: {paths: [/test.Who/Else]}}]}"), (), (NO, NO)),
    "header": (_asks("{when: [{key: 'request.headers[user]', values: [jason]}]}", "DENY"), ("user=jason",), (NO, NO)),
    "another header": (
        _asks("{when: [{key: 'request.headers[user]', values: [jason]}]}", "DENY"),
        ("user=x",),
        ("yes", "yes"),
    ),
    "port": (_asks("{to: [{operation: {ports: ['1']}}]}"), (), (NO, NO)),
    "namespace": (_asks("{from: [{source: {namespaces: [shop]}}]}"), (), ("yes", "yes")),
    "service account": (_asks("{from: [{source: {serviceAccounts: [shop/page]}}]}"), (), ("yes", NO)),
    "tokens, allowed": (_asks("{from: [{source: {requestPrincipals: ['*']}}]}"), (), (NO, NO)),
    "tokens, denied": (_asks("{from: [{source: {requestPrincipals: [a/b]}}]}", "DENY"), (), (NO, NO)),
    "templates": (_asks("{to: [{operation: {paths: ['/test.Who/{*}']}}]}"), (), (NO, NO)),
    "templates, denied": (_asks("{to: [{operation: {paths: ['/x/{*}']}}]}", "DENY"), (), (NO, NO)),
    "host header": (_asks("{when: [{key: 'request.headers[host]', values: [x]}]}"), (), (NO, NO)),
    "asking": (POLICY.format("action: CUSTOM, provider: {name: x}, rules: [{}]"), (), (NO, NO)),
    "watching": (_asks("{}", "AUDIT"), (), ("yes", "yes")),
}


@pytest.mark.parametrize("case", TABLE)
def test_grpc_servers_enforce(running: Mesh, case: str) -> None:
    text, metadata, (page, admin) = TABLE[case]
    running.tell(text)
    try:
        until(lambda: running.outcome(*metadata) == {"page": page, "admin": admin}, f"{case}: {text}")
        assert running.served.refused == []
    finally:
        if page == admin == NO:  # so that the next one sees its own
            running.tell("", ResourceKey("AuthorizationPolicy", "shop", "p"))
            until(lambda: set(running.outcome().values()) == {"yes"}, "there is no policy")
        else:
            running.tell(POLICY.format("rules: []"))
            until(lambda: set(running.outcome().values()) == {NO}, "nobody gets in")


def test_a_policy_is_of_the_servers_that_it_selects() -> None:
    pilot = mesh(SERVICE.format(port=1) + "---\n" + POLICY.format("rules: []"))
    name = "xds.istio.io/grpc/lds/inbound/127.0.0.1:1"
    nodes = [proxy(f"{app}-1", "shop", type=ProxyType.PROXYLESS, labels={"app": app}) for app in ("reviews", "ratings")]

    def denied() -> list[bool]:
        return [b"RBAC" in pilot.resources(node, LISTENER, [name])[name].value for node in nodes]

    assert denied() == [True, False]
    assert ResourceKey("AuthorizationPolicy", "shop", "p") in pilot.causes(nodes[0], LISTENER, name)
    changes = change(pilot, POLICY.format("rules: []").replace("app: reviews", "app: ratings"))
    assert all(LISTENER in pilot.affected(changes, node) for node in nodes)
    assert denied() == [False, True]
    changes = change(pilot, gone=[ResourceKey("AuthorizationPolicy", "shop", "p")])
    assert LISTENER in pilot.affected(changes, nodes[1])
    assert denied() == [False, False]


def test_what_it_cannot_do_is_told() -> None:
    tokens = (
        "kind: RequestAuthentication\nmetadata: shop/t\nspec: {jwtRules: [{issuer: a, jwksUri: 'https://a.c/x'}]}\n"
    )
    asking = POLICY.format("action: CUSTOM, provider: {name: x}, rules: [{}]")
    pilot = mesh("---\n".join((SERVICE.format(port=1), tokens, asking, _rule("{mode: SIMPLE}"))))
    node = proxy("reviews-1", "shop", type=ProxyType.PROXYLESS, labels={"app": "reviews"})
    told = {cause.kind: words for words, (cause,) in pilot.left_out(node)}
    assert "asks no provider" in told["AuthorizationPolicy"]
    assert "looks at no tokens" in told["RequestAuthentication"]
    assert "gets no endpoints of reviews.shop.svc.cluster.local" in told["DestinationRule"]


def _rule(tls: str) -> str:
    return f"kind: DestinationRule\nmetadata: shop/d\nspec: {{host: reviews, trafficPolicy: {{tls: {tls}}}}}\n"


NAME = "outbound|9080||reviews.shop.svc.cluster.local"


@pytest.mark.parametrize(
    "tls", ["{mode: SIMPLE}", "{mode: MUTUAL, clientCertificate: /a, privateKey: /b, caCertificates: /c}"]
)
def test_tls_that_it_cannot_be_told_is_no_plain_text(tls: str) -> None:
    pilot = mesh(SERVICE.format(port=1))
    node = proxy("page-1", "shop", type=ProxyType.PROXYLESS, SDS_AGENT="true")
    assert len(assignment(pilot, node, NAME).endpoints) == 1
    change(pilot, _rule(tls))
    assert clusters(pilot, node)[NAME].type == clusters(pilot, node)[NAME].EDS
    assert not assignment(pilot, node, NAME).endpoints
    change(pilot, _rule("{mode: DISABLE}"))
    assert len(assignment(pilot, node, NAME).endpoints) == 1


def test_names_that_a_rule_pins_are_asked_for() -> None:
    pinned = "spiffe://cluster.local/ns/shop/sa/pinned"
    pilot = mesh(SERVICE.format(port=1) + "---\n" + _rule(f"{{mode: ISTIO_MUTUAL, subjectAltNames: ['{pinned}']}}"))
    made = clusters(pilot, proxy("page-1", "shop", type=ProxyType.PROXYLESS, SDS_AGENT="true"))[NAME]
    context = tls_pb2.UpstreamTlsContext.FromString(made.transport_socket.typed_config.value)
    names = context.common_tls_context.validation_context.match_typed_subject_alt_names
    assert [each.matcher.exact for each in names] == [pinned]
    assert set(pilot.resources(proxy("x", "shop", type=ProxyType.PROXYLESS), CLUSTER)) == {NAME}
