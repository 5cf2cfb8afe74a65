"""Listening sockets for what workers discover while they run: their parent makes them, and keeps them open for all of them.

One that dies loses no connection that was queued for it, and an address that several cannot have at a time (`enable_reuse_port:
false`) they share.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from sidecar.lifecycle.channel import Channel
from sidecar.lifecycle.handover import Sockets, close_all


class Asking(Protocol):
    """A worker."""

    @property
    def number(self) -> int: ...

    @property
    def has_ended(self) -> bool: ...

    @property
    def channel(self) -> Channel: ...


Listen = Callable[[bytes, Sockets], Sockets]
"""Makes the sockets of a listener (a serialised `Listener`), for all workers, by the keys of its addresses; takes those that are
there already. Raises OSError and ValueError.
"""


class LaterSockets:
    """What the workers of a sidecar have asked for; ``count`` is how many of them there are at a time."""

    def __init__(self, count: int, listen: Listen) -> None:
        self.sockets: Sockets = {}
        self._count = count
        self._listen = listen
        self._users: dict[str, set[Asking]] = {}

    def ask(self, worker: Asking, question: int, listener: bytes) -> None:
        """Give a worker its sockets for a listener."""
        try:
            found = self._listen(listener, {key: list(each) for key, each in self.sockets.items()})
        except (OSError, ValueError) as error:
            number = error.errno or 0 if isinstance(error, OSError) else 0
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            worker.channel.send({"listening": question, "error": reason, "errno": number})
            return
        self.sockets.update(found)
        mine: list[tuple[str, socket.socket]] = []
        for key, each in found.items():
            others = {
                one for one in self._users.get(key, ()) if one.number != worker.number
            }  # it takes a dead one's place
            self._users[key] = {worker, *others}
            share = each[worker.number :: self._count] if len(each) >= self._count else each
            mine += [(key, sock) for sock in share]
        worker.channel.send(
            {"listening": question, "keys": [key for key, _ in mine]}, [sock.fileno() for _, sock in mine]
        )

    def give_up(self, worker: Asking, keys: Iterable[str]) -> None:
        """A worker does not listen there any more: nor does anybody, if it was the last."""
        for key in keys:
            users = self._users.get(key)
            if users is not None:
                users.discard(worker)
                if not users:
                    del self._users[key]
                    close_all({key: self.sockets.pop(key)})

    def gone(self) -> None:
        """A worker has ended. The one that takes its place asks again: what only this one had stays for it."""
        for users in self._users.values():
            ended = {one for one in users if one.has_ended}
            if len(ended) < len(users):
                users -= ended

    def close(self) -> None:
        """Close all of them here."""
        close_all(self.sockets)
        self.sockets = {}
        self._users.clear()

    def __repr__(self) -> str:
        return f"<LaterSockets {len(self.sockets)} addresses>"
