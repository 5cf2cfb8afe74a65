"""A TCP proxy behind a listener, with a cluster of upstreams that the tests play themselves."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.cluster.host import Host
from sidecar.config.listener import FilterChain
from sidecar.config.network_filters import NetworkFilter
from sidecar.config.network_filters import TcpProxy as TcpProxyConfig
from sidecar.core.address import Address, from_socket_name
from sidecar.core.stream_info import StreamInfo
from sidecar.core.worker import Worker
from sidecar.listener.terminal import ListenerContext
from sidecar.network.relay import MakeFlow, best_flows
from sidecar.network.tcp_proxy import TcpProxy
from sidecar.pool.dialing import Dialer
from sidecar.telemetry.groups.cluster import ClusterStats
from sidecar.telemetry.groups.network_filters import TcpProxyStats
from tests.sidecar.listener.serving import Served, config


class FakeCluster:
    """As much of a cluster as a TCP proxy needs; hosts are picked in turn, and what asked is kept."""

    def __init__(self, name: str, addresses: Sequence[Address], connect_timeout: float = 5.0) -> None:
        self.name = name
        self.hosts = [Host(address) for address in addresses]
        self.config = SimpleNamespace(connect_timeout=connect_timeout, per_connection_buffer_limit_bytes=1 << 20)
        self.stats = ClusterStats()
        self.breakers = (CircuitBreaker(), CircuitBreaker())
        self.outlier: Any = None
        self.asked: list[Any] = []

    def pick(self, context: Any) -> Host | None:
        self.asked.append((context.subset, context.connection))
        return self.hosts[(len(self.asked) - 1) % len(self.hosts)] if self.hosts else None

    def at_rest(self) -> bool:
        """Whether every gauge and count of what is open is 0 again."""
        stats, breaker = self.stats, self.breakers[0]
        counts = (stats.upstream_cx_active, stats.upstream_rq_active, stats.upstream_rq_pending_active)
        hosts = [count for host in self.hosts for count in (host.cx_active, host.rq_active)]
        return not any((*counts, breaker.cx_active, breaker.rq_pending, *hosts))


class Upstream:
    """A listening socket whose connections the test accepts and plays itself."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self.sock = sock or socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(5)
        self.address = from_socket_name(self.sock.family, self.sock.getsockname())

    def accept(self) -> socket.socket:
        sock, _ = self.sock.accept()
        sock.settimeout(5)
        return sock

    def close(self) -> None:
        self.sock.close()


class Proxied:
    """A listener on loopback in front of ``clusters``; the first is the configured one."""

    def __init__(
        self,
        worker: Worker,
        *clusters: FakeCluster,
        make_flow: MakeFlow | None = None,
        by_sni: bool = False,
        own: TcpProxyConfig | None = None,
        **more: Any,
    ) -> None:
        self.by_name = {cluster.name: cluster for cluster in clusters}
        self.stats = TcpProxyStats()
        self.logged: list[StreamInfo] = []
        self.config = own or TcpProxyConfig("t", clusters[0].name)
        self.proxy = TcpProxy(
            self.config,
            worker,
            self.by_name.get,
            lambda cluster, host: Dialer(worker),
            self.stats,
            make_flow or best_flows(),
            (self.logged.append,),
            by_sni=by_sni,
        )

        def build(chain: FilterChain, last: NetworkFilter, context: ListenerContext) -> TcpProxy:
            return self.proxy

        self.served = Served(config(), worker, build_terminal=build, **more).start()

    def connect(self) -> socket.socket:
        return self.served.connect()

    def close(self) -> None:
        self.served.listener.close()


def receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the connection ends."""
    pieces = []
    while size:
        piece = sock.recv(min(size, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def drained(sock: socket.socket) -> int:
    """How many bytes come until the connection ends."""
    total = 0
    while piece := sock.recv(1 << 20):
        total += len(piece)
    return total
