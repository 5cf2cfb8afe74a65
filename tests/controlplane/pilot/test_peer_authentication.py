"""What PeerAuthentication makes of a workload's listeners and of its callers' clusters, and both data planes on it."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf.json_format import MessageToDict

from controlplane.model.resource import ResourceKey
from controlplane.pilot.security.peer_authentication import Mode, PeerIndex
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import assignment, change, clusters, decoded, mesh, proxy, resources
from tests.controlplane.pilot.planes import PLANES, Plane, running
from tests.controlplane.pilot.scene import LISTENER, Scene, sidecar
from tests.running import get, until
from tests.sidecar.transport.certificates import Authority, Certificate

AUTHORITY, STRANGERS = Authority(), Authority("Strangers")


def policy(name: str, spec: str, created: str = "2024-01-01T00:00:00Z") -> str:
    """A PeerAuthentication `NAMESPACE/NAME`."""
    namespace, _, own = name.partition("/")
    return (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        f"metadata: {{name: {own}, namespace: {namespace}, creationTimestamp: {created!r}}}\nspec: {spec}\n"
    )


def index(*policies: str, before: PeerIndex | None = None) -> PeerIndex:
    spaces: dict[str, dict[str, Any]] = {}
    for each in policies:
        (resource,) = resources(each)
        spaces.setdefault(resource.namespace, {})[resource.name] = resource
    return PeerIndex(spaces, "istio-system", before)


ROOT = policy("istio-system/default", "{mtls: {mode: STRICT}}")
APP = "selector: {matchLabels: {app: a}}"


@pytest.mark.parametrize(
    ("policies", "modes"),
    [
        ([], ("PERMISSIVE", "PERMISSIVE", "PERMISSIVE")),
        ([ROOT], ("STRICT", "STRICT", "STRICT")),
        ([ROOT, policy("shop/x", "{mtls: {mode: DISABLE}}")], ("DISABLE", "DISABLE", "DISABLE")),
        ([ROOT, policy("other/x", "{mtls: {mode: DISABLE}}")], ("STRICT", "STRICT", "STRICT")),
        ([ROOT, policy("shop/x", "{mtls: {mode: UNSET}}")], ("STRICT", "STRICT", "STRICT")),
        ([ROOT, policy("shop/x", "{}")], ("STRICT", "STRICT", "STRICT")),
        ([ROOT, policy("shop/x", f"{{{APP}, mtls: {{mode: PERMISSIVE}}}}")], ("PERMISSIVE", "PERMISSIVE", "STRICT")),
        ([policy("shop/x", f"{{{APP}, portLevelMtls: {{80: {{mode: DISABLE}}}}}}")], ("PERMISSIVE", "DISABLE", "PERMISSIVE")),
        (
            [ROOT, policy("shop/x", f"{{{APP}, mtls: {{mode: DISABLE}}, portLevelMtls: {{80: {{mode: UNSET}}}}}}")],
            ("DISABLE", "DISABLE", "STRICT"),
        ),
        (
            [
                policy("shop/older", "{mtls: {mode: STRICT}}", "2023-01-01T00:00:00Z"),
                policy("shop/newer", "{mtls: {mode: DISABLE}}", "2024-01-01T00:00:00Z"),
            ],
            ("STRICT", "STRICT", "STRICT"),
        ),
        (
            [
                policy("shop/newer", f"{{{APP}, mtls: {{mode: DISABLE}}}}", "2024-01-01T00:00:00Z"),
                policy("shop/older", f"{{{APP}, mtls: {{mode: UNSET}}}}", "2023-01-01T00:00:00Z"),
            ],
            ("PERMISSIVE", "PERMISSIVE", "PERMISSIVE"),
        ),
        ([policy("istio-system/x", f"{{{APP}, mtls: {{mode: STRICT}}}}")], ("PERMISSIVE", "PERMISSIVE", "PERMISSIVE")),
    ],
)  # fmt: skip
def test_the_narrowest_policy_holds(policies: list[str], modes: tuple[str, str, str]) -> None:
    """Of the workload `app: a`, of its port 80, and of another workload of the namespace."""
    peers = index(*policies).of_namespace("shop")
    mine, other = peers.of({"app": "a", "version": "v1"}), peers.of({"app": "b"})
    assert (mine.of_port(81), mine.of_port(80), other.of_port(80)) == modes
    assert peers.plain or "DISABLE" not in modes
    assert mine.mode in Mode


def test_namespaces_without_a_change_keep_what_they_had() -> None:
    shop, strict = policy("shop/x", "{mtls: {mode: DISABLE}}"), ROOT
    (one,), (two,) = resources(shop), resources(strict)
    spaces: dict[str, dict[str, Any]] = {"shop": {"x": one}, "istio-system": {"default": two}}
    first = PeerIndex(spaces, "istio-system")
    (other,) = resources(policy("other/x", "{mtls: {mode: DISABLE}}"))
    second = PeerIndex({**spaces, "other": {"x": other}}, "istio-system", first)
    assert second.of_namespace("shop") is first.of_namespace("shop")
    assert second.of_namespace("elsewhere") is first.of_namespace("elsewhere")
    assert second.of_namespace("other") is not first.of_namespace("other")


SERVICE = """
kind: Service
metadata: shop/a
spec: {ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 81}], selector: {app: a}}
---
kind: WorkloadEntry
metadata: shop/a-1
spec: {address: 10.0.0.1, serviceAccount: one, labels: {app: a, security.istio.io/tlsMode: istio}}
---
kind: WorkloadEntry
metadata: shop/a-2
spec: {address: 10.0.0.2, serviceAccount: two, labels: {app: a}}
"""
NAME = "outbound|80||a.shop.svc.cluster.local"
KNOWN = proxy("client", "web", SDS_AGENT="true")


def _speaking(pilot: Pilot, name: str = NAME) -> list[str]:
    """The addresses of endpoints that clients speak mutual TLS with."""
    return [
        one.endpoint.address.socket_address.address
        for locality in assignment(pilot, KNOWN, name).endpoints
        for one in locality.lb_endpoints
        if dict(one.metadata.filter_metadata["envoy.transport_socket_match"]) == {"tlsMode": "istio"}
    ]


def _context(match: Any) -> Any:
    return tls_pb2.UpstreamTlsContext.FromString(match.transport_socket.typed_config.value)


def _names(context: Any) -> list[str]:
    combined = context.common_tls_context.combined_validation_context
    return [each.matcher.exact for each in combined.default_validation_context.match_typed_subject_alt_names]


def test_clients_with_an_identity_tell_endpoints_by_their_label() -> None:
    pilot = mesh(SERVICE)
    made = clusters(pilot, KNOWN)[NAME]
    assert [each.name for each in made.transport_socket_matches] == ["tlsMode-istio", "tlsMode-disabled"]
    mutual, plain = made.transport_socket_matches
    assert dict(mutual.match) == {"tlsMode": "istio"} and not dict(plain.match)
    assert plain.transport_socket.name == "envoy.transport_sockets.raw_buffer"
    context = _context(mutual)
    assert context.sni == "outbound_.80_._.a.shop.svc.cluster.local"
    assert list(context.common_tls_context.alpn_protocols) == ["istio-http/1.1", "istio", "http/1.1"]
    assert _names(context) == ["spiffe://cluster.local/ns/shop/sa/one", "spiffe://cluster.local/ns/shop/sa/two"]
    assert _speaking(pilot) == ["10.0.0.1"]
    stranger = clusters(pilot, proxy("stranger", "web"))[NAME]
    assert not stranger.transport_socket_matches and not stranger.HasField("transport_socket")


@pytest.mark.parametrize("mesh_wide", ["{enableAutoMtls: false}", ""])
def test_what_rules_and_the_mesh_say_comes_first(mesh_wide: str) -> None:
    rule = "kind: DestinationRule\nmetadata: shop/a\nspec: {{host: a, trafficPolicy: {{tls: {{mode: {}}}}}}}\n"
    if mesh_wide:
        pilot = mesh(SERVICE + f"---\nkind: ConfigMap\nmetadata: istio-system/istio\ndata: {{mesh: '{mesh_wide}'}}\n")
        assert not clusters(pilot, KNOWN)[NAME].transport_socket_matches
    pilot = mesh(SERVICE + "---\n" + rule.format("DISABLE"))
    made = clusters(pilot, KNOWN)[NAME]
    assert not made.transport_socket_matches and not made.HasField("transport_socket")
    change(pilot, rule.format("ISTIO_MUTUAL"))
    made = clusters(pilot, KNOWN)[NAME]
    assert made.HasField("transport_socket") and not made.transport_socket_matches
    assert _names(_context(made)) == ["spiffe://cluster.local/ns/shop/sa/one", "spiffe://cluster.local/ns/shop/sa/two"]
    change(pilot, rule.format("ISTIO_MUTUAL").replace("ISTIO_MUTUAL", "ISTIO_MUTUAL, subjectAltNames: [mine]"))
    assert _names(_context(clusters(pilot, KNOWN)[NAME])) == ["mine"]


def test_servers_of_policies_that_say_plain_text_get_it() -> None:
    pilot = mesh(SERVICE)
    selecting = policy("shop/x", f"{{{APP}, portLevelMtls: {{8080: {{mode: DISABLE}}}}}}")
    changes = change(pilot, selecting)
    assert pilot.affected(changes, KNOWN)
    assert _speaking(pilot) == [] and _speaking(pilot, NAME.replace("80", "81")) == ["10.0.0.1"]
    assert clusters(pilot, KNOWN)[NAME].transport_socket_matches
    change(pilot, policy("shop/all", "{mtls: {mode: DISABLE}}"))
    assert not clusters(pilot, KNOWN)[NAME].transport_socket_matches
    change(pilot, gone=[ResourceKey("PeerAuthentication", "shop", name) for name in ("x", "all")])
    assert _speaking(pilot) == ["10.0.0.1"] and clusters(pilot, KNOWN)[NAME].transport_socket_matches


def test_clusters_follow_the_accounts_of_their_endpoints_and_not_the_endpoints() -> None:
    pilot = mesh(
        SERVICE + "---\nkind: ConfigMap\nmetadata: istio-system/istio\ndata: {mesh: 'trustDomainAliases: [old]'}\n"
    )
    before = pilot.resources(KNOWN, "type.googleapis.com/envoy.config.cluster.v3.Cluster")[NAME]
    third = "kind: WorkloadEntry\nmetadata: shop/a-3\nspec: {address: 10.0.0.3, serviceAccount: %s, labels: {app: a}}\n"
    changes = change(pilot, third % "two")
    assert NAME not in changes.services and not changes.services
    assert pilot.resources(KNOWN, "type.googleapis.com/envoy.config.cluster.v3.Cluster")[NAME] is before
    change(pilot, third % "three")
    assert _names(_context(clusters(pilot, KNOWN)[NAME].transport_socket_matches[0])) == [
        f"spiffe://{domain}/ns/shop/sa/{account}"
        for domain in ("cluster.local", "old")
        for account in ("one", "three", "two")
    ]


def _chains(pilot: Pilot, node: Any) -> list[tuple[int, str, bool, str, bool]]:
    """Of `virtualInbound`: port, transport protocol, whether the mesh's ALPN is asked for, cluster, whether mutual TLS."""
    listener = decoded(pilot, node, LISTENER)["virtualInbound"]
    assert not listener.HasField("default_filter_chain")
    found = []
    for each in listener.filter_chains:
        match = each.filter_chain_match
        (last,) = [one for one in each.filters if one.name.endswith(("tcp_proxy", "connection_manager"))]
        tcp = last.name.endswith("tcp_proxy")
        cluster = tcp_proxy_pb2.TcpProxy.FromString(last.typed_config.value).cluster if tcp else "http"
        mutual = each.HasField("transport_socket")
        asked = "istio" in match.application_protocols
        found.append((match.destination_port.value, match.transport_protocol, asked, cluster, mutual))
    return found[1:]  # what comes to the listener's own port goes nowhere


