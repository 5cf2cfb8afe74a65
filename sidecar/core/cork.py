"""The cork: what one event produced for a connection leaves in one write when the event has been handled.

uvloop writes at once on every ``write``, so pieces are collected by their connection, which registers here; whoever
handles an event (a read, a timer) pulls the cork at its end.
"""

from __future__ import annotations

from typing import Protocol


class Corked(Protocol):
    """A connection with collected output."""

    def flush(self) -> None: ...


class Cork:
    """The connections that have something to flush; at most once each, since they register on their first piece."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Corked] = []

    def pull(self) -> None:
        """Flush all; what a flush makes others collect is flushed, too."""
        waiting = self.waiting
        while waiting:
            waiting.pop().flush()

    def __repr__(self) -> str:
        return f"<Cork {len(self.waiting)} waiting>"
