"""A hand-over between two processes of one sidecar: the old one gives its listening sockets, the new one serves on them.

The new process asks (``take``) when its configuration is built, gets the sockets, and says when it serves on them
(``serving``). Only then does the old one stop accepting and drain; until then it goes on as if nothing were, and does so for
good when the new one ends before. While it drains, the old one tells what it counts, so that the new one counts on from there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from sidecar.core.hot_restart import HOT_RESTART_VERSION
from sidecar.lifecycle.channel import MOST_DESCRIPTORS, Channel, Message

_log = logging.getLogger(__name__)

_TELL_EVERY = 1.0
Sockets = dict[str, list[socket.socket]]


class HandoverError(Exception):
    """The other process does not hand over, or is gone; the text says why."""


class Successor:
    """The new process, as the old one hands over to it. ``on_statistics`` gets what the old one has counted since the last
    time, ``on_connections`` how many connections it still has: 0 when it has ended. ``on_order`` gets what a parent tells its
    worker beyond that, and ``on_end`` is called when the other end is gone.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, epoch: int | None = None) -> None:
        self.channel = self._channel = Channel(loop, sock)
        self._channel.on_message = self._on_message
        self._channel.on_end = self._on_end
        self._asked_epoch = epoch
        self._sockets: Sockets = {}
        self._taken: asyncio.Future[Sockets] = loop.create_future()
        self._asked: dict[int, asyncio.Future[Sockets]] = {}
        self._questions = 0
        self.epoch = 0
        self.on_statistics: Callable[[list[Any]], None] = lambda changes: None
        self.on_connections: Callable[[int], None] = lambda connections: None
        self.on_order: Callable[[Message], None] = lambda message: None
        self.on_end: Callable[[], None] = lambda: None

    async def take_sockets(self) -> Sockets:
        """The old process's listening sockets, by the keys of their addresses. Raises HandoverError."""
        self._channel.send({"take": HOT_RESTART_VERSION, "epoch": self._asked_epoch})
        return await self._taken

    def serving(self, keys: Iterable[str]) -> None:
        """Tell the old process that these of its addresses are served here: it drains."""
        self._channel.send({"serving": list(keys)})

    def end_predecessor(self) -> None:
        """Tell the old process that it has had time enough."""
        self._channel.send({"end": True})

    def close(self) -> None:
        """Hear no more of the old process."""
        self._channel.close()
        close_all(self._sockets)

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        if "refused" in message:
            self._fail(message["refused"])
        elif "sockets" in message:
            for key, descriptor in zip(message["sockets"], descriptors, strict=True):
                self._sockets.setdefault(key, []).append(socket.socket(fileno=descriptor))
            if message["last"]:
                self.epoch = message["epoch"] + 1
                sockets, self._sockets = self._sockets, {}
                if self._taken.done():
                    close_all(sockets)
                else:
                    self._taken.set_result(sockets)
        elif "changes" in message:
            self.on_statistics(message["changes"])
        elif "connections" in message:
            self.on_connections(message["connections"])
        elif "listening" in message:
            self._answer(message, descriptors)
        else:
            self.on_order(message)

    async def ask_sockets(self, listener: bytes) -> Sockets:
        """Sockets for a listener (a serialised `Listener`) that has been discovered, from the parent of several workers. Raises
        OSError.
        """
        question = self._questions = self._questions + 1
        future: asyncio.Future[Sockets] = asyncio.get_running_loop().create_future()
        self._asked[question] = future
        self._channel.send({"listen": question, "listener": b64encode(listener).decode()})
        return await future

    def give_up(self, keys: Iterable[str]) -> None:
        """Tell the parent that nobody listens here on such sockets any more."""
        self._channel.send({"unlisten": list(keys)})

    def _answer(self, message: Message, descriptors: list[int]) -> None:
        found: Sockets = {}
        for key, descriptor in zip(message.get("keys", ()), descriptors, strict=True):
            found.setdefault(key, []).append(socket.socket(fileno=descriptor))
        future = self._asked.pop(message["listening"], None)
        if future is None or future.done():
            close_all(found)
        elif "error" in message:
            future.set_exception(OSError(message["errno"], message["error"]))
        else:
            future.set_result(found)

    def _on_end(self) -> None:
        self._fail("it ended before it gave its sockets")
        for future in self._asked.values():
            if not future.done():
                future.set_exception(OSError(0, "the parent of this worker is gone"))
        self.on_connections(0)
        self.on_end()

    def _fail(self, reason: str) -> None:
        if not self._taken.done():
            self._taken.set_exception(HandoverError(f"the running process does not hand over: {reason}"))

    def __repr__(self) -> str:
        return f"<Successor at epoch {self.epoch}>"


