"""Dialling: a connected transport to an address within a time limit, for pools and TCP proxies.

It speaks to a protocol object and a callback, so that nobody awaits: one task for each
new connection, none per request.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from sidecar.core.address import Address, from_socket_name
from sidecar.core.tls_options import TransportSocketOptions
from sidecar.core.upstream import CANNOT_BIND
from sidecar.core.worker import Worker

Connected = Callable[[Any, str | None, bool], None]
"""Called with the protocol, the failure in words (None for success), and whether it was the time limit."""

SocketConnected = Callable[[socket.socket | None, str, bool, Address | None], None]
"""Called with the connected, non-blocking socket or None, the failure, whether it was the time limit, and this end's
address (that of the socket may be another: with TLS it is one of a pair).
"""


Header = Callable[[socket.socket, TransportSocketOptions | None], bytes]
"""What is written before all else, by the connected socket and what it is for: a PROXY header."""


class Tls(Protocol):
    """The TLS of one cluster."""

    def connect(self, inner: Any, *, hostname: str = "", options: TransportSocketOptions | None = None) -> Any:
        """The protocol for a new connection around ``inner``. Its ``ready()`` waits for the handshake and raises an
        OSError, which its ``failure`` is then, with Envoy's ``words``.
        """
        ...

    def bridge(self) -> Any:
        """A protocol whose ``far`` is a socket for those who want one."""
        ...


_IP_FREEBIND = 15  # from linux/in.h; for IPv6 too


class CannotBind(OSError):
    """A source address is not this machine's, or in use; the text is for the log."""


