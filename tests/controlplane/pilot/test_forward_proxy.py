"""Wildcards of ServiceEntries, and hosts that are not in the mesh, through the forward proxy: the host that a request names is
looked up, in both data planes.

Names below `localhost` lead to loopback, whatever servers of names say (RFC 6761 section 6.3).
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.json_format import MessageToDict

from tests.controlplane.pilot.answering import Answering
from tests.controlplane.pilot.behaviour import send
from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.scene import Scene, gateway, sidecar
from tests.controlplane.pilot.static_bootstrap import bootstrap, cluster_names, with_routes
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import FreePorts, start

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
FILTER = "envoy.filters.http.dynamic_forward_proxy"
PROXY = "127.0.0.1_15002"
MESH = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec:
  hosts: ["*.localhost"]
  resolution: NONE
  ports:
  - {number: %(port)s, name: http, protocol: HTTP}
  - {number: %(closed)s, name: tls, protocol: TLS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: nowhere, namespace: shop}
spec: {hosts: ["*.invalid"], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  egress:
  - {port: {number: %(port)s, protocol: HTTP, name: http}, hosts: ["*/*"]}
  - hosts: ["*/*"]
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out, namespace: shop}
spec: {host: "*.localhost", trafficPolicy: {%s}}
"""


class Running(NamedTuple):
    """A proxy: the ports of its listeners, the port that names lead to, and the one where tunnels end."""

    ports: dict[str, int]
    port: int
    closed: int


def clusters_of(scene: Scene) -> dict[str, Any]:
    found = scene.pilot.resources(sidecar(), CLUSTER)
    return {name: cluster_pb2.Cluster.FromString(each.value) for name, each in found.items()}


@contextlib.contextmanager
def running(
    kind: str, directory: Path, *more: str, port: int = 0, back: bool = False, policy: str = "REGISTRY_ONLY"
) -> Iterator[Running]:
    """A proxy that runs what it gets, the clusters of names included; names lead to ``port``, or to a server that answers.
    ``back``: that is the forward proxy's own port. ``policy`` is for hosts that are not in the mesh.
    """
    with Answering({"names", "tunnels"}) as servers:
        port, closed = port or servers.ports["names"], servers.ports["tunnels"]
        given_mesh = MESH % {"port": port, "closed": closed}
        scene = Scene(given_mesh, *more, mesh={"outboundTrafficPolicy": {"mode": policy}})
        node = sidecar()
        routes = scene.routes(node)
        listeners = {name: with_routes(listener, routes) for name, listener in scene.listeners(node).items()}
        used = cluster_names(listeners)
        own = {name: one for name, one in clusters_of(scene).items() if "*" in name or name.startswith("PassthroughBy")}
        assert {name for name in own if "*" in name} <= used
        own = {name: one for name, one in own.items() if name in used}
        free = FreePorts()
        given = iter([port if back and name == PROXY else free.take() for name in [*listeners, "admin"]])
        described, ports = bootstrap(listeners, {}, lambda: next(given))
        described["static_resources"]["clusters"] = [
            MessageToDict(one, preserving_proto_field_name=True) for one in own.values()
        ]
        try:
            proxy = start(kind, described, ports, directory)
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
        try:
            yield Running(ports, port, closed)
        finally:
            proxy.stop()


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def ask(plane: Running, host: str, listener: str = PROXY) -> tuple[int, str]:
    """The status, and who answers."""
    status, _, body = send(plane.ports[listener], host, {"path": "/"})
    return status, json.loads(body)["from"] if status == 200 else body.decode()


def test_what_a_wildcard_covers_is_looked_up(plane: Running) -> None:
    assert ask(plane, f"one.localhost:{plane.port}") == (200, "names")
    assert ask(plane, f"two.localhost:{plane.port}") == (200, "names")


def test_a_name_that_does_not_exist_is_told(plane: Running) -> None:
    status, body = ask(plane, "one.invalid")
    assert status == 503 and body.startswith("DNS resolution failure (dns_resolution_failure{")


