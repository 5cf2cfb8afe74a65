"""Dialling: a connected transport to an address within a time limit, for pools and TCP proxies.

It speaks to a protocol object and a callback, so that nobody awaits: one task for each
new connection, none per request.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from sidecar.core.address import Address
from sidecar.core.worker import Worker

Connected = Callable[[Any, str, bool], None]
"""Called with the protocol, the failure in words (empty for success), and whether it was the time limit."""

SocketConnected = Callable[[socket.socket | None, str, bool], None]
"""Called with the connected, non-blocking socket or None, the failure, and whether it was the time limit."""


class Dialer:
    """Dials for one cluster: its source address, TCP keep-alive and other socket options.

    ``options`` are ``(level, name, value)`` for ``setsockopt``; ``source`` is bound before connecting.
    """

    __slots__ = ("options", "source", "worker")

    def __init__(
        self, worker: Worker, options: tuple[tuple[int, int, int], ...] = (), source: Address | None = None
    ) -> None:
        self.worker = worker
        self.options = options
        self.source = source

    def dial(
        self, address: Address, protocol: asyncio.BaseProtocol, timeout: float, connected: Connected
    ) -> asyncio.Task[None]:
        """Connect ``protocol`` to ``address`` within ``timeout`` seconds, then call ``connected``."""
        task = self.worker.loop.create_task(self._dial(address, protocol, timeout, connected))
        self.worker.tasks.add(task)
        task.add_done_callback(self.worker.tasks.discard)
        return task

    def dial_socket(self, address: Address, timeout: float, connected: SocketConnected) -> asyncio.Task[None]:
        """Connect to ``address`` within ``timeout`` seconds, then call ``connected``. Cancel the task to give up."""
        task = self.worker.loop.create_task(self._dial_socket(address, timeout, connected))
        self.worker.tasks.add(task)
        task.add_done_callback(self.worker.tasks.discard)
        return task

    async def _dial(
        self, address: Address, protocol: asyncio.BaseProtocol, timeout: float, connected: Connected
    ) -> None:
        failure, timed_out = "", False
        try:
            async with asyncio.timeout(timeout):
                sock = await self._connect(address)
                try:
                    loop = self.worker.loop
                    if address.ip is None:
                        await loop.create_unix_connection(lambda: protocol, sock=sock)
                    else:
                        await loop.create_connection(lambda: protocol, sock=sock)
                except BaseException:
                    sock.close()
                    raise
        except OSError as error:
            failure, timed_out = _words(error)
        connected(protocol, failure, timed_out)

    async def _dial_socket(self, address: Address, timeout: float, connected: SocketConnected) -> None:
        failure, timed_out = "", False
        sock = None
        try:
            async with asyncio.timeout(timeout):
                sock = await self._connect(address)
        except OSError as error:
            failure, timed_out = _words(error)
        connected(sock, failure, timed_out)

    async def _connect(self, address: Address) -> socket.socket:
        sock = self._socket(address)
        try:
            target: str | tuple[str, int] = address.path if address.ip is None else (address.ip, address.port)
            if isinstance(target, str) and target[:1] == "@":
                target = "\x00" + target[1:]
            await self.worker.loop.sock_connect(sock, target)
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
            if self.source is not None and self.source.ip is not None:
                sock.bind((self.source.ip, self.source.port))
        except OSError:
            sock.close()
            raise
        return sock


def _words(error: OSError) -> tuple[str, bool]:
    """The failure, and whether it was our own time limit: the kernel's ETIMEDOUT is a failure like others.

    The system's words for it, not the event loop's, which name the address too.
    """
    if error.errno is None:
        return ("connection timeout", True) if isinstance(error, TimeoutError) else (str(error), False)
    return "delayed connect error: " + os.strerror(error.errno), False
