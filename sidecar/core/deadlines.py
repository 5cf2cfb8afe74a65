"""Deadlines of many who all may take equally long (handshakes, first requests): one timer serves them all.

The wheel keeps the place of a timer that was cancelled until its time comes, so hours ahead it is not for every connection.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker


class Expires(Protocol):
    """Something that takes too long at its deadline; it may have been served since, and then knows."""

    def expire(self) -> None:
        """It is over."""


class Deadlines(Timed):
    """Those who began and have not ended, the oldest first; each has ``timeout`` seconds, which may be ``inf``.

    Most end long before: then the timer wakes once in a while for who is the oldest by then.
    """

    __slots__ = ("timeout", "waiting", "worker")

    def __init__(self, worker: Worker, timeout: float) -> None:
        self.due = inf
        self.worker = worker
        self.timeout = timeout
        self.waiting: dict[Expires, float] = {}

    def begin(self, one: Expires) -> None:
        """Its time runs from now on."""
        if self.timeout != inf:
            due = self.waiting[one] = self.worker.clock() + self.timeout
            if self.due == inf:
                self.worker.wheel.arm(self, due)

    def end(self, one: Expires) -> None:
        """It was in time; nothing happens if it never began."""
        self.waiting.pop(one, None)

    def on_timer(self, now: float) -> None:
        waiting = self.waiting
        try:
            while waiting and waiting[oldest := next(iter(waiting))] <= now:
                del waiting[oldest]
                oldest.expire()
        finally:
            if waiting and self.due == inf:
                self.worker.wheel.arm(self, waiting[next(iter(waiting))])

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self.waiting)}, {self.timeout:g} s each>"
