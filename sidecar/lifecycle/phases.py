"""The life of a sidecar as one table: its phases, what leads from one to the next, and what holds in each.

docs/lifecycle.md shows the same table, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple


class Phase(Enum):
    """Where a sidecar is in its life; the value is its number in ``server.drain.phase``."""

    STARTING = 0
    INITIALIZING = 1
    SERVING = 2
    ANNOUNCED = 3
    DRAINING = 4
    ENDED = 5


class Event(Enum):
    """What leads from one phase to another."""

    BOUND = "all addresses are taken"
    INITIALIZED = "all clusters have their first hosts"
    ASKED_TO_END = "SIGTERM, SIGINT, Server.drain"
    ANNOUNCED_LONG_ENOUGH = "--drain-announce-s is over"
    HANDED_OVER = "another process serves on the same sockets"
    EMPTY = "no connection is left"
    OUT_OF_TIME = "--drain-time-s is over; after a hand-over, --parent-shutdown-time-s"
    STOPPED = "/quitquitquit, a second signal, Server.stop, a failed start"
    STARTED_AGAIN = "Server.start after Server.stop"


TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.STARTING: {Event.BOUND: Phase.INITIALIZING},
    Phase.INITIALIZING: {Event.INITIALIZED: Phase.SERVING},
    Phase.SERVING: {Event.ASKED_TO_END: Phase.ANNOUNCED, Event.HANDED_OVER: Phase.DRAINING},
    Phase.ANNOUNCED: {Event.ANNOUNCED_LONG_ENOUGH: Phase.DRAINING, Event.HANDED_OVER: Phase.DRAINING},
    Phase.DRAINING: {Event.EMPTY: Phase.ENDED, Event.OUT_OF_TIME: Phase.ENDED},
    Phase.ENDED: {Event.STARTED_AGAIN: Phase.STARTING},
}
"""Besides these, STOPPED leads from every phase to ENDED. What is not listed changes nothing."""


class Meaning(NamedTuple):
    """What holds in a phase. ``state`` is what /ready and /server_info say; only LIVE is ready."""

    state: str
    accepts: bool
    asks_to_close: bool


MEANING: Final[Mapping[Phase, Meaning]] = {
    Phase.STARTING: Meaning("PRE_INITIALIZING", False, False),
    Phase.INITIALIZING: Meaning("INITIALIZING", False, False),
    Phase.SERVING: Meaning("LIVE", True, False),
    Phase.ANNOUNCED: Meaning("DRAINING", True, False),
    Phase.DRAINING: Meaning("DRAINING", False, True),
    Phase.ENDED: Meaning("STOPPED", False, True),
}


class Life:
    """The phase that a sidecar is in. ``entered`` is called with the old phase, the event and the new phase."""

    __slots__ = ("entered", "phase")

    def __init__(self, entered: Callable[[Phase, Event, Phase], None]) -> None:
        self.phase = Phase.STARTING
        self.entered = entered

    def on(self, event: Event) -> bool:
        """Go where the event leads; whether it leads anywhere from here."""
        before = self.phase
        after = Phase.ENDED if event is Event.STOPPED else TRANSITIONS[before].get(event)
        if after is None or after is before:
            return False
        self.phase = after
        self.entered(before, event, after)
        return True

    @property
    def state(self) -> str:
        """As Envoy names it."""
        return MEANING[self.phase].state

    def __repr__(self) -> str:
        return f"<Life {self.phase.name}>"
