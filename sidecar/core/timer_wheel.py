"""One coarse timer wheel for the whole process: arming and cancelling are a dict operation each, no `call_later`.

Whoever waits is a ``Timed`` object with one slot, ``due``: the time at which the wheel will call its ``on_timer``.
One that is far ahead is moved to the next quarter of a second.
Owners with several deadlines (a connection: idle, headers, request ...) keep them as plain numbers and arm the wheel for
the earliest; a deadline that moves later costs nothing, because ``on_timer`` finds that it is early and arms again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, inf
from typing import Final

_FAR: Final = 10.0
"""From so many seconds ahead a timer may be late by up to ``_COARSE``."""

_COARSE: Final = 0.25
"""A bucket stays until its time comes, empty or not. Connections that come and go with an hour's idle timeout would leave
one for every 5 ms of that hour."""


class Timed:
    """Something that the wheel may wake. ``due`` is in seconds of the wheel's clock; ``inf`` when not armed."""

    __slots__ = ("due",)

    due: float

    def on_timer(self, now: float) -> None:
        """Called at or shortly after ``due``, when the object is no longer armed."""
        raise NotImplementedError


class Callback(Timed):
    """A plain function as a timer, for what happens rarely (periodic work, back-off)."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self.due = inf
        self.function = function

    def on_timer(self, now: float) -> None:
        self.function()


class TimerWheel:
    """Buckets of ``resolution`` seconds in a dict, their numbers in a heap; one loop timer for the earliest bucket."""

    __slots__ = ("_buckets", "_handle", "_handle_number", "_loop", "_numbers", "clock", "resolution")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], resolution: float = 0.005) -> None:
        self.clock = clock
        self.resolution = resolution
        self._loop = loop
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._numbers: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._handle_number = 0

    def arm(self, timed: Timed, due: float) -> None:
        """Wake ``timed`` at ``due``; a timer that was armed for another time moves."""
        buckets, resolution = self._buckets, self.resolution
        if timed.due != inf:  # as ``cancel``
            bucket = buckets.get(int(timed.due / resolution) + 1)
            if bucket is not None:
                bucket.pop(timed, None)
        if due - self.clock() > _FAR:
            due = ceil(due / _COARSE) * _COARSE
        timed.due = due
        number = int(due / resolution) + 1
        bucket = buckets.get(number)
        if bucket is None:
            buckets[number] = {timed: None}
            heappush(self._numbers, number)
            if self._handle is None or number < self._handle_number:
                self._schedule(number)
        else:
            bucket[timed] = None

    def cancel(self, timed: Timed) -> None:
        """Forget ``timed``; nothing happens if it is not armed."""
        if timed.due == inf:
            return
        bucket = self._buckets.get(int(timed.due / self.resolution) + 1)
        if bucket is not None:
            bucket.pop(timed, None)
        timed.due = inf

    def call_in(self, delay: float, function: Callable[[], None]) -> Callback:
        """Call ``function`` once in ``delay`` seconds; cancel with the returned timer."""
        timer = Callback(function)
        self.arm(timer, self.clock() + delay)
        return timer

    def advance(self) -> None:
        """Wake all that is due by the clock. The loop calls it; tests with a clock of their own may."""
        self._handle = None
        now = self.clock()
        reached = int(now / self.resolution)
        numbers = self._numbers
        while numbers and numbers[0] <= reached:
            for timed in self._buckets.pop(heappop(numbers)):
                if timed.due <= now:  # not cancelled or moved by a timer of the same bucket
                    timed.due = inf
                    try:
                        timed.on_timer(now)
                    except Exception as error:  # one that fails must not keep all others asleep
                        message = f"timer failed: {timed!r}"
                        self._loop.call_exception_handler({"message": message, "exception": error})
        if numbers and (self._handle is None or numbers[0] < self._handle_number):
            self._schedule(numbers[0])

    def close(self) -> None:
        """Stop waking anybody."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._buckets.clear()
        self._numbers.clear()

    def _schedule(self, number: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle_number = number
        self._handle = self._loop.call_later(max(0.0, number * self.resolution - self.clock()), self.advance)

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def __repr__(self) -> str:
        return f"<TimerWheel {len(self)} armed in {len(self._buckets)} buckets>"
