"""The timer wheel: nobody is woken early, twice or never."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.cork import AT_ONCE, Cork
from sidecar.core.timer_wheel import Timed, TimerWheel


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Sleeper(Timed):
    def __init__(self) -> None:
        self.due = inf
        self.woken: list[float] = []

    def on_timer(self, now: float) -> None:
        self.woken.append(now)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


PLANS = st.lists(st.tuples(st.floats(0, 2), st.none() | st.floats(0, 2)), max_size=30)


@given(PLANS, st.lists(st.floats(0, 0.5), max_size=20))
def test_everybody_is_woken_once_and_not_early(plans: list[tuple[float, float | None]], steps: list[float]) -> None:
    loop = asyncio.new_event_loop()
    clock = Clock()
    wheel = TimerWheel(loop, clock)
    sleepers = []
    for delay, moved in plans:
        sleeper = Sleeper()
        wheel.arm(sleeper, clock.now + delay)
        if moved is not None:
            wheel.arm(sleeper, clock.now + moved)
        sleepers.append((sleeper, clock.now + (delay if moved is None else moved)))
    assert len(wheel) == len(plans)
    for step in [*steps, 3.0]:
        clock.now += step
        wheel.advance()
        for sleeper, due in sleepers:
            assert all(woken >= due for woken in sleeper.woken)
            if clock.now >= due + wheel.resolution:
                assert len(sleeper.woken) == 1 and sleeper.due == inf
    assert len(wheel) == 0
    wheel.close()
    loop.close()


def test_cancelled_timers_sleep_on(loop: asyncio.AbstractEventLoop) -> None:
    clock = Clock()
    wheel = TimerWheel(loop, clock)
    sleeper = Sleeper()
    wheel.cancel(sleeper)
    wheel.arm(sleeper, 100.5)
    wheel.cancel(sleeper)
    wheel.cancel(sleeper)
    clock.now = 102.0
    wheel.advance()
    assert sleeper.woken == [] and sleeper.due == inf and len(wheel) == 0


def test_a_timer_may_cancel_or_move_another_of_its_bucket(loop: asyncio.AbstractEventLoop) -> None:
    clock = Clock()
    wheel = TimerWheel(loop, clock)
    victim, moved = Sleeper(), Sleeper()

    def act() -> None:
        wheel.cancel(victim)
        wheel.arm(moved, 105.0)

    wheel.call_in(1.0, act)
    wheel.arm(victim, 101.0)
    wheel.arm(moved, 101.0)
    clock.now = 101.1
    wheel.advance()
    assert victim.woken == [] and moved.woken == []
    clock.now = 105.1
    wheel.advance()
    assert moved.woken == [105.1]


def test_a_timer_that_fails_does_not_stop_the_others(loop: asyncio.AbstractEventLoop) -> None:
    clock = Clock()
    wheel = TimerWheel(loop, clock)
    problems: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))

    def fail() -> None:
        raise ValueError("no")

    same, later = Sleeper(), Sleeper()
    wheel.call_in(1.0, fail)
    wheel.arm(same, 101.0)
    wheel.arm(later, 101.5)
    clock.now = 102.0
    wheel.advance()
    assert same.woken == [102.0] and later.woken == [102.0]
    assert isinstance(problems[0]["exception"], ValueError)


def test_the_loop_drives_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = TimerWheel(loop, loop.time)
        order: list[int] = []
        done = asyncio.Event()
        wheel.call_in(0.03, lambda: order.append(3))
        wheel.call_in(0.01, lambda: order.append(1))
        wheel.call_in(0.02, lambda: order.append(2))
        wheel.call_in(0.04, done.set)
        await asyncio.wait_for(done.wait(), 2.0)
        assert order == [1, 2, 3]
        wheel.call_in(10.0, lambda: order.append(4))
        wheel.close()
        assert len(wheel) == 0

    asyncio.run(main())


class Corked:
    def __init__(self, cork: Cork, then: list[Corked] | None = None) -> None:
        self.cork = cork
        self.then = then or []
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1
        self.cork.waiting.extend(self.then)


def test_a_cork_flushes_also_what_flushing_brings() -> None:
    cork = Cork(asyncio.new_event_loop())
    last = Corked(cork)
    first = Corked(cork, [last])
    cork.waiting.append(first)
    cork.pull()
    assert (first.flushed, last.flushed, cork.waiting) == (1, 1, [])
    cork.loop.close()


def test_what_settles_is_flushed_at_the_end_of_the_turn_or_at_once_when_it_is_much() -> None:
    loop = asyncio.new_event_loop()
    cork = Cork(loop)
    one = Corked(cork)
    cork.waiting.append(one)
    cork.settle()
    assert one.flushed == 0
    loop.run_until_complete(asyncio.sleep(0))
    assert (one.flushed, cork.waiting) == (1, [])
    many = [Corked(cork) for _ in range(AT_ONCE)]
    cork.waiting.extend(many)
    cork.settle()
    assert [each.flushed for each in many] == [1] * AT_ONCE
    loop.close()


@given(st.lists(st.floats(0, 10_000), min_size=1, max_size=50))
def test_who_sleeps_long_is_woken_at_most_a_quarter_of_a_second_late(delays: list[float]) -> None:
    loop = asyncio.new_event_loop()
    clock = Clock()
    wheel = TimerWheel(loop, clock)
    began = clock.now
    sleepers = [Sleeper() for _ in delays]
    for sleeper, delay in zip(sleepers, delays, strict=True):
        wheel.arm(sleeper, began + delay)
    for sleeper, delay in zip(sleepers, delays, strict=True):
        wheel.cancel(sleeper)
        wheel.arm(sleeper, began + delay)
    assert len(wheel) == len(delays)
    for delay, sleeper in sorted(zip(delays, sleepers, strict=True), key=lambda pair: pair[0]):
        clock.now = max(clock.now, began + delay + (0.26 if delay > 10 else 0.01))
        wheel.advance()
        (woken,) = sleeper.woken
        assert began + delay <= woken
    loop.close()


def test_connections_that_come_and_go_leave_little_behind(loop: asyncio.AbstractEventLoop) -> None:
    clock = Clock()
    wheel = TimerWheel(loop, clock)
    for _ in range(20_000):  # a hundred seconds, with an hour's idle timeout each
        sleeper = Sleeper()
        wheel.arm(sleeper, clock.now + 3600.0)
        clock.now += 0.005
        wheel.cancel(sleeper)
    assert len(wheel._buckets) < 500
