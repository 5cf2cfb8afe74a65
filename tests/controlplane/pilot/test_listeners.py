"""What sidecars listen on, and where it leads, in our sidecar and in real Envoy."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from controlplane.pilot.listeners.listener import OUTBOUND
from tests.controlplane.pilot.behaviour import send, services, short
from tests.controlplane.pilot.planes import PLANES, Plane, running
from tests.controlplane.pilot.scene import Scene, sidecar

MESH = """
apiVersion: v1
kind: Service
metadata: {name: own, namespace: shop}
spec:
  selector: {app: own}
  ports:
  - {name: http-own, port: 80, targetPort: 8080}
  - {name: tcp-own, port: 5000}
  - {name: found-out, port: 6000}
---
apiVersion: v1
kind: Service
metadata: {name: addressed, namespace: shop}
spec:
  clusterIP: 10.1.2.3
  selector: {app: addressed}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  selector: {app: db}
  ports: [{name: tcp-db, port: 5432}]
---
apiVersion: v1
kind: Service
metadata: {name: secure, namespace: shop}
spec:
  selector: {app: secure}
  ports: [{name: tls-secure, port: 8443}]
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: shop}
spec:
  selector: {app: vault}
  ports: [{name: tls-vault, port: 8443}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure, namespace: shop}
spec:
  hosts: [secure, one.example, "*.two.example", never.example]
  tls:
  - match: [{port: 8443, sniHosts: [one.example]}]
    route: [{destination: {host: secure, subset: one}}]
  - match: [{port: 8443, sniHosts: ["*.two.example"]}]
    route: [{destination: {host: secure, subset: two}}]
  - match: [{port: 9999, sniHosts: [never.example]}]
    route: [{destination: {host: secure, subset: never}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db, namespace: shop}
spec:
  hosts: [db]
  tcp:
  - match: [{sourceLabels: {app: somebody-else}}]
    route: [{destination: {host: db, subset: never}}]
  - match: [{port: 5432}]
    route:
    - {destination: {host: db, subset: v1}, weight: 50}
    - {destination: {host: db, subset: v2}, weight: 50}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  egress:
  - port: {number: 80, protocol: HTTP, name: http}
    hosts: ["./*"]
  - port: {number: 5432, protocol: TCP, name: tcp}
    bind: 127.0.0.3
    hosts: ["./*"]
  - port: {number: 8443, protocol: TLS, name: tls}
    hosts: ["./*"]
  - hosts: ["*/*"]
"""
OWN = sidecar("own-1", LABELS={"app": "own"})


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A sidecar of the service `own`."""
    with running(request.param, Scene(services(), MESH), OWN, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def who(plane: Plane, listener: str, host: str, path: str = "/") -> str:
    """Who answers a request to a host, or the status if it is not 200."""
    status, _, body = send(plane.ports[listener], host, {"path": path})
    return short(json.loads(body)["from"]) if status == 200 else str(status)


def raw(plane: Plane, listener: str, data: bytes) -> str:
    """Who answers bytes that are not HTTP; empty if the connection is closed."""
    with socket.create_connection(("127.0.0.1", plane.ports[listener]), timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while more := connection.recv(4096):
                answer += more
        except ConnectionResetError:
            pass
    return short(answer.decode())


def hello(name: str) -> bytes:
    """A ClientHello that asks for a name."""
    out = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


PROXY = "127.0.0.1_15002"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a", "a"),
        ("a:80", "a"),
        ("a.shop", "a"),
        ("a.shop.svc:80", "a"),
        ("a.shop.svc.cluster.local", "a"),
        ("10.1.2.3", "addressed"),
        ("10.1.2.3:80", "addressed"),
        ("odd-port:9080", "odd-port:9080"),
        ("odd-port", "PassthroughByNameCluster"),
        ("odd-port.shop.svc.cluster.local", "502"),
        ("two-ports:8080", "two-ports:8080"),
        ("far.away", "far.away"),
        ("far.away.svc.cluster.local:80", "far.away"),
        ("far", "PassthroughByNameCluster"),
        ("far.away.svc:81", "502"),
        ("nowhere.example", "PassthroughByNameCluster"),
        ("127.0.0.1", "PassthroughByNameCluster"),
        ("127.0.0.1:81", "PassthroughByAuthorityCluster"),
    ],
)
def test_the_forward_proxy_knows_services_by_all_their_names(plane: Plane, host: str, expected: str) -> None:
    assert who(plane, PROXY, host) == expected


def test_the_forward_proxy_takes_requests_as_clients_of_proxies_make_them(plane: Plane) -> None:
    status, _, body = send(plane.ports[PROXY], "", {"path": "http://odd-port:9080/books?x=1", "host": "odd-port:9080"})
    assert status == 200
    seen = json.loads(body)
    assert (short(seen["from"]), seen["path"]) == ("odd-port:9080", "/books?x=1")


def test_an_unknown_host_is_told_what_to_do(plane: Plane) -> None:
    _, _, body = send(plane.ports["127.0.0.1_80"], "nowhere.example", {})
    assert b"ServiceEntry" in body


def test_an_egress_listener_serves_the_services_of_its_port(plane: Plane) -> None:
    assert who(plane, "127.0.0.1_80", "a") == "a"
    assert who(plane, "127.0.0.1_80", "a.shop.svc.cluster.local:80") == "a"
    assert who(plane, "127.0.0.1_80", "two-ports") == "two-ports"
    assert who(plane, "127.0.0.1_80", "far.away") == "502"  # not in this listener's hosts
    assert who(plane, "127.0.0.1_80", "127.0.0.1:81") == "PassthroughByAuthorityCluster"


def test_connections_are_split_by_weight(plane: Plane) -> None:
    found = {raw(plane, "127.0.0.3_5432", b"\0hello") for _ in range(40)}
    assert found == {"db/v1:5432", "db/v2:5432"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one.example", "secure/one:8443"),
        ("x.two.example", "secure/two:8443"),
        ("vault.shop.svc.cluster.local", "vault:8443"),
        ("secure.shop.svc.cluster.local", "secure:8443"),
        ("never.example", ""),
    ],
)
def test_connections_with_tls_go_by_the_name_they_ask_for(plane: Plane, name: str, expected: str) -> None:
    assert raw(plane, "127.0.0.1_8443", hello(name)) == expected


