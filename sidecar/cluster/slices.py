"""Work that would hold the loop for too long, cut into slices: building the tables of hashing balancers."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.cluster.context import Pick
from sidecar.cluster.load_balancers.layered import Build
from sidecar.core.timer_wheel import Callback, TimerWheel

_SLICE = 0.003  # seconds of the loop, of the 5 ms that anything may take, so that a long last step fits too


class Slices:
    """The queue of all clusters' work: one slice at each turn of the wheel, whatever is waiting.

    What is done at its first step, as all but the hashing balancers are, never waits.
    """

    __slots__ = ("_queue", "_timer", "_wheel")

    def __init__(self, wheel: TimerWheel) -> None:
        self._wheel = wheel
        self._queue: dict[object, tuple[Build, Callable[[Pick], None]]] = {}
        self._timer: Callback | None = None

    def run(self, owner: object, work: Build, done: Callable[[Pick], None]) -> None:
        """Do `work`, then call `done` with its result. It takes the place of earlier work of the same owner."""
        self._queue.pop(owner, None)
        try:
            next(work)
        except StopIteration as end:
            done(end.value)
            return
        self._queue[owner] = (work, done)
        self._schedule()

    def cancel(self, owner: object) -> None:
        """Drop the work of `owner`."""
        self._queue.pop(owner, None)

    def _schedule(self) -> None:
        if self._timer is None and self._queue:
            self._timer = self._wheel.call_in(0.0, self._turn)

    def _turn(self) -> None:
        self._timer = None
        clock = self._wheel.clock
        until = clock() + _SLICE
        while self._queue and clock() < until:
            owner, (work, done) = next(iter(self._queue.items()))
            try:
                while clock() < until:
                    next(work)
            except StopIteration as end:
                del self._queue[owner]
                done(end.value)
        self._schedule()

    def __repr__(self) -> str:
        return f"<Slices {len(self._queue)} waiting>"