CAPTURED = {"INTERCEPTION_MODE": "REDIRECT"}
PASSED = "InboundPassthroughCluster"


def test_captured_connections_are_taken_by_the_policy_of_their_port() -> None:
    pilot = mesh(SERVICE)
    node = proxy("a-1", "shop", labels={"app": "a"}, address="10.0.0.1", SDS_AGENT="true", **CAPTURED)
    passed_permissive = [
        (0, "tls", True, PASSED, True),
        (0, "raw_buffer", False, PASSED, False),
        (0, "tls", False, PASSED, False),
    ]
    assert _chains(pilot, node) == [
        (81, "tls", True, "inbound|81||", True),
        (81, "raw_buffer", False, "inbound|81||", False),
        (81, "tls", False, "inbound|81||", False),
        (8080, "tls", False, "http", True),
        (8080, "raw_buffer", False, "http", False),
        *passed_permissive,
    ]  # fmt: skip
    change(pilot, policy("shop/x", "{mtls: {mode: STRICT}}"))
    strict = [(81, "tls", False, "inbound|81||", True), (8080, "tls", False, "http", True)]
    assert _chains(pilot, node) == [*strict, (0, "tls", False, PASSED, True)]
    change(pilot, policy("shop/y", f"{{{APP}, portLevelMtls: {{81: {{mode: DISABLE}}, 9999: {{mode: DISABLE}}}}}}"))
    assert _chains(pilot, node) == [
        (81, "", False, "inbound|81||", False),
        strict[1],
        (9999, "", False, PASSED, False),
        (0, "tls", False, PASSED, True),
    ]


