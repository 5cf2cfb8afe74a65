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


def test_connections_wait_for_as_many_turns_as_it_takes_to_accept_those_before_them() -> None:
    lag, turns = [0.1], [4.0]
    wait = QueueWait(lambda: lag[0], lambda: turns[0])
    assert wait.seconds() == pytest.approx(0.05 * 4)  # the mean of what was and what is
    assert wait.seconds() == pytest.approx(0.075 * 4)
    assert wait.lag == pytest.approx(0.075)
    turns[0] = 0.0
    assert wait.seconds() == 0.0


def test_a_loop_that_is_never_late_does_not_ask_how_many_wait() -> None:
    def turns() -> float:
        raise AssertionError("asked")

    assert QueueWait(lambda: 0.0001, turns).seconds() == 0.0
