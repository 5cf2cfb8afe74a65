"""A real sidecar in the test's loop, upstreams that do what a script says, clients that speak raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sidecar import Server

HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One end of a connection: raw bytes in and out, over a plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.read = b""
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def receive(self, most: int = 65536) -> bytes:
        """What comes next; empty at the end, however it ends."""
        try:
            return await self.loop.sock_recv(self.sock, most)
        except ConnectionError:
            return b""

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``; EOFError if the peer ends before."""
        while mark not in self.read:
            data = await self.receive()
            if not data:
                raise EOFError(self.read)
            self.read += data
        found, _, self.read = self.read.partition(mark)
        return found + mark

    async def exactly(self, size: int) -> bytes:
        while len(self.read) < size:
            data = await self.receive()
            if not data:
                raise EOFError(self.read)
            self.read += data
        found, self.read = self.read[:size], self.read[size:]
        return found

    async def message(self) -> tuple[bytes, bytes]:
        """(head, body) of the next message with a Content-Length or chunks, or without a body."""
        head = await self.until(b"\r\n\r\n")
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked\r\n" in lower:
            body = b""
            while size := int((await self.until(b"\r\n"))[:-2], 16):
                body += await self.exactly(size)
                assert await self.exactly(2) == b"\r\n"
            while await self.until(b"\r\n") != b"\r\n":
                pass
            return head, body
        _, found, rest = lower.partition(b"\r\ncontent-length: ")
        return head, await self.exactly(int(rest.split(b"\r\n")[0])) if found else b""

    async def rest(self) -> bytes:
        """Everything until the peer closes."""
        found, self.read = self.read, b""
        while data := await self.receive():
            found += data
        return found

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


async def connect(port: int, receive_buffer: int = 0) -> Peer:
    """A client's connection to a port of this machine."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = Peer(sock)
    await peer.loop.sock_connect(sock, ("127.0.0.1", port))
    return peer


class Upstream:
    """A listening socket whose connections are served by ``handler``, one task each."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self.sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock)
            self.peers.append(peer)
            task = loop.create_task(self._serve(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: Peer) -> None:
        try:
            await self.handler(peer)
        except (ConnectionError, EOFError, OSError):
            pass
        except AssertionError as error:
            self.failures.append(error)
        finally:
            peer.close()

    async def close(self) -> None:
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in self.peers:
            peer.close()
        self.sock.close()


async def hello(peer: Peer) -> None:
    """Answers every request with ``HELLO``."""
    while True:
        await peer.message()
        await peer.send(HELLO)


def saying(response: bytes, close: bool = False) -> Handler:
    """Answers every request with ``response``; with ``close``, closes after the first."""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(response)
            if close:
                return

    return handler


def bootstrap(
    ports: dict[str, int],
    *,
    routes: list[dict[str, Any]] | None = None,
    manager: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    listener: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One listener, "in", with one connection manager; a cluster for each upstream, by its name."""
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "http",
                                    "typed_config": {
                                        "@type": HTTP,
                                        "stat_prefix": "in",
                                        "route_config": {
                                            "virtual_hosts": [
                                                {
                                                    "name": "all",
                                                    "domains": ["*"],
                                                    "routes": routes
                                                    or [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                                                }
                                            ]
                                        },
                                        "http_filters": [ROUTER],
                                        **(manager or {}),
                                    },
                                }
                            ]
                        }
                    ],
                    **(listener or {}),
                }
            ],
            "clusters": [
                {
                    "name": name,
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "load_assignment": {
                        "cluster_name": name,
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {
                                        "endpoint": {
                                            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}
                                        }
                                    }
                                ]
                            }
                        ],
                    },
                    **(cluster or {}),
                }
                for name, port in ports.items()
            ],
        }
    }


def stat(server: Server, name: str) -> int:
    """A counter or gauge by its full name, as it is now; 0 if there is none."""
    assert server.stack is not None
    for group in server.stack.store:
        if name.startswith(group.prefix):
            leaf = name[len(group.prefix) :]
            value = getattr(group, leaf, None)
            if isinstance(value, int):
                return value
    return 0


GAUGES = (
    "http.in.downstream_rq_active", "http.in.downstream_cx_active", "cluster.up.upstream_rq_active",
    "cluster.up.upstream_cx_active", "cluster.up.upstream_rq_pending_active",
)  # fmt: skip


def gauges(server: Server, connections: bool = True) -> dict[str, int]:
    """All that counts what is under way and is not 0: gauges, breakers, hosts, and the loop's own bookkeeping."""
    assert server.stack is not None
    found = {name: value for name in GAUGES if (connections or "_cx_" not in name) and (value := stat(server, name))}
    for cluster in server.stack.clusters.clusters.values():
        for at, breaker in enumerate(cluster.breakers):
            for name in ("rq_active", "rq_pending", "retries_active", *(("cx_active",) if connections else ())):
                if value := getattr(breaker, name):
                    found[f"{cluster.name}.breaker{at}.{name}"] = value
        for host in cluster.hosts:
            for name in ("rq_active", *(("cx_active",) if connections else ())):
                if value := getattr(host, name):
                    found[f"{cluster.name}.host.{name}"] = value
            if host.pool is not None and (host.pool.pending or host.pool.connecting):
                found[f"{cluster.name}.pool"] = len(host.pool.pending) + host.pool.connecting
    return found


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


class Setting:
    """A running sidecar between an upstream and clients."""

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.server = server
        self.upstream = upstream
        self.port = server.address("in")[1]

    async def client(self, receive_buffer: int = 0) -> Peer:
        return await connect(self.port, receive_buffer)

    async def exchange(self, data: bytes) -> bytes:
        """Everything that comes back for ``data`` until the sidecar closes."""
        peer = await self.client()
        with contextlib.suppress(ConnectionError):
            await peer.send(data)
        found = await peer.rest()
        peer.close()
        return found

    async def serves(self, path: bytes = b"/") -> None:
        """Another client gets its answer."""
        peer = await self.client()
        await peer.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        head, _ = await peer.message()
        assert head.startswith(b"HTTP/1.1 200 ")
        peer.close()

    def stat(self, name: str) -> int:
        return stat(self.server, name)

    async def at_rest(self) -> None:
        """Nothing is under way any more; idle upstream connections may be left."""
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: not gauges(self.server, connections=False) and not self.stat(GAUGES[1]))
        assert gauges(self.server, connections=False) == {}
        assert self.stat(GAUGES[1]) == 0


@contextlib.asynccontextmanager
async def sidecar(
    handler: Handler = hello,
    others: dict[str, Handler] | None = None,
    *,
    port: int | None = None,
    at_rest: bool = True,
    **config: Any,
) -> AsyncIterator[Setting]:
    """A sidecar in front of "up", which ``handler`` serves, or which is at ``port``.

    In the end nothing may have gone wrong in the loop, and, with ``at_rest``, nothing may be under way.
    """
    loop = asyncio.get_running_loop()
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    upstreams = {"up": Upstream(handler), **{name: Upstream(other) for name, other in (others or {}).items()}}
    try:
        ports = {name: upstream.port for name, upstream in upstreams.items()}
        if port is not None:
            ports["up"] = port
        async with asyncio.timeout(60), Server(bootstrap(ports, **config), seed=1) as server:
            setting = Setting(server, upstreams["up"])
            yield setting
            if not at_rest:
                return
            await setting.at_rest()
            for upstream in upstreams.values():
                await upstream.close()
            await eventually(lambda: not gauges(server))
    finally:
        for upstream in upstreams.values():
            await upstream.close()
    assert not problems, problems
    assert not [failure for upstream in upstreams.values() for failure in upstream.failures]