def test_without_an_identity_strict_ports_are_closed_and_it_is_told() -> None:
    pilot = mesh(SERVICE + "---\n" + policy("shop/y", f"{{{APP}, portLevelMtls: {{8080: {{mode: STRICT}}}}}}"))
    node = proxy("a-1", "shop", labels={"app": "a"}, address="10.0.0.1")
    assert [name for name in decoded(pilot, node, LISTENER) if name.startswith("10.")] == ["10.0.0.1_81"]
    ((words, causes),) = pilot.left_out(node)
    assert "port 8080 of Service/shop/a is closed" in words and causes == (
        ResourceKey("PeerAuthentication", "shop", "y"),
    )
    captured = proxy("a-1", "shop", labels={"app": "a"}, address="10.0.0.1", **CAPTURED)
    assert _chains(pilot, captured) == [
        (81, "", False, "inbound|81||", False),
        (8080, "", False, "BlackHoleCluster", False),
        (0, "", False, PASSED, False),
    ]
    change(pilot, policy("shop/x", "{mtls: {mode: STRICT}}"))
    assert {cluster for *_, cluster, _ in _chains(pilot, captured)} == {"BlackHoleCluster"}


OWN = """
apiVersion: v1
kind: Service
metadata: {name: own, namespace: shop}
spec:
  selector: {app: own}
  ports: [{name: http-own, port: 8080}, {name: tcp-own, port: 5000}]
"""
SERVER = sidecar("own-1", LABELS={"app": "own"}, SDS_AGENT="true")
MINE = AUTHORITY.issue("", ["spiffe://cluster.local/ns/shop/sa/client"])
OTHERS = AUTHORITY.issue("", ["spiffe://elsewhere/ns/shop/sa/client"])
SELF_MADE = STRANGERS.issue("", ["spiffe://cluster.local/ns/shop/sa/client"])


