"""The agent's certificate changes again and again, and the root once, under load: nothing fails, nobody is cut off.

Over HTTP/1, HTTP/2 and plain TCP: on connections that stay open all the while, and on ever new ones.
"""

from __future__ import annotations

import http.client
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, start
from tests.running import until
from tests.sidecar.bootstraps import address, cluster, http_listener, to_cluster
from tests.sidecar.pool.asking import over_http2
from tests.sidecar.transport.certificates import Authority
from tests.sidecar.xds.agent import Agent
from tests.sidecar.xds.test_agent_socket import (
    FIRST,
    ID,
    ROOT,
    Running,
    bootstrap,
    certificate,
    mutual,
    roots,
    secrets,
    serial,
)

ROTATIONS = 6
INTERVAL = 0.5
"""Seconds between two certificates: what is asked for is that time passes under load."""

TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP = {
    "once": (1, {"http_protocol_options": {}}),
    "kept": (0, {"http_protocol_options": {}}),
    "few2": (5, {"http2_protocol_options": {}}),
    "kept2": (0, {"http2_protocol_options": {}}),
}
"""Clusters that lead by mutual TLS to the listener "in": requests for each connection (0: all), and the protocol."""


class Echo(socketserver.BaseRequestHandler):
    """Gives back what it gets."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def echoing() -> Iterator[int]:
    """The port of a server that gives back what it gets."""
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def tcp_listener(name: str, port: int, to: str) -> dict[str, Any]:
    proxy = {"name": "tcp", "typed_config": {"@type": TCP_PROXY, "stat_prefix": name, "cluster": to}}
    return {"name": name, "stat_prefix": name, "address": address(port), "filter_chains": [{"filters": [proxy]}]}


@contextmanager
def rotating(kind: str, directory: Path, agent: Agent, api_type: str, echo: int) -> Iterator[Running]:
    """The proxy of `test_agent_socket` with a way of each kind to itself."""
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    free = FreePorts()
    ports = {name: free.take() for name in ("admin", "in", "out", "in-tcp", "out-tcp", *HTTP)}
    document = bootstrap(agent.socket, ports, api_type)
    resources = document["static_resources"]
    for name, (most, protocol) in HTTP.items():
        common = {"max_requests_per_connection": most} if most else {}
        peer = over_http2(
            cluster(name, ports["in"]), common_http_protocol_options=common, explicit_http_config=protocol
        )
        peer["transport_socket"] = mutual("UpstreamTlsContext", api_type)
        resources["clusters"].append(peer)
        resources["listeners"].append(http_listener(name, ports[name], [to_cluster(name)]))
    inside = tcp_listener("in-tcp", ports["in-tcp"], "echo")
    inside["filter_chains"][0]["transport_socket"] = mutual(
        "DownstreamTlsContext", api_type, require_client_certificate=True
    )
    peer = cluster("peer-tcp", ports["in-tcp"])
    peer["transport_socket"] = mutual("UpstreamTlsContext", api_type)
    resources["listeners"] += [inside, tcp_listener("out-tcp", ports["out-tcp"], "peer-tcp")]
    resources["clusters"] += [peer, cluster("echo", echo)]
    proxy = start(kind, document, ports, directory)
    try:
        yield Running(proxy, agent, directory)
    finally:
        proxy.stop()


class Load:
    """Threads that do one thing again and again until `end`; ``done`` counts for each, ``failures`` are in words."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.failures: list[str] = []
        self.done: dict[str, int] = {}
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[Callable[[], bool]], None]) -> None:
        """``work`` asks before each turn whether it shall go on."""
        self.done[name] = -1

        def go_on() -> bool:
            self.done[name] += 1
            return not self.over.is_set()

        def run() -> None:
            try:
                work(go_on)
            except Exception as error:
                self.failures.append(f"{name}, turn {self.done[name]}: {error!r}")

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def end(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()


def ask(connection: http.client.HTTPConnection, go_on: Callable[[], bool]) -> None:
    """Requests, all on this connection: that it was closed would be an error."""
    connection.connect()
    connection.auto_open = 0
    try:
        while go_on():
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read()
            assert (response.status, body) == (200, b"inside"), (response.status, body)
    finally:
        connection.close()


def send(sock: socket.socket, number: int) -> None:
    """A message there and back."""
    text = b"%08d" % number
    sock.sendall(text)
    found = b""
    while len(found) < len(text):
        data = sock.recv(100)
        assert data, "closed"
        found += data
    assert found == text


def load_all(load: Load, both: Running) -> None:
    ports = both.proxy.ports

    def plain(name: str) -> Callable[[Callable[[], bool]], None]:
        return lambda go_on: ask(http.client.HTTPConnection("127.0.0.1", ports[name], timeout=10), go_on)

    def by_tls(go_on: Callable[[], bool]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=ROOT.pem.decode())
        context.load_cert_chain(*FIRST.write(both.directory, "load"))
        ask(http.client.HTTPSConnection("127.0.0.1", ports["in"], timeout=10, context=context), go_on)

    def one_connection(go_on: Callable[[], bool]) -> None:
        with socket.create_connection(("127.0.0.1", ports["out-tcp"]), timeout=10) as sock:
            number = 0
            while go_on():
                send(sock, number := number + 1)
                time.sleep(0.002)  # the others come to something, too

    def many_connections(go_on: Callable[[], bool]) -> None:
        while go_on():
            with socket.create_connection(("127.0.0.1", ports["out-tcp"]), timeout=10) as sock:
                send(sock, 1)

    for name in HTTP:
        load.start(name, plain(name))
    load.start("mutual TLS from outside", by_tls)
    load.start("one TCP connection", one_connection)
    load.start("many TCP connections", many_connections)


def connections(both: Running, name: str) -> tuple[int, int]:
    """How many connections a cluster has made, and how many of them are left."""
    found = both.stats(f"cluster.{name}.upstream_cx_total", f"cluster.{name}.upstream_cx_active")
    return found[f"cluster.{name}.upstream_cx_total"], found[f"cluster.{name}.upstream_cx_active"]


@pytest.mark.parametrize(("kind", "api_type"), [(SIDECAR, "GRPC"), (SIDECAR, "DELTA_GRPC"), (ENVOY, "GRPC")])
def test_nothing_fails(kind: str, api_type: str, tmp_path: Path) -> None:
    following = Authority("Following Root")
    with (
        echoing() as echo,
        Agent(tmp_path / "agent.sock", secrets()) as agent,
        rotating(kind, tmp_path, agent, api_type, echo) as both,
    ):
        load = Load()
        try:
            load_all(load, both)
            for number in range(1, ROTATIONS + 1):
                if number == ROTATIONS // 2:  # both roots are trusted before the first certificate of the new one
                    agent.set(ROOTCA=roots(ROOT, following))
                    both.counts("sds.ROOTCA.update_success", 2)
                authority = ROOT if number < ROTATIONS // 2 else following
                last = authority.issue("", [ID])
                agent.set(default=certificate(last))
                both.counts("sds.default.update_success", number + 1)
                time.sleep(INTERVAL)
            agent.set(ROOTCA=roots(following))
            both.counts("sds.ROOTCA.update_success", 3)
            time.sleep(INTERVAL)
            kept = {name: connections(both, name) for name in ("kept", "kept2")}
        finally:
            load.end()
        assert load.failures == [] and min(load.done.values()) > 20, load.done
        assert kept == {"kept": (1, 1), "kept2": (1, 1)}  # the first ones, all the while
        for name in ("once", "few2", "peer-tcp"):
            assert connections(both, name)[0] > ROTATIONS, name
        until(lambda: both.shown(last, following) == serial(last), "the last certificate is shown")
        assert both.listed() == {serial(last)}
        assert both.shown(ROOT.issue("", [ID]), following) == ""  # its root is gone
