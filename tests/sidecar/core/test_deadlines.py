"""One timer for all handshakes of a configuration: each ends at its own deadline, and none is forgotten."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from sidecar.core.deadlines import Deadlines
from sidecar.core.worker import Worker


class Handshake:
    """Notes that it expired; ``error`` is then raised."""

    def __init__(self, expired: list[Handshake], error: Exception | None = None) -> None:
        self.expired = expired
        self.error = error

    def expire(self) -> None:
        self.expired.append(self)
        if self.error is not None:
            raise self.error


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def deadlines(timeout: float) -> tuple[Deadlines, Clock, Worker]:
    clock = Clock()
    worker = Worker(asyncio.new_event_loop(), clock)
    return Deadlines(worker, timeout), clock, worker


def test_each_expires_at_its_own_deadline() -> None:
    waiting, clock, worker = deadlines(10.0)
    expired: list[Handshake] = []
    first, second, third = (Handshake(expired) for _ in range(3))
    waiting.begin(first)
    clock.now += 4
    waiting.begin(second)
    waiting.begin(third)
    clock.now += 5.9
    worker.wheel.advance()
    assert expired == []
    clock.now += 0.2
    worker.wheel.advance()
    assert expired == [first]
    waiting.end(second)
    clock.now += 4
    worker.wheel.advance()
    assert expired == [first, third]
    assert waiting.due == inf and not waiting.waiting
    waiting.begin(second)
    clock.now += 10.1
    worker.wheel.advance()
    assert expired == [first, third, second]
    worker.loop.close()


def test_who_was_in_time_leaves_nothing_and_costs_no_timer_each() -> None:
    waiting, _, worker = deadlines(10.0)
    for _ in range(1000):
        one = Handshake([])
        waiting.begin(one)
        waiting.end(one)
        waiting.end(one)
    assert not waiting.waiting
    assert len(worker.wheel) == 1
    worker.loop.close()


def test_one_that_fails_keeps_none_of_the_others_waiting() -> None:
    waiting, clock, worker = deadlines(10.0)
    expired: list[Handshake] = []
    failing, other = Handshake(expired, RuntimeError("failed")), Handshake(expired)
    waiting.begin(failing)
    waiting.begin(other)
    clock.now += 10.1
    with pytest.raises(RuntimeError):
        waiting.on_timer(clock.now)
    assert expired == [failing]
    assert waiting.due < inf
    worker.wheel.advance()
    assert expired == [failing, other]
    worker.loop.close()


def test_no_timeout_means_no_deadline() -> None:
    waiting, _, worker = deadlines(inf)
    waiting.begin(Handshake([]))
    assert not waiting.waiting and len(worker.wheel) == 0
    worker.loop.close()