def _secrets() -> list[dict[str, Any]]:
    served = AUTHORITY.issue("", ["spiffe://cluster.local/ns/shop/sa/own"])
    pair = {
        "certificate_chain": {"inline_bytes": base64.b64encode(served.pem).decode()},
        "private_key": {"inline_bytes": base64.b64encode(served.key_pem).decode()},
    }
    roots = {"trusted_ca": {"inline_bytes": base64.b64encode(AUTHORITY.pem).decode()}}
    return [{"name": "default", "tls_certificate": pair}, {"name": "ROOTCA", "validation_context": roots}]


@pytest.fixture(
    scope="module", params=[(plane, mode) for plane in PLANES for mode in ("PERMISSIVE", "STRICT")], ids="-".join
)
def entered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plane, str]]:
    """A sidecar's own listeners under a mode."""
    kind, mode = request.param
    scene = Scene(OWN, policy("shop/x", f"{{mtls: {{mode: {mode}}}}}"))
    with running(kind, scene, SERVER, tmp_path_factory.mktemp(f"{kind}-{mode}"), secrets=_secrets()) as made:
        yield made, mode


def _asked(port: int, certificate: Certificate | None, alpn: list[str], directory: Path) -> bytes:
    """What comes of a request over TLS with a certificate; nothing where the connection is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    if certificate is not None:
        context.load_cert_chain(*certificate.write(directory, "client"))
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nhost: own\r\nconnection: close\r\n\r\n")
        return secured.recv(65536)
    return b""


MESH_ALPN = ["istio-peer-exchange", "istio"]


@pytest.mark.parametrize("port", [8080, 5000])
def test_only_the_meshs_own_certificates_are_let_in(entered: tuple[Plane, str], port: int, tmp_path: Path) -> None:
    plane, _ = entered
    number = plane.ports[f"127.0.0.1_{port}"]
    answer = _asked(number, MINE, MESH_ALPN, tmp_path)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    if port == 8080:
        (request,) = [one for one in plane.servers.requests if one["from"] == "inbound|8080||"][-1:]
        assert "URI=spiffe://cluster.local/ns/shop/sa/client" in request["headers"]["x-forwarded-client-cert"]
    for wrong in (OTHERS, SELF_MADE, None):
        assert _asked(number, wrong, MESH_ALPN, tmp_path) == b""


@pytest.mark.parametrize("port", [8080, 5000])
def test_plain_text_is_for_those_who_permit_it(entered: tuple[Plane, str], port: int) -> None:
    plane, mode = entered
    with socket.create_connection(("127.0.0.1", plane.ports[f"127.0.0.1_{port}"]), 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: own\r\nx-forwarded-client-cert: URI=spiffe://forged\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = plain.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200") == (mode == "PERMISSIVE")
    if port == 8080:
        assert b"forged" not in answer


def test_the_applications_own_tls_passes_where_plain_text_does(entered: tuple[Plane, str], tmp_path: Path) -> None:
    """The application answers a ClientHello with its name, which is no TLS."""
    plane, mode = entered
    hello = ssl.MemoryBIO()
    engine = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="own")
    with contextlib.suppress(ssl.SSLWantReadError):
        engine.do_handshake()
    with socket.create_connection(("127.0.0.1", plane.ports["127.0.0.1_5000"]), 10) as plain:
        plain.sendall(hello.read())
        answer = plain.recv(65536)
    assert (answer == b"inbound|5000||") == (mode == "PERMISSIVE")


def test_a_client_that_says_nothing_is_led_to_a_server_that_speaks_first(entered: tuple[Plane, str]) -> None:
    plane, mode = entered

    def count() -> int:
        lines = get(plane.ports["admin"], "/stats")[2].splitlines()
        return sum(int(line.rpartition(": ")[2]) for line in lines if "inbound|5000||.upstream_cx_total" in line)

    before = count()
    with socket.create_connection(("127.0.0.1", plane.ports["127.0.0.1_5000"]), 10) as silent:
        if mode == "PERMISSIVE":
            until(lambda: count() > before, "the application is connected to")
        else:
            silent.settimeout(1.5)
            with pytest.raises(TimeoutError):
                silent.recv(1)
            assert count() == before


def test_how_long_it_is_waited_for_a_client() -> None:
    """`protocolDetectionTimeout` says it, else it is a second."""
    scene = Scene(OWN)
    listeners = scene.listeners(SERVER)
    assert listeners["127.0.0.1_5000"].listener_filters_timeout.seconds == 1
    assert listeners["127.0.0.1_5000"].continue_on_listener_filters_timeout
    strict = Scene(OWN, policy("shop/x", "{mtls: {mode: STRICT}}")).listeners(SERVER)["127.0.0.1_5000"]
    assert not strict.HasField("listener_filters_timeout")  # Envoy's own 15 seconds
    told = Scene(OWN, mesh={"protocol_detection_timeout": 3.0}).listeners(SERVER)
    assert told["127.0.0.1_5000"].listener_filters_timeout.seconds == 3


def test_tls_of_the_mesh_is_what_it_says() -> None:
    scene = Scene(
        OWN,
        policy("shop/x", "{mtls: {mode: STRICT}}"),
        mesh={"trust_domain_aliases": ("old",), "mesh_mtls": {"min_protocol_version": "TLSV1_3"}},
    )
    (made,) = scene.listeners(SERVER)["127.0.0.1_8080"].filter_chains
    context = tls_pb2.DownstreamTlsContext.FromString(made.transport_socket.typed_config.value)
    told = MessageToDict(context, preserving_proto_field_name=True)
    common = told["common_tls_context"]
    assert (
        told["require_client_certificate"] is True and common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"
    )
    names = common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
    assert [each["matcher"]["prefix"] for each in names] == ["spiffe://cluster.local/", "spiffe://old/"]


def test_an_applications_own_tls_is_no_http_on_a_port_of_unknown_protocol() -> None:
    """HTTPS clients offer http/1.1, which is also what plain text of HTTP is told by."""
    service = SERVICE.replace("name: tcp", "name: x")
    assert service != SERVICE
    pilot = mesh(service + "---\n" + policy("shop/y", f"{{{APP}, portLevelMtls: {{81: {{mode: DISABLE}}}}}}"))
    node = proxy("a-1", "shop", labels={"app": "a"}, address="10.0.0.1", SDS_AGENT="true", **CAPTURED)
    assert [(one[1], one[3]) for one in _chains(pilot, node) if one[0] == 81] == [
        ("raw_buffer", "http"),
        ("raw_buffer", "inbound|81||"),
        ("", "inbound|81||"),
    ]