class Dialer:
    """Dials for one cluster: its source addresses, TCP keep-alive and other socket options.

    ``options`` are ``(level, name, value)`` for ``setsockopt``. Of ``sources`` the first of the endpoint's IP version, else
    the first, is bound before connecting, and with ``freebind`` whether or not it is this machine's; ``bind_failed`` counts
    where that is not possible. With ``tls`` connections are made when their handshake is done; ``header``, where it is
    set, goes before it.
    """

    __slots__ = ("bind_failed", "freebind", "header", "options", "sources", "tls", "worker")

    def __init__(
        self,
        worker: Worker,
        options: tuple[tuple[int, int, int], ...] = (),
        sources: tuple[Address, ...] = (),
        tls: Tls | None = None,
        freebind: bool = False,
        bind_failed: Callable[[], None] | None = None,
    ) -> None:
        self.worker = worker
        self.options = options
        self.sources = sources
        self.freebind = freebind
        self.bind_failed = bind_failed
        self.tls = tls
        self.header: Header | None = None

    def dial(
        self,
        address: Address,
        protocol: asyncio.BaseProtocol,
        timeout: float,
        connected: Connected,
        hostname: str = "",
        options: TransportSocketOptions | None = None,
    ) -> asyncio.Task[None]:
        """Connect ``protocol`` to ``address`` within ``timeout`` seconds, then call ``connected``.

        ``hostname`` is the endpoint's, and ``options`` what is asked of the transport socket.
        """
        task = self.worker.loop.create_task(self._dial(address, protocol, timeout, connected, hostname, options))
        self.worker.tasks.add(task)
        task.add_done_callback(self.worker.tasks.discard)
        return task

    def dial_socket(
        self,
        address: Address,
        timeout: float,
        connected: SocketConnected,
        hostname: str = "",
        proxied: tuple[Address, Address] | None = None,
    ) -> asyncio.Task[None]:
        """Connect to ``address`` within ``timeout`` seconds, then call ``connected``. Cancel the task to give up.

        ``proxied`` are the source and the destination of the downstream connection.
        """
        task = self.worker.loop.create_task(self._dial_socket(address, timeout, connected, hostname, proxied))
        self.worker.tasks.add(task)
        task.add_done_callback(self.worker.tasks.discard)
        return task

    async def _dial(
        self,
        address: Address,
        protocol: asyncio.BaseProtocol,
        timeout: float,
        connected: Connected,
        hostname: str,
        options: TransportSocketOptions | None,
    ) -> None:
        failure: str | None = None
        timed_out = False
        secure: Any = None if self.tls is None else self.tls.connect(protocol, hostname=hostname, options=options)
        outer: asyncio.BaseProtocol = protocol if secure is None else secure
        try:
            async with asyncio.timeout(timeout):
                await self._attach(await self._connect(address, options), outer)
                if secure is not None:
                    await secure.ready()
        except OSError as error:
            failure, timed_out = _words(error)
            if secure is not None and secure.failure is not None and not timed_out:
                failure = secure.failure.words
        connected(protocol, failure, timed_out)

    async def _dial_socket(
        self,
        address: Address,
        timeout: float,
        connected: SocketConnected,
        hostname: str,
        proxied: tuple[Address, Address] | None,
    ) -> None:
        failure, timed_out = "", False
        sock: socket.socket | None = None
        local: Address | None = None
        secure: Any = None
        try:
            async with asyncio.timeout(timeout):
                made = await self._connect(
                    address, None if self.header is None else TransportSocketOptions(proxied=proxied)
                )
                local = from_socket_name(made.family, made.getsockname())
                if self.tls is not None:
                    bridge = self.tls.bridge()
                    try:
                        secure = self.tls.connect(bridge, hostname=hostname)
                        await self._attach(made, secure)
                        await secure.ready()
                    except BaseException:
                        bridge.discard()
                        raise
                    made = bridge.far
                sock = made
        except OSError as error:
            failure, timed_out = _words(error)
            if secure is not None and secure.failure is not None and not timed_out:
                failure = secure.failure.words
        connected(sock, failure, timed_out, local)

    async def _attach(self, sock: socket.socket, protocol: asyncio.BaseProtocol) -> None:
        try:
            if sock.family == socket.AF_UNIX:
                await self.worker.loop.create_unix_connection(lambda: protocol, sock=sock)
            else:
                await self.worker.loop.create_connection(lambda: protocol, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _connect(self, address: Address, options: TransportSocketOptions | None) -> socket.socket:
        sock = self._socket(address)
        try:
            target: str | tuple[str, int] = address.path if address.ip is None else (address.ip, address.port)
            if isinstance(target, str) and target[:1] == "@":
                target = "\x00" + target[1:]
            await self.worker.loop.sock_connect(sock, target)
            if self.header is not None:
                await self.worker.loop.sock_sendall(sock, self.header(sock, options))
        except BaseException:
            sock.close()
            raise
        return sock

    def _socket(self, address: Address) -> socket.socket:
        if address.ip is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            sock = socket.socket(socket.AF_INET6 if ":" in address.ip else socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.setblocking(False)
            for level, name, value in self.options:
                sock.setsockopt(level, name, value)
            if self.sources and address.ip is not None:
                self._bind(sock, address.ip)
        except OSError:
            sock.close()
            raise
        return sock

    def _bind(self, sock: socket.socket, ip: str) -> None:
        source = _source(self.sources, ip)
        assert source.ip is not None
        try:
            if (":" in source.ip) != (":" in ip):  # what the kernel says of it
                raise OSError(errno.EINVAL if ":" in ip else errno.EAFNOSUPPORT, "")
            if self.freebind:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            sock.bind((source.ip, source.port))
        except OSError as error:
            if self.bind_failed is not None:
                self.bind_failed()
            raise CannotBind(f"{CANNOT_BIND}{source.text}: {os.strerror(error.errno or 0)}") from None


def _source(sources: tuple[Address, ...], ip: str) -> Address:
    """Envoy's choice: by the IP version of where it goes."""
    for source in sources:
        if source.ip is not None and (":" in source.ip) == (":" in ip):
            return source
    return sources[0]


def _words(error: OSError) -> tuple[str, bool]:
    """The failure, and whether it was our own time limit: the kernel's ETIMEDOUT is a failure like others.

    The system's words for it, not the event loop's, which name the address too.
    """
    if error.errno is None:
        return ("connection timeout", True) if isinstance(error, TimeoutError) else (str(error), False)
    return "delayed connect error: " + os.strerror(error.errno), False
