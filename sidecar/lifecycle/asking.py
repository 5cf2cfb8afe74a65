"""Asking clients to close: ``Connection: close`` over HTTP/1.1, two GOAWAYs over HTTP/2; at once, or spread over a time.

Source: Envoy's ``--drain-strategy`` ("gradual" asks more and more of them as the drain time passes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Protocol

from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker

NEXT_REQUEST = 1.0
"""Seconds in which another request is expected on a connection that is idle; with it comes the answer that says close."""

_TICK = 0.25


class Connection(Protocol):
    """A downstream connection. ``version`` is 11 or 20, or 0 while it is not known which protocol it speaks."""

    version: int

    def drain(self) -> None: ...
    def retire(self, due: float) -> bool: ...


class Manager(Protocol):
    """A connection manager; while it is ``draining``, every response asks to close."""

    draining: bool

    @property
    def connections(self) -> Iterable[Any]: ...


class Asking(Timed):
    """Asks every connection of some managers once, and again those that could not be told yet.

    ``duration`` is 0 to ask all at once; else each connection is asked at a random time within so many seconds, those
    that come meanwhile included, and ``done`` is called at the end of them.
    """

    __slots__ = ("_asked", "_done", "_ends", "_managers", "_random", "_worker")

    def __init__(
        self, worker: Worker, managers: Sequence[Manager], duration: float, done: Callable[[], None] | None = None
    ) -> None:
        self.due = inf
        self._worker = worker
        self._managers = managers
        self._ends = worker.clock() + duration
        self._done = done
        self._asked: dict[Any, float] = {}
        self._random = worker.random_for("drains")

    def begin(self) -> None:
        """Ask the first of them."""
        self.on_timer(self._worker.clock())

    def stop(self) -> None:
        """Ask no more."""
        self._worker.wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        left = self._ends - now
        chance = 1.0 if left <= 0.0 else min(1.0, _TICK / left)
        draw = self._random.random
        asked: dict[Any, float] = {}
        for manager in self._managers:
            manager.draining = manager.draining or left <= 0.0
            for connection in tuple(manager.connections):
                since = self._asked.get(connection)
                if since is not None or chance == 1.0 or draw() < chance:
                    asked[connection] = now if since is None else since
                    _ask(connection, now, asked[connection])
        self._asked = asked
        if left <= 0.0 and self._done is not None:
            done, self._done = self._done, None
            done()
        if self._worker.cork.waiting:
            self._worker.cork.pull()
        self._worker.wheel.arm(self, now + _TICK)

    def __repr__(self) -> str:
        return f"<Asking {len(self._asked)} connections to close>"


def _ask(connection: Connection, now: float, since: float) -> None:
    if connection.version == 20:
        if now == since:
            connection.drain()
    elif not connection.retire(since + NEXT_REQUEST) and not connection.version and now >= since + NEXT_REQUEST:
        connection.drain()  # it has not said a word
