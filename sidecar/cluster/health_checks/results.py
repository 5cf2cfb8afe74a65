"""What a check can come to, and what the probes that ask hosts are to the state machine."""

from __future__ import annotations

from typing import Any, Final, Protocol

ACTIVE: Final = "ACTIVE"
"""The host answered, and not well."""
PASSIVE: Final = "PASSIVE"
"""A response to a request of somebody else said that the host is to be taken for failed."""
NETWORK: Final = "NETWORK"
"""There was no connection, or it broke."""
NETWORK_TIMEOUT: Final = "NETWORK_TIMEOUT"
"""There was no answer in time."""

UNCHANGED, CHANGE_PENDING, CHANGED = range(3)
"""What a check did to what is thought of the host: nothing, brought the other state nearer, or turned it."""


class Outcome(Protocol):
    """Who is told what became of a check: the host's session."""

    host: Any

    def succeeded(self, degraded: bool = False) -> None: ...

    def failed(self, reason: str, retriable: bool = False, status: int = 0, exclude: bool = False) -> None:
        """``retriable`` failures, and those of the network, count against the threshold. ``status`` is that of HTTP."""
        ...


class Probe(Protocol):
    """Asks one host, again and again. Each check has one outcome, which may be told before ``start`` returns."""

    def start(self) -> None:
        """Ask."""
        ...

    def timed_out(self) -> None:
        """No answer has come in time, and none is wanted any more."""
        ...

    def close(self) -> None:
        """Nobody asks any more: no outcome is told from here on, and connections end."""
        ...
