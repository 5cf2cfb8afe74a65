"""What the overload manager asks of the stages while there is too much to do. They give it functions of a scale.

0 is the ordinary state, 1 all that can be done, and what lies between is a probability, or a share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Act = Callable[[float], None]
"""Called with the new scale when it has changed."""

Shed = Callable[[], None]
"""Called for each connection or request that is turned away."""


class Accepting(Protocol):
    """A listener, as far as load is concerned."""

    def pause_accepting(self) -> None:
        """Leave new connections in the kernel's queue."""
        ...

    def resume_accepting(self) -> None: ...

    def trim(self, longest: float, share: float) -> None:
        """Accept only this share (0 to 1) of what else is accepted in a turn of the event loop, and close those that have
        waited longest in the kernel's queue while more than ``longest`` do; ``inf``: none.
        """
        ...

    def reject(self, share: float, shed: Shed | None) -> None:
        """Close this share (0 to 1) of new connections at once, and call ``shed`` for each."""
        ...


class Serving(Protocol):
    """A connection manager, as far as load is concerned."""

    def refuse(self, share: float, shed: Shed | None) -> None:
        """Answer this share (0 to 1) of new requests with 503, and call ``shed`` for each."""
        ...

    def close_connections(self, share: float) -> None:
        """Ask the client to close its connection with this share (0 to 1) of the responses."""
        ...

    def stop_reading(self, stop: bool) -> None:
        """Whether connections on which no request is under way are left unread."""
        ...

    def scale_timers(self, scale: float) -> None:
        """Shrink timeouts: 0 leaves them as they are configured, 1 makes them as short as they may get."""
        ...

    def reset_streams(self, pressure: float, most: int) -> int:
        """Reset at most so many of the streams that hold the most memory; how many there were."""
        ...
