"""How many handshakes are under way at a time, so that a flood of them that never end cannot take all memory.

Beyond the limit a handshake that has lasted long makes room; if all are young, the newcomer waits for its turn.
"""

from __future__ import annotations

from typing import Protocol


class Handshaking(Protocol):
    """A connection that wants to shake hands. ``since`` is when it asked or began, on the worker's clock."""

    since: float

    def begin(self) -> None:
        """It is your turn."""

    def crowd_out(self) -> None:
        """You took too long while others wait: end, which calls ``leave``."""


class HandshakeLimit:
    """At most ``maximum`` at a time; one that has lasted ``patience`` seconds may be crowded out."""

    __slots__ = ("active", "maximum", "patience", "waiting")

    def __init__(self, maximum: int = 1024, patience: float = 2.0) -> None:
        self.maximum = maximum
        self.patience = patience
        self.active: dict[Handshaking, None] = {}
        self.waiting: dict[Handshaking, None] = {}

    def enter(self, connection: Handshaking) -> bool:
        """Whether it may begin now; else ``begin`` will tell it."""
        active = self.active
        if len(active) >= self.maximum:
            self.waiting[connection] = None
            self.make_room(connection.since)
            return connection in active
        active[connection] = None
        return True

    def make_room(self, now: float) -> None:
        """End the oldest handshake if it has had its time: somebody waits."""
        if len(self.active) >= self.maximum:
            oldest = next(iter(self.active))
            if now - oldest.since >= self.patience:
                oldest.crowd_out()

    def leave(self, connection: Handshaking) -> None:
        """Its handshake is over, or it gave up waiting."""
        if connection not in self.active:
            self.waiting.pop(connection, None)
            return
        del self.active[connection]
        if self.waiting and len(self.active) < self.maximum:
            following = next(iter(self.waiting))
            del self.waiting[following]
            self.active[following] = None
            following.begin()

    def __repr__(self) -> str:
        return f"<HandshakeLimit {len(self.active)} of {self.maximum} active, {len(self.waiting)} waiting>"