@pytest.mark.parametrize("host", ["one.localhost", "one.localhost:1", "localhost:{port}", "other.example:{port}"])
def test_other_ports_and_names_are_not_reached(plane: Running, host: str) -> None:
    assert ask(plane, host.format(port=plane.port)) == (502, "")


@pytest.fixture(scope="module", params=PLANES)
def open_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(request.param, tmp_path_factory.mktemp(f"open-{request.param}"), policy="ALLOW_ANY") as made:
        yield made


@pytest.mark.parametrize("host", ["localhost:{port}", "LocalHost:{port}", "127.0.0.1:{port}"])
def test_hosts_that_are_not_in_the_mesh_are_reached_if_the_policy_lets_them(open_plane: Running, host: str) -> None:
    assert ask(open_plane, host.format(port=open_plane.port)) == (200, "names")


@pytest.mark.parametrize("target", ["localhost", "127.0.0.1"])
def test_tunnels_to_hosts_that_are_not_in_the_mesh(open_plane: Running, target: str) -> None:
    assert through_a_tunnel(open_plane, f"{target}:{open_plane.closed}") == b"tunnels"


def test_a_host_that_nobody_knows_is_told_of_the_mesh_too(open_plane: Running) -> None:
    status, body = ask(open_plane, "revews:9080")
    assert status == 503
    assert body.startswith("DNS resolution failure (dns_resolution_failure{")
    assert "no service of the mesh that this proxy may reach has this name" in body


@pytest.mark.parametrize(
    "host", ["revews.shop.svc.cluster.local:9080", "Revews.shop.SVC:9080", "a.shop.svc.cluster.local.", "b.shop.svc:"]
)
def test_names_of_the_mesh_are_not_looked_up(open_plane: Running, host: str) -> None:
    assert ask(open_plane, host) == (502, "no service of the mesh that this proxy may reach has this name and port\n")


def test_a_listener_with_a_port_passes_on_to_addresses_alone(open_plane: Running) -> None:
    listener = f"127.0.0.1_{open_plane.port}"
    assert ask(open_plane, f"127.0.0.1:{open_plane.port}", listener) == (200, "names")
    status, body = ask(open_plane, f"localhost:{open_plane.port}", listener)
    assert status == 502 and "send the request to the forward proxy" in body


def test_a_listener_with_a_port_looks_nothing_up(plane: Running) -> None:
    """A name that leads to its own address would come back for ever."""
    assert ask(plane, f"one.localhost:{plane.port}", f"127.0.0.1_{plane.port}")[0] == 502


def test_tunnels_are_opened_by_name(plane: Running) -> None:
    assert through_a_tunnel(plane, f"one.localhost:{plane.closed}") == b"tunnels"


def through_a_tunnel(plane: Running, target: str) -> bytes:
    """What the server at the other end of a tunnel says."""
    with socket.create_connection(("127.0.0.1", plane.ports[PROXY]), timeout=10) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(4096)
            assert more, head
            head += more
        assert head.split(b" ")[1] == b"200"
        connection.sendall(b"\0hello")
        answer = head.partition(b"\r\n\r\n")[2]
        while more := connection.recv(4096):
            answer += more
    return answer


