"""A listener on loopback for tests, with a terminal that records, and waiting for conditions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from sidecar.config.address import SocketAddress
from sidecar.config.listener import FilterChain
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.config.network_filters import DirectResponse, NetworkFilter
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker
from sidecar.listener.connection_limits import ConnectionLimit
from sidecar.listener.filters import ListenerFilterStats, build_listener_filters
from sidecar.listener.listener import Listener
from sidecar.listener.proxy_protocol import ProxyProtocolStats
from sidecar.telemetry.groups.listener import (
    HttpInspectorStats,
    ListenerStats,
    ProxyProtocolErrorStats,
    ProxyProtocolVersionStats,
    TlsInspectorStats,
    WorkerConnectionStats,
)
from sidecar.telemetry.groups.listener import ProxyProtocolStats as ProxyHeaderStats


def run(main: Callable[[], Coroutine[Any, Any, None]], seconds: float = 20.0) -> None:
    """Run a test's coroutine in a loop of its own, for at most so many seconds."""

    async def bounded() -> None:
        await asyncio.wait_for(main(), seconds)

    uvloop.run(bounded())


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until the condition holds. Fails after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def chain(name: str = "", **fields: Any) -> FilterChain:
    """A filter chain; its only network filter is never looked at."""
    return FilterChain((NetworkFilter("terminal", DirectResponse(b"")),), name=name, **fields)


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.recorder.received += data
        self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.recorder.lost += 1


class Recorder:
    """A terminal that keeps what it was given."""

    def __init__(self) -> None:
        self.infos: list[ConnectionInfo] = []
        self.received = bytearray()
        self.lost = 0
        self.drained = False

    def accept(self, info: ConnectionInfo) -> asyncio.Protocol:
        self.infos.append(info)
        return Echo(self)

    def drain(self) -> None:
        self.drained = True


class FilterStats:
    """What listener filters count, one of each."""

    def __init__(self) -> None:
        self.tls = TlsInspectorStats()
        self.http = HttpInspectorStats()
        self.proxy = ProxyProtocolStats(
            ProxyHeaderStats(), ProxyProtocolVersionStats(), ProxyProtocolVersionStats(), ProxyProtocolErrorStats()
        )
        self.source = ListenerFilterStats(lambda: self.tls, lambda: self.http, lambda prefix: self.proxy)


class Served:
    """A listener with its statistics, its access log and its terminals by the name of the filter chain."""

    def __init__(
        self,
        config: ListenerConfig,
        worker: Worker,
        *,
        limit: ConnectionLimit | None = None,
        shared: ConnectionLimit | None = None,
        **more: Any,
    ) -> None:
        self.worker = worker
        self.stats = ListenerStats()
        self.worker_stats = WorkerConnectionStats()
        self.filter_stats = FilterStats()
        self.logged: list[StreamInfo] = []
        self.terminals: dict[str, Recorder] = {}
        build_terminal = more.pop("build_terminal", self._terminal)
        self.listener = Listener(
            config,
            worker,
            build_terminal,
            self.stats,
            self.worker_stats,
            limit or ConnectionLimit(),
            shared or ConnectionLimit(),
            (self.logged.append,),
            filters=build_listener_filters(config.listener_filters, self.filter_stats.source),
            **more,
        )

    def _terminal(self, config: FilterChain, *_: object) -> Recorder:
        return self.terminals.setdefault(config.name, Recorder())

    @property
    def terminal(self) -> Recorder:
        """The terminal of the only filter chain."""
        (only,) = self.terminals.values()
        return only

    def start(self) -> Served:
        self.listener.bind()
        self.listener.start()
        return self

    def connect(self, at: int = 0) -> socket.socket:
        """A connected, blocking client socket with a time limit."""
        address = self.listener.local_addresses[at]
        if address.ip is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(5)
            sock.connect("\x00" + address.path[1:] if address.path.startswith("@") else address.path)
            return sock
        return socket.create_connection((address.ip, address.port), timeout=5)


def config(*chains: FilterChain, **fields: Any) -> ListenerConfig:
    """A listener on a free port of 127.0.0.1."""
    fields.setdefault("address", SocketAddress("127.0.0.1", 0))
    return ListenerConfig("l", filter_chains=chains or (chain(),), **fields)


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """A blocking client call beside the running loop."""
    waiting: Awaitable[Any] = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    return await waiting


def exchange(sock: socket.socket, data: bytes, size: int) -> bytes:
    """Send, and receive so many bytes, or up to the end."""
    sock.sendall(data)
    received = b""
    while len(received) < size:
        piece = sock.recv(65536)
        if not piece:
            break
        received += piece
    return received


def ended(sock: socket.socket) -> bool:
    """Whether the peer closed the connection without sending anything."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
