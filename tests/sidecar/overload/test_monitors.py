"""What is watched, with what it reads handed in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.overload.monitors import CpuUtilization, InjectedResource, QueueWait, Share, Steadily, processor_times


def test_a_share_of_something() -> None:
    assert Share(lambda: 30, 120).pressure() == 0.25


def rewrite(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


def test_a_file_is_read_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "pressure"
    file.write_text("0.25\n")
    monitor = InjectedResource(str(file))
    assert monitor.pressure() == 0.25
    rewrite(file, "0.9")
    assert monitor.pressure() == 0.9
    file.unlink()
    assert monitor.pressure() == 0.9


@pytest.mark.parametrize("text", ["", "much", "1.1", "-0.1", "nan"])
def test_what_is_no_pressure_is_refused_until_it_is_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "pressure"
    file.write_text(text)
    monitor = InjectedResource(str(file))
    for _ in range(2):
        with pytest.raises(ValueError):
            monitor.pressure()
    rewrite(file, "0.5")
    assert monitor.pressure() == 0.5


def test_a_file_that_never_was(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        InjectedResource(str(tmp_path / "none")).pressure()


def test_processors_are_averaged() -> None:
    looks = iter([[0] * 5, [50, 0, 0, 40, 10], [50, 0, 0, 40, 10], [150, 0, 0, 40, 10]])
    monitor = CpuUtilization(lambda: next(looks))
    assert monitor.pressure() == pytest.approx(0.05 * 0.5)
    assert monitor.pressure() == pytest.approx(0.05 * 0.5)  # no time has passed
    assert monitor.pressure() == pytest.approx(0.05 * 0.5 + 0.05 * (1.0 - 0.025))


def test_the_systems_own_times_add_up() -> None:
    times = processor_times()
    assert len(times) >= 8
    assert sum(times) > 0


def test_what_is_over_by_the_next_look_does_not_count() -> None:
    looks = iter([0.9, 0.1, 0.8, 0.7, 0.9])
    monitor = Steadily(Share(lambda: next(looks), 1.0), 2)
    assert [monitor.pressure() for _ in range(5)] == [0.0, 0.1, 0.1, 0.7, 0.7]


def test_a_rush_does_not_count_either() -> None:
    monitor = Steadily(Share(lambda: 0.5, 1.0), 3)
    assert [monitor.pressure() for _ in range(4)] == [0.0, 0.0, 0.5, 0.5]


class Accepts:
    """What a queue's monitor looks at, every tenth of a second: a loop that is so late, and has accepted so many."""

    def __init__(self) -> None:
        self.now = 0.0
        self.late = 0.01
        self.waiting = 0
        self.accepted = 0
        self.asked = 0
        self.monitor = QueueWait(lambda: self.now, lambda: self.late, self.queued, lambda: self.accepted)

    def queued(self) -> int:
        self.asked += 1
        return self.waiting

    def look(self, accepted: int, waiting: int) -> float:
        self.now += 0.1
        self.accepted += accepted
        self.waiting = waiting
        return self.monitor.seconds()


def test_connections_wait_for_as_long_as_it_takes_to_accept_those_before_them() -> None:
    queue = Accepts()
    assert queue.look(100, 50) == 0.0  # nobody waited before: it is not known yet
    assert queue.look(20, 100) == pytest.approx(100 / 200)
    assert queue.look(40, 100) == pytest.approx(100 / 300)  # the mean of what was and what is
    assert queue.look(0, 300) == pytest.approx(1.0)  # accepting is paused
    assert queue.look(300, 0) == 0.0
    assert queue.look(1, 30) == pytest.approx(30 / 300)  # few came, and nobody waited: that says nothing
    assert queue.monitor.rate == pytest.approx(300)


def test_a_loop_that_is_never_late_does_not_ask_how_many_wait() -> None:
    queue = Accepts()
    queue.late = 0.0001
    assert queue.look(100, 50) == queue.look(100, 50) == 0.0
    assert queue.asked == 0