@pytest.mark.parametrize("kind", PLANES)
@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ("tls: {mode: SIMPLE, insecureSkipVerify: true}", "one.localhost"),
        ("tls: {mode: SIMPLE}", "one.localhost"),
        ("tls: {mode: SIMPLE, sni: other.example, insecureSkipVerify: true}", "other.example"),
    ],
)
def test_tls_asks_for_the_name_that_the_request_has(kind: str, settings: str, sent: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with running(kind, tmp_path, RULE % settings, port=port) as plane, ThreadPoolExecutor(1) as pool:
            asked = pool.submit(server_name, server)
            assert ask(plane, f"one.localhost:{port}")[0] == 503  # nobody shakes hands there
            assert asked.result(10) == sent


def server_name(server: socket.socket) -> str:
    """The name that the first connection asks for by TLS."""
    named: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _, name, __: named.append(name)
    server.settimeout(10)
    connection, _ = server.accept()
    with connection, contextlib.suppress(ssl.SSLError, ConnectionError):
        context.wrap_socket(connection, server_side=True)
    server.close()
    return named[0]


@pytest.mark.parametrize("kind", PLANES)
def test_a_name_that_leads_back_to_the_forward_proxy_comes_to_an_end(kind: str, tmp_path: Path) -> None:
    few = RULE % "connectionPool: {http: {http2MaxRequests: 20}}"
    with running(kind, tmp_path, few, port=FreePorts().take(), back=True) as plane:
        status, said = ask(plane, f"one.localhost:{plane.port}")
    assert status == 503 and said.endswith("reset reason: overflow")


@pytest.mark.parametrize("kind", PLANES)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_host_outside_that_leads_back_to_the_forward_proxy_comes_to_an_end(
    host: str, kind: str, tmp_path: Path
) -> None:
    """After as many hops as may be under way at a time."""
    with running(kind, tmp_path, port=FreePorts().take(), back=True, policy="ALLOW_ANY") as plane:
        status, said = ask(plane, f"{host}:{plane.port}")
    assert status == 503 and said.endswith("reset reason: overflow")


def test_what_the_cluster_of_a_wildcard_is() -> None:
    scene = Scene(MESH % {"port": 80, "closed": 443})
    made = clusters_of(scene)["outbound|80||*.localhost"]
    (limits,) = made.circuit_breakers.thresholds
    assert (limits.max_connections.value, limits.max_requests.value) == (2**32 - 1, 1024)
    assert made.lb_policy == cluster_pb2.Cluster.CLUSTER_PROVIDED
    scene.apply(RULE % "connectionPool: {http: {http2MaxRequests: 7}}, tls: {mode: SIMPLE}")
    made = clusters_of(scene)["outbound|80||*.localhost"]
    assert made.circuit_breakers.thresholds[0].max_requests.value == 7
    (packed,) = made.typed_extension_protocol_options.values()
    options = http_protocol_options_pb2.HttpProtocolOptions.FromString(packed.value).upstream_http_protocol_options
    assert options.auto_sni and options.auto_san_validation


CLOSED = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: closed}
spec: {egress: [{hosts: ["*/*"]}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""
BY_NAME = "PassthroughByNameCluster"


def test_whether_strangers_pass_is_each_proxys_own() -> None:
    """Whoever asks first: what proxies have in common is made once for all of them."""
    closed, router = sidecar(namespace="closed"), gateway({})
    for order in ([closed, sidecar()], [sidecar(), closed], [router, sidecar(), closed]):
        scene = Scene(CLOSED)
        found = {each.id: BY_NAME in scene.pilot.resources(each, CLUSTER) for each in order}
        assert found == {each.id: each.id == sidecar().id for each in order}


def test_a_policy_that_changes_is_followed() -> None:
    scene = Scene(CLOSED)
    proxy = sidecar(namespace="closed")
    for policy, reached in (("ALLOW_ANY", True), ("REGISTRY_ONLY", False), ("ALLOW_ANY", True)):
        scene.apply(CLOSED.replace("REGISTRY_ONLY", policy))
        clusters = scene.pilot.resources(proxy, CLUSTER)
        assert (BY_NAME in clusters) is reached
        assert (BY_NAME in str(scene.routes(proxy)["http_proxy"])) is reached


def test_the_filter_is_there_for_those_who_need_it() -> None:
    def filters(scene: Scene, proxy: Any) -> list[str]:
        found = scene.listeners(proxy)[PROXY]
        manager = hcm_pb2.HttpConnectionManager.FromString(found.filter_chains[0].filters[-1].typed_config.value)
        return [one.name for one in manager.http_filters if one.name == FILTER and one.disabled]

    assert filters(Scene(), sidecar()) == [FILTER]  # for hosts that are not in the mesh
    scene = Scene(mesh={"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})
    assert filters(scene, sidecar()) == []
    wildcards = MESH % {"port": 80, "closed": 443}
    scene.apply(wildcards)
    assert filters(scene, sidecar()) == [FILTER]
    assert filters(scene, sidecar("other", INTERCEPTION_MODE="REDIRECT")) == []
    scene.remove(wildcards)
    assert filters(scene, sidecar()) == []
