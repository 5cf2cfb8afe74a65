"""The cork: what one turn of the event loop produced for its connections leaves together, one write for each.

uvloop writes at once on every ``write``, so pieces are collected by their connection, which registers here. Reads settle
for the end of the loop's turn: a write wakes whoever waits at the other end, which costs as much as the write itself when
that one sleeps on another core, and of writes in a row only the first one finds it asleep. Whoever handles something
else (a timer, a lost connection) pulls the cork at once.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

AT_ONCE: Final = 32
"""As many connections with output do not wait for the end of the turn: the first of them has waited long enough."""

BULK: Final = 32768
"""So many bytes in one read do not wait either: more of them may follow in the same turn."""


class Corked(Protocol):
    """A connection with collected output."""

    def flush(self) -> None: ...


class Cork:
    """The connections that have something to flush; at most once each, since they register on their first piece."""

    __slots__ = ("loop", "scheduled", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.scheduled = False
        self.waiting: list[Corked] = []

    def settle(self, size: int = 0) -> None:
        """See to it that all is flushed at the end of this turn, or now if it is much; ``size`` bytes were read."""
        if len(self.waiting) >= AT_ONCE or size >= BULK:
            self.pull()
        elif not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._end_turn)

    def pull(self) -> None:
        """Flush all; what a flush makes others collect is flushed, too."""
        waiting = self.waiting
        for connection in waiting:
            connection.flush()
        waiting.clear()

    def _end_turn(self) -> None:
        self.scheduled = False
        self.pull()

    def __repr__(self) -> str:
        return f"<Cork {len(self.waiting)} waiting>"