class Counting(Protocol):
    """What tells how far it has counted."""

    def changes(self, *, ending: bool = False) -> Iterator[list[Any]]:
        """What has been counted since the last call, in parts."""
        ...

    def connections(self) -> int: ...


class Handed(Counting, Protocol):
    """What hands over: a server, or the parent of several workers."""

    @property
    def epoch(self) -> int: ...

    def sockets_to_hand_over(self) -> Mapping[str, Sequence[socket.socket]]:
        """All listening sockets by the keys of their addresses."""
        ...

    def hand_over(self, keys: frozenset[str]) -> None:
        """Another process serves on the sockets with these keys: drain."""
        ...

    def stop_soon(self) -> None: ...


class Telling:
    """Tells the process that serves now what this one still counts, once in a second and at the end."""

    __slots__ = ("_channel", "_handle", "_loop", "_server")

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel, server: Counting) -> None:
        self._loop = loop
        self._channel = channel
        self._server = server
        self._handle: asyncio.Handle | None = None

    def begin(self) -> None:
        """Tell all, one part in a turn of the loop, then again in a second."""
        self._tell(self._server.changes())

    def _tell(self, parts: Iterator[list[Any]]) -> None:
        part = next(parts, None)
        if part is None:
            self._channel.send({"connections": self._server.connections()})
            self._handle = self._loop.call_later(_TELL_EVERY, self.begin)
            return
        if part:
            self._channel.send({"changes": part})
        self._handle = self._loop.call_soon(self._tell, parts)

    def stop(self) -> None:
        """Tell no more."""
        if self._handle is not None:
            self._handle.cancel()

    def end(self) -> None:
        """Tell what was counted since the last time, and no more."""
        self.stop()
        for part in self._server.changes(ending=True):
            if part:
                self._channel.send({"changes": part})

    def __repr__(self) -> str:
        return f"<Telling {self._server!r}>"


class Predecessor:
    """The old process, on one channel to a new one. ``on_done`` is called once with whether it has handed over."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, server: Handed, on_done: Callable[[bool], None]
    ) -> None:
        self._loop = loop
        self._server = server
        self._on_done = on_done
        self._channel = Channel(loop, sock)
        self._channel.on_message = self._on_message
        self._channel.on_end = self._on_end
        self._telling = Telling(loop, self._channel, server)
        self.handed_over = False
        self._done = False

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        if "take" in message:
            self._give(message)
        elif "serving" in message and not self.handed_over:
            self.handed_over = True
            self._server.hand_over(frozenset(message["serving"]))
            self._finish(True)
            self._telling.begin()
        elif "end" in message:
            self._server.stop_soon()

    def _give(self, message: Message) -> None:
        if message["take"] != HOT_RESTART_VERSION:
            reason = f"it has --hot-restart-version {HOT_RESTART_VERSION}, and this is {message['take']}"
            self._channel.send({"refused": reason})
            return
        wanted = message["epoch"]
        if wanted is not None and wanted != self._server.epoch + 1:
            self._channel.send(
                {"refused": f"it has --restart-epoch {self._server.epoch}; the next one is {self._server.epoch + 1}"}
            )
            return
        give_sockets(self._channel, self._server.sockets_to_hand_over(), self._server.epoch)

    def end(self) -> None:
        """The old process ends now: what it has counted since it last told."""
        if self.handed_over:
            self._telling.end()
        self._channel.finish()

    def _on_end(self) -> None:
        self._telling.stop()
        self._finish(False)

    def _finish(self, handed_over: bool) -> None:
        if not self._done:
            self._done = True
            self._on_done(handed_over)

    def __repr__(self) -> str:
        return f"<Predecessor that {'has handed over' if self.handed_over else 'serves'}>"


def give_sockets(channel: Channel, sockets: Mapping[str, Sequence[socket.socket]], epoch: int) -> None:
    """Answer to ``take``; ``epoch`` is that of the process that gives."""
    pairs = [(key, sock) for key, socks in sockets.items() for sock in socks]
    for start in range(0, max(1, len(pairs)), MOST_DESCRIPTORS):
        part = pairs[start : start + MOST_DESCRIPTORS]
        last = start + MOST_DESCRIPTORS >= len(pairs)
        message: Message = {"sockets": [key for key, _ in part], "last": last, "epoch": epoch}
        channel.send(message, [sock.fileno() for _, sock in part])


def close_all(sockets: Mapping[str, Iterable[socket.socket]]) -> None:
    """Close sockets that nobody wants here; other processes have them still."""
    for socks in sockets.values():
        for sock in socks:
            sock.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel: ours, and the one for a process that we start."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def peer_is_ours(sock: socket.socket) -> bool:
    """Whether the process at the other end runs as our user, or as root; where the system does not tell (only Linux does), the
    directory of the socket, which is ours alone, has to do.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    user = int.from_bytes(credentials[4:8], "little")
    return user in (0, os.getuid())