def test_what_comes_in_goes_to_the_application(plane: Plane) -> None:
    assert who(plane, "127.0.0.1_8080", "own") == "inbound|8080||"
    assert raw(plane, "127.0.0.1_5000", b"\0hello") == "inbound|5000||"


def test_an_inbound_port_without_a_protocol_finds_it_out(plane: Plane) -> None:
    assert who(plane, "127.0.0.1_6000", "own") == "inbound|6000||"
    status, headers, _ = send(plane.ports["127.0.0.1_6000"], "own", {})
    assert (status, headers["server"]) == (200, "istio-envoy")
    assert raw(plane, "127.0.0.1_6000", b"\0hello") == "inbound|6000||"


def test_no_listener_shares_its_port() -> None:
    for listener in Scene(services(), MESH).listeners(OWN).values():
        assert listener.enable_reuse_port.value is False and listener.HasField("enable_reuse_port")


@pytest.mark.parametrize("mode", PLANES)
def test_registry_only_refuses_what_is_not_in_the_mesh(mode: str, tmp_path: Path) -> None:
    scene = Scene(services(), mesh={"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})
    with running(mode, scene, sidecar(), tmp_path) as plane:
        assert who(plane, PROXY, "a") == "a"
        assert who(plane, PROXY, "nowhere.example") == "502"
        assert who(plane, PROXY, "127.0.0.1:81") == "502"


def tunnelled(plane: Plane, target: str, data: bytes) -> tuple[int, str]:
    """The status of a CONNECT through the forward proxy, and who answers what is sent through the tunnel."""
    with socket.create_connection(("127.0.0.1", plane.ports[PROXY]), timeout=10) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(4096)
            assert more, head
            head += more
        status = int(head.split(b" ")[1])
        if status != 200:
            return status, ""
        connection.sendall(data)
        answer = head.partition(b"\r\n\r\n")[2]
        while more := connection.recv(4096):
            answer += more
    return status, short(answer.decode())


def test_the_forward_proxy_opens_tunnels_to_what_is_no_http(plane: Plane) -> None:
    assert tunnelled(plane, "vault:8443", hello("vault")) == (200, "vault:8443")
    assert tunnelled(plane, "own.shop.svc.cluster.local:6000", b"\0hello") == (200, "own:6000")
    with ThreadPoolExecutor(40) as clients:  # at once, since Envoy lets go of a tunnel a second after its end
        answers = clients.map(lambda _: tunnelled(plane, "db.shop:5432", b"\0hello"), range(40))
        found = {who for _, who in answers}
    assert found == {"db/v1:5432", "db/v2:5432"}  # its TCP route holds


def test_the_forward_proxy_opens_tunnels_where_it_knows_no_service(plane: Plane) -> None:
    assert tunnelled(plane, "127.0.0.1:81", b"\0hello") == (200, "PassthroughByAuthorityCluster")
    assert tunnelled(plane, "localhost:443", b"\0hello") == (200, "PassthroughByNameCluster")
    assert tunnelled(plane, "nowhere.shop.svc:443", b"")[0] == 502
    assert tunnelled(plane, "a:80", b"")[0] == 404  # requests to services of HTTP are routed one by one


CLASHING = """
apiVersion: v1
kind: Service
metadata: {name: own, namespace: shop}
spec: {selector: {app: own}, ports: [{name: http, port: 80}, {name: http-two, port: 15002}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  egress:
  - {port: {number: 80, protocol: HTTP, name: one}, hosts: ["*/*"]}
  - {port: {number: 80, protocol: HTTP, name: two}, bind: 0.0.0.0, hosts: ["*/*"]}
  - {hosts: ["*/*"]}
"""


def test_a_clash_of_addresses_is_an_error_that_names_both() -> None:
    scene = Scene(CLASHING)
    found = scene.listeners(OWN)
    assert sorted(found) == ["127.0.0.1_15002", "127.0.0.1_80"]
    assert found["127.0.0.1_80"].traffic_direction == OUTBOUND
    told = [words for words, _ in scene.pilot.left_out(OWN)]
    assert any("0.0.0.0:80" in text and text.count("egress listener 80 of Sidecar/shop/default") == 2 for text in told)
    assert any(
        "127.0.0.1:15002" in text and "the forward proxy" in text and "Service/shop/own" in text for text in told
    )


INGRESS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  ingress:
  - {port: {number: 9000, protocol: HTTP, name: plain}, defaultEndpoint: 127.0.0.1:8000}
  - {port: {number: 9001, protocol: TCP, name: stream}, bind: 127.0.0.4, defaultEndpoint: 127.0.0.1:8001}
  - port: {number: 9443, protocol: HTTPS, name: secure}
    tls: {mode: SIMPLE, serverCertificate: /etc/tls/cert.pem, privateKey: /etc/tls/key.pem}
"""


def test_a_sidecars_ingress_stands_in_place_of_its_services_ports() -> None:
    found = Scene(
        services(), MESH.partition("---\napiVersion: networking.istio.io/v1\nkind: Sidecar")[0], INGRESS
    ).listeners(OWN)
    assert sorted(found) == ["127.0.0.1_15002", "127.0.0.1_9000", "127.0.0.1_9443", "127.0.0.4_9001"]
    (chain,) = found["127.0.0.1_9443"].filter_chains
    context = tls_pb2.DownstreamTlsContext.FromString(chain.transport_socket.typed_config.value)
    (certificate,) = context.common_tls_context.tls_certificates
    assert certificate.private_key.filename == "/etc/tls/key.pem"
    assert chain.filters[0].name == "envoy.filters.network.http_connection_manager"
    assert [each.name for each in found["127.0.0.4_9001"].filter_chains[0].filters] == [
        "envoy.filters.network.tcp_proxy"
    ]


def test_plain_requests_stay_plain() -> None:
    """What our sidecar does not look at costs nothing: filters that few routes want are off, nothing is added to requests."""
    scene = Scene(services(), MESH)
    listener = scene.listeners(OWN)[PROXY]
    manager = hcm_pb2.HttpConnectionManager.FromString(listener.filter_chains[0].filters[0].typed_config.value)
    assert [each.name for each in manager.http_filters if not each.disabled] == ["envoy.filters.http.router"]
    for host in scene.routes(OWN)["http_proxy"].virtual_hosts:
        assert not host.include_request_attempt_count
        for route in host.routes:
            assert not route.route.HasField("max_grpc_timeout") and not route.route.HasField("max_stream_duration")


@pytest.mark.parametrize("kind", PLANES)
def test_paths_are_made_canonical_as_the_mesh_says(kind: str, tmp_path: Path) -> None:
    expected = {
        "NONE": "/a/../b//c%2fd",
        "BASE": "/b//c%2fd",
        "MERGE_SLASHES": "/b/c%2fd",
        "DECODE_AND_MERGE_SLASHES": "/b/c/d",
    }
    for normalization, path in expected.items():
        scene = Scene(services(), mesh={"pathNormalization": {"normalization": normalization}})
        with running(kind, scene, sidecar(), tmp_path / f"{kind}-{normalization}") as plane:
            _, _, body = send(plane.ports[PROXY], "a", {"path": "/a/../b//c%2fd"})
            assert json.loads(body)["path"] == path, normalization


@pytest.mark.parametrize("kind", PLANES)
def test_the_mesh_may_ask_for_istios_own_retries(kind: str, tmp_path: Path) -> None:
    policy = {"attempts": 2, "retryOn": "connect-failure,refused-stream,unavailable,cancelled,503"}
    scene = Scene(services(), mesh={"defaultHttpRetryPolicy": policy})
    with running(kind, scene, sidecar(), tmp_path) as plane:
        assert send(plane.ports[PROXY], "a", {"headers": {"x-answers": "503,503,200"}})[0] == 200
        assert send(plane.ports[PROXY], "a", {"headers": {"x-answers": "503,503,503,200"}})[0] == 503


def test_unknown_hosts_may_go_through_a_proxy_of_their_own() -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  egress: [{hosts: ["*/*"]}]
  outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: far.away.svc.cluster.local, port: {number: 80}}}
"""
    *_, last = Scene(services(), text).routes(sidecar())["http_proxy"].virtual_hosts
    assert (last.name, last.routes[0].route.cluster) == ("allow_any", "outbound|80||far.away.svc.cluster.local")


UNIX = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  egress:
  - {port: {protocol: HTTP, name: http}, bind: "unix://%s", hosts: ["./*"]}
"""


def test_an_egress_listener_may_be_a_unix_socket() -> None:
    scene = Scene(services(), UNIX % "/run/http.sock")
    listener = scene.listeners(sidecar())["unix:///run/http.sock"]
    assert listener.address.pipe.path == "/run/http.sock"
    manager = hcm_pb2.HttpConnectionManager.FromString(listener.filter_chains[0].filters[0].typed_config.value)
    routes = scene.routes(sidecar())[manager.rds.route_config_name]
    assert {"a.shop.svc.cluster.local:80", "odd-port:9080"} <= {
        name for each in routes.virtual_hosts for name in each.domains
    }


@pytest.mark.parametrize("kind", PLANES)
def test_an_idle_connection_ends_when_the_rule_says(kind: str, tmp_path: Path) -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec: {host: db, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 300ms}}}}
"""
    with running(kind, Scene(services(), MESH, rule), OWN, tmp_path) as plane:
        connection = socket.create_connection(("127.0.0.1", plane.ports["127.0.0.3_5432"]), timeout=10)
        with connection:
            assert connection.recv(1) == b""


CAPTURED = """
apiVersion: v1
kind: Service
metadata: {name: vip, namespace: shop}
spec:
  clusterIP: 10.1.2.9
  selector: {app: vip}
  ports: [{name: http, port: 80}, {name: what, port: 7000}, {name: tcp, port: 7001}, {name: tls, port: 7002}]
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, selector: {app: headless}, ports: [{name: tls, port: 7003}, {name: what, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: shop}
spec: {selector: {app: own}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}, {name: x, port: 9001}]}
"""


def shape(listener: Any) -> dict[str, str]:
    """Where a listener's filter chains lead, by what they match: routes, or a cluster."""
    found = {}
    chains = list(listener.filter_chains)
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    for one in chains:
        match = one.filter_chain_match
        said = [*match.server_names, *match.application_protocols[:1]]
        if match.destination_port.value:
            said.insert(0, str(match.destination_port.value))
        packed = one.filters[-1].typed_config
        if packed.type_url.endswith("TcpProxy"):
            leads = tcp_proxy_pb2.TcpProxy.FromString(packed.value).cluster
        else:
            manager = hcm_pb2.HttpConnectionManager.FromString(packed.value)
            leads = manager.rds.route_config_name or manager.route_config.name
        found[" ".join(said) or "*"] = short(leads)
    return found


def test_captured_traffic_has_listeners_behind_virtual_outbound_and_inbound() -> None:
    captured = sidecar("own-1", LABELS={"app": "own"}, INTERCEPTION_MODE="REDIRECT")
    scene = Scene(CAPTURED)
    found = {name: shape(each) for name, each in scene.listeners(captured).items()}
    assert found == {
        "0.0.0.0_80": {"http/1.0": "80", "*": "headless"},
        "0.0.0.0_7003": {"headless.shop.svc.cluster.local": "headless:7003", "*": "PassthroughCluster"},
        "0.0.0.0_9000": {"*": "own:9000"},
        "0.0.0.0_9001": {"http/1.0": "9001", "*": "own:9001"},
        "10.1.2.9_7000": {"http/1.0": "vip.shop.svc.cluster.local:7000", "*": "vip:7000"},
        "10.1.2.9_7001": {"*": "vip:7001"},
        "10.1.2.9_7002": {"*": "vip:7002"},
        "127.0.0.1_15002": {"*": "http_proxy"},
        "virtualOutbound": {"15001": "BlackHoleCluster", "*": "PassthroughCluster"},
        "virtualInbound": {
            "15006": "BlackHoleCluster",
            "8080": "inbound|8080||",
            "9000": "inbound|9000||",
            "9001 http/1.0": "inbound|9001||",
            "9001": "inbound|9001||",
            "*": "InboundPassthroughCluster",
        },
    }
    listeners = scene.listeners(captured)
    assert {name for name, each in listeners.items() if not each.HasField("bind_to_port")} == {
        "virtualOutbound",
        "virtualInbound",
        "127.0.0.1_15002",
    }
    assert listeners["virtualOutbound"].use_original_dst.value
    assert not any(listener.transparent.value for listener in listeners.values())
    transparent = scene.listeners(sidecar("own-1", LABELS={"app": "own"}, INTERCEPTION_MODE="TPROXY"))
    assert {name for name, each in transparent.items() if each.transparent.value} == {
        "virtualInbound",
        "virtualOutbound",
    }


def test_captured_connections_are_routed_by_their_destination() -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vip, namespace: shop}
spec:
  hosts: [vip]
  tcp:
  - match: [{port: 7001, destinationSubnets: [10.1.2.0/24, 10.9.9.9], sourceSubnet: 10.2.0.0/16}]
    route: [{destination: {host: own, port: {number: 9000}}}]
"""
    captured = sidecar("own-1", LABELS={"app": "own"}, INTERCEPTION_MODE="TPROXY")
    routed, other = Scene(CAPTURED, text).listeners(captured)["10.1.2.9_7001"].filter_chains
    match = routed.filter_chain_match
    ranges = [
        (each.address_prefix, each.prefix_len.value) for each in (*match.prefix_ranges, *match.source_prefix_ranges)
    ]
    assert ranges == [("10.1.2.0", 24), ("10.9.9.9", 32), ("10.2.0.0", 16)]
    assert (
        tcp_proxy_pb2.TcpProxy.FromString(routed.filters[0].typed_config.value).cluster
        == f"outbound|9000||own.{DOMAIN}"
    )
    assert (
        tcp_proxy_pb2.TcpProxy.FromString(other.filters[0].typed_config.value).cluster == f"outbound|7001||vip.{DOMAIN}"
    )


BLOCKS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec:
  hosts: [db.example]
  addresses: [172.16.0.0/16, 10.7.7.7]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
  ports: [{number: 3306, name: tcp, protocol: TCP}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: shop}
spec:
  hosts: [other.example]
  addresses: [192.168.0.0/16]
  resolution: STATIC
  endpoints: [{address: 10.0.0.2}]
  ports: [{number: 3306, name: tcp, protocol: TCP}]
"""


def test_blocks_of_addresses_are_told_apart() -> None:
    listeners = Scene(BLOCKS).listeners(sidecar(INTERCEPTION_MODE="REDIRECT"))
    assert shape(listeners["10.7.7.7_3306"]) == {"*": "db.example:3306"}
    shared = listeners["0.0.0.0_3306"]
    assert [
        (
            [f"{one.address_prefix}/{one.prefix_len.value}" for one in each.filter_chain_match.prefix_ranges],
            tcp_proxy_pb2.TcpProxy.FromString(each.filters[-1].typed_config.value).cluster,
        )
        for each in (*shared.filter_chains, shared.default_filter_chain)
    ] == [
        (["172.16.0.0/16"], "outbound|3306||db.example"),
        (["192.168.0.0/16"], "outbound|3306||other.example"),
        ([], "PassthroughCluster"),
    ]


OVERLAPS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: names, namespace: shop}
spec: {hosts: [a.example, b.example, c.example], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: first, namespace: shop}
spec:
  hosts: [a.example, b.example]
  tls:
  - match: [{sniHosts: [a.example, b.example], destinationSubnets: [10.1.0.0/16, 10.2.0.0/16]}]
    route: [{destination: {host: a.example}}]
  - match: [{sniHosts: [a.example, b.example]}]
    route: [{destination: {host: a.example}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: second, namespace: shop}
spec:
  hosts: [b.example, c.example]
  tls:
  - match: [{sniHosts: [b.example, c.example], destinationSubnets: [10.2.0.0/16, 10.3.0.0/16]}]
    route: [{destination: {host: c.example}}]
  - match: [{sniHosts: [b.example, c.example]}]
    route: [{destination: {host: c.example}}]
"""


def test_of_filter_chains_for_the_same_connections_the_first_one_has_them() -> None:
    listener = Scene(OVERLAPS).listeners(sidecar(INTERCEPTION_MODE="REDIRECT"))["0.0.0.0_443"]
    leads: dict[tuple[str, str], str] = {}
    for each in (*listener.filter_chains, listener.default_filter_chain):
        match = each.filter_chain_match
        for block in [one.address_prefix for one in match.prefix_ranges] or [""]:
            for name in match.server_names or [""]:
                assert (block, name) not in leads
                cluster = tcp_proxy_pb2.TcpProxy.FromString(each.filters[0].typed_config.value).cluster
                leads[block, name] = cluster.rpartition("|")[2]
    assert leads == {
        **{(block, name): "a.example" for block in ("10.1.0.0", "10.2.0.0", "") for name in ("a.example", "b.example")},
        ("10.2.0.0", "c.example"): "c.example",
        ("10.3.0.0", "b.example"): "c.example",
        ("10.3.0.0", "c.example"): "c.example",
        ("", "c.example"): "c.example",
        ("", ""): "PassthroughCluster",
    }


DOMAIN = "shop.svc.cluster.local"


CALLS = """
apiVersion: v1
kind: Service
metadata: {name: calls, namespace: shop}
spec: {selector: {app: own}, ports: [{name: grpc, port: 50051}, {name: grpc-web-page, port: 8081}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  egress:
  - {port: {number: 50051, protocol: GRPC, name: grpc}, bind: 127.0.0.5, hosts: ["./*"]}
  - {hosts: ["./*"]}
"""


@pytest.mark.parametrize("kind", PLANES)
def test_calls_are_counted_and_those_of_pages_become_grpc(kind: str, tmp_path: Path) -> None:
    call = {"method": "POST", "path": "/shop.Reviews/Get", "headers": {"content-type": "application/grpc"}}
    page = {**call, "headers": {"content-type": "application/grpc-web", "content-length": "0"}}
    with running(kind, Scene(CALLS), OWN, tmp_path) as plane:
        send(plane.ports["127.0.0.5_50051"], "calls:50051", call)
        assert short(plane.servers.requests[-1]["from"]) == "calls:50051"
        send(plane.ports["127.0.0.1_8081"], "calls", page)
        assert plane.servers.requests[-1]["from"] == "inbound|8081||"
        assert plane.servers.requests[-1]["headers"]["content-type"] == "application/grpc"
