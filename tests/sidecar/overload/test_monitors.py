"""What is watched, with what it reads handed in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.overload.monitors import AcceptQueue, CpuUtilization, InjectedResource, Share, processor_times


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


class Queue:
    def __init__(self) -> None:
        self.now = 0.0
        self.waiting = 0
        self.taken = 0

    def monitor(self) -> AcceptQueue:
        return AcceptQueue(lambda: self.waiting, lambda: self.taken, lambda: self.now, 0.5)


def test_connections_wait_as_long_as_it_takes_to_accept_those_before_them() -> None:
    queue = Queue()
    monitor = queue.monitor()
    queue.now, queue.taken, queue.waiting = 0.1, 100, 250  # a thousand a second: a quarter of one for the last
    assert monitor.pressure() == pytest.approx(0.5)
    queue.now, queue.taken, queue.waiting = 0.2, 200, 0
    assert monitor.pressure() == 0.0
    queue.now, queue.waiting = 0.3, 10
    assert monitor.pressure() == 1.0  # none was accepted
