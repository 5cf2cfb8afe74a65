"""One disturbance at a time, short: only what it excuses fails, everything recovers, nothing is lost, doubled or leaked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from tests.chaos.bed import MOST_GROWTH, RETRIED, Bed, Report, descriptors, resident
from tests.chaos.disturbances import DISTURBANCES, restart_services, restart_sidecar


def disturbed(bed: Bed, name: str, seconds: float) -> Report:
    disturbance = DISTURBANCES[name]

    async def run() -> Report:
        async with bed.running() as report:
            await disturbance.cause(bed, Random(bed.seed), seconds)
        return report

    report = uvloop.run(run())
    print(name, report)
    assert report.outcomes.keys() - {"200"} <= disturbance.excused, (name, report.failures)
    return report


@pytest.mark.parametrize("name", DISTURBANCES)
def test_each_for_a_moment(name: str, tmp_path: Path) -> None:
    report = disturbed(Bed(tmp_path, 1), name, 1.0)
    assert report.sent > 400


@pytest.mark.parametrize("name", ["kill", "reset", "restart-sidecar", "stall"])
def test_with_retries_and_two_workers(name: str, tmp_path: Path) -> None:
    disturbed(Bed(tmp_path, 2, retry=RETRIED, options=("--concurrency", "2")), name, 1.0)


def test_a_sidecar_that_is_stopped_again_and_again_turns_nobody_away(tmp_path: Path) -> None:
    """What got no time of the processor is late, and not overloaded: it has less to do than ever."""

    async def run() -> Report:
        bed = Bed(tmp_path, 9)
        async with bed.running() as report:
            for _ in range(5):
                await DISTURBANCES["stall"].cause(bed, Random(9), 0.6)
                await asyncio.sleep(0.06)  # shorter than the manager's interval: two of its looks in a row are late
            await bed.clients.recover()
        return report

    assert uvloop.run(run()).failed == 0


def test_a_full_disk_for_logs_costs_no_request(tmp_path: Path) -> None:
    async def run() -> Report:
        bed = Bed(tmp_path, 3, log="/dev/full")
        async with bed.running() as report:
            await bed.clients.reach(1000)
        return report

    assert uvloop.run(run()).failed == 0


def test_a_clock_that_jumps_costs_no_request(tmp_path: Path) -> None:
    """The wall clock: an hour back, a day on, a year on."""
    offset = tmp_path / "offset"
    offset.write_text("0")

    async def run() -> Report:
        bed = Bed(tmp_path, 4, module="tests.chaos.shifted_clock", environment={"OFFSET_FILE": str(offset)})
        async with bed.running() as report:
            for seconds in (-3600, 86400, 365 * 86400, 0):
                offset.write_text(str(seconds))
                await bed.clients.reach(300)
        return report

    assert uvloop.run(run()).failed == 0


def test_nothing_leaks_through_many_disturbances(tmp_path: Path) -> None:
    async def run() -> tuple[int, int, int]:
        bed = Bed(tmp_path, 5)
        async with bed.running():
            await bed.stats()
            for name in ("reset", "half", "wrong"):
                await DISTURBANCES[name].cause(bed, Random(5), 0.5)
            await bed.clients.recover()
            pid = bed.sidecar.child.pid
            before = resident(pid), descriptors(pid)
            for name in ("reset", "half", "wrong") * 2:
                await DISTURBANCES[name].cause(bed, Random(5), 0.5)
            await bed.clients.recover()
            return resident(pid) - before[0], descriptors(pid), before[1]

    growth, after, before = uvloop.run(run())
    assert growth < MOST_GROWTH
    assert after <= before + 8  # each client and each host may have a connection on its way


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [(), ("--concurrency", "2")], ids=["one", "two-workers"])
@pytest.mark.parametrize("retry", [None, RETRIED], ids=["defaults", "policy"])
def test_rolling_restarts_under_constant_load_lose_none_of_100_000(
    tmp_path: Path, options: tuple[str, ...], retry: dict[str, Any] | None
) -> None:
    """Of the sidecar and of all services, again and again: with defaults, and with what our control plane configures."""

    async def run() -> tuple[Report, int]:
        bed = Bed(tmp_path, 6, clients=16, pause=0.0, retry=retry, options=options)
        rounds = 0
        async with bed.running() as report:
            while bed.clients.sent < 100_000:
                await restart_sidecar(bed, Random(6), 0)
                await restart_services(bed, Random(6), 0)
                rounds += 1
        return report, rounds

    report, rounds = uvloop.run(run())
    print(f"{rounds} rounds: {report}")
    assert report.sent >= 100_000
    assert report.failed == 0, report.failures
    assert rounds >= 2


@pytest.mark.parametrize("retry", [None, RETRIED], ids=["defaults", "policy"])
def test_rolling_restarts_lose_nothing(tmp_path: Path, retry: dict[str, Any] | None) -> None:
    async def run() -> Report:
        bed = Bed(tmp_path, 7, clients=8, pause=0.0005, retry=retry)
        async with bed.running() as report:
            await restart_sidecar(bed, Random(7), 0)
            await restart_services(bed, Random(7), 0)
        return report

    report = uvloop.run(run())
    assert report.failed == 0, report.failures
    assert report.sent > 1000


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_minute_at_random(tmp_path: Path) -> None:
    from tests.chaos.at_random import at_random

    asyncio.run(at_random(tmp_path, seed=8, seconds=60.0))
