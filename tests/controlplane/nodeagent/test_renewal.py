"""When a certificate is renewed, by two clocks that do not always agree."""

from __future__ import annotations

import random

import pytest

from controlplane.nodeagent.renewal import Now, Schedule, jumped

HOUR = 3600.0
START = Now(1_000_000.0, 500.0)


def later(seconds: float, wall: float = 0.0) -> Now:
    """So many seconds after START; the wall's clock was set by ``wall`` meanwhile."""
    return Now(START.wall + seconds + wall, START.steady + seconds)


def schedule(life: float = HOUR, seed: int = 1) -> Schedule:
    return Schedule(START.wall, START.wall + life, START, random.Random(seed).uniform)


def test_due_at_half_of_its_life_with_jitter() -> None:
    due = [schedule(seed=seed).until_due(START) for seed in range(200)]
    assert 0.45 * HOUR <= min(due) < 0.46 * HOUR and 0.54 * HOUR < max(due) <= 0.55 * HOUR
    assert len(set(due)) == 200


def test_half_is_of_the_life_since_it_was_issued() -> None:
    """Certificates are dated back for clocks that differ: one of five seconds must not be due at once."""
    assert 2.2 <= Schedule(START.wall, START.wall + 5, START).until_due(START) <= 2.8


def test_back_off_doubles_and_has_bounds() -> None:
    one = Schedule(START.wall, START.wall + 24 * HOUR, START, lambda low, high: high)
    pauses = [one.failed(later(12 * HOUR)) for _ in range(12)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    short = Schedule(START.wall, START.wall + 5, START, lambda low, high: high)
    assert [short.failed(later(3)) for _ in range(4)] == [0.25, 0.5, 0.5, 0.5]


def test_attempts_of_many_do_not_come_together() -> None:
    pauses = {schedule(seed=seed).failed(later(HOUR / 2)) for seed in range(100)}
    assert len(pauses) == 100 and min(pauses) >= 0.5 and max(pauses) <= 1


def test_after_a_failure_it_waits() -> None:
    one = schedule()
    now = later(0.6 * HOUR)
    assert one.until_due(now) < 0
    pause = one.failed(now)
    assert one.until_due(now) == pytest.approx(pause)
    assert one.until_due(later(0.6 * HOUR + pause + 0.1)) < 0
    one.failed(now)
    one.at_once()
    assert one.until_due(now) < 0


def test_it_ends_when_it_ends() -> None:
    one = schedule()
    assert not one.is_over(later(HOUR - 1)) and one.is_over(later(HOUR))
    assert one.left(later(HOUR - 10)) == pytest.approx(10)


def test_a_clock_that_is_set_back_makes_nothing_good_again() -> None:
    one = schedule()
    assert one.is_over(later(HOUR + 1, wall=-10 * HOUR))
    assert one.until_due(later(0.6 * HOUR, wall=-10 * HOUR)) < 0


def test_a_clock_that_is_set_forward_counts() -> None:
    one = schedule()
    assert one.until_due(later(1, wall=0.6 * HOUR)) < 0 and not one.is_over(later(1, wall=0.6 * HOUR))
    assert one.is_over(later(1, wall=2 * HOUR))


@pytest.mark.parametrize("by", [0, 3, -3])
def test_small_corrections_are_no_jumps(by: float) -> None:
    assert jumped(START, later(1, wall=by)) == 0


@pytest.mark.parametrize("by", [7200, -7200])
def test_jumps(by: float) -> None:
    assert jumped(START, later(1, wall=by)) == pytest.approx(by)
