"""TLS servers whose handshakes are bounded in number and time, apart from the connections that are served.

A stranger who connects and says nothing costs a descriptor. Event loops leave that for a minute, and know of no bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

log = logging.getLogger("controlplane")

_PATIENCE: Final = 10.0  # seconds for a whole handshake
_BREATH: Final = 0.1  # seconds until we accept again when there are no descriptors
_SAY_AGAIN: Final = 60.0


def share_of_descriptors(share: float, least: int, most: int) -> int:
    """A part of the files and connections that this process may have; those of all servers together are less than all."""
    return max(least, min(most, int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * share)))


class TlsListener:
    """Accepts on ``sockets`` (bound, not blocking) and gives each connection whose handshake is done to a protocol of
    ``factory``. It has what users of `asyncio.Server` use of that: `sockets`, `close`, `wait_closed`.

    There are at most ``most`` handshakes at once, ``patience`` seconds each. One more ends the oldest: that is one of those
    who say nothing, for honest clients are done in a few milliseconds.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        factory: Callable[[], Any],
        context: ssl.SSLContext,
        *,
        backlog: int,
        most: int | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        self.sockets = tuple(sockets)
        self.most = share_of_descriptors(0.1, 16, 512) if most is None else most
        self.patience = patience
        self._factory = factory
        self._context = context
        self._shaking: dict[asyncio.Task[None], socket.socket] = {}
        self._said = 0.0
        for one in self.sockets:
            one.listen(backlog)
        self._accepting = [asyncio.create_task(self._accept(one)) for one in self.sockets]

    def close(self) -> None:
        """Accept no more; what is served goes on."""
        for task in (*self._accepting, *self._shaking):
            task.cancel()
        for one in self.sockets:
            one.close()

    async def wait_closed(self) -> None:
        """Nothing is under way any more."""
        await asyncio.gather(*self._accepting, *self._shaking, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # it was gone before it came
            except OSError as error:
                self._say("no connection can be accepted: %s", error.strerror or error)
                await asyncio.sleep(_BREATH)
                continue
            if len(self._shaking) >= self.most:
                self._say("%d handshakes are under way: the oldest gives way to the newest", self.most)
                self._end(next(iter(self._shaking)))
            accepted.setblocking(False)
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._shake(accepted))
            self._shaking[task] = accepted
            task.add_done_callback(self._done)

    async def _shake(self, accepted: socket.socket) -> None:
        protocol = self._factory()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.patience):
                await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._context)
        except (
            OSError,
            asyncio.CancelledError,
        ) as error:  # TLS that fails is an OSError, and so is a time that is over
            protocol.connection_lost(error)  # which loops leave out before the handshake is done
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
            accepted.close()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._shaking.pop(task)
        task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._shaking.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("a connection was not taken", exc_info=task.exception())

    def _say(self, words: str, *arguments: object) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._said:
            self._said = now + _SAY_AGAIN
            log.warning(words, *arguments)


async def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets for all addresses of a host, bound. Raises OSError."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found: list[socket.socket] = []
    try:
        for family, type_, _, _, address in dict.fromkeys(infos):
            # With the protocol left open asyncio does not switch Nagle's algorithm off, and answers wait 40 ms for an ACK.
            one = socket.socket(family, type_, socket.IPPROTO_TCP)
            found.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            try:
                one.bind(address)
            except OSError as error:
                raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from None
    except BaseException:
        for one in found:
            one.close()
        raise
    return found
