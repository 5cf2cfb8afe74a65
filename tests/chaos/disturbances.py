"""What happens to the test bed. Each disturbance ends as it found things, and says which failures it excuses."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple

from tests.chaos.bed import Bed, ServiceProcess


class Disturbance(NamedTuple):
    """``cause`` disturbs for about so many seconds. ``excused`` are the outcomes that requests may have meanwhile, with the
    retries that our control plane configures or without a word about them.
    """

    cause: Callable[[Bed, Random, float], Awaitable[None]]
    excused: frozenset[str]


def _one(bed: Bed, random: Random) -> ServiceProcess:
    return random.choice(bed.services)


async def _kill(bed: Bed, random: Random, seconds: float) -> None:
    service = _one(bed, random)
    service.send(signal.SIGKILL)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(service.leave)
    await asyncio.to_thread(service.start)


async def _stop(bed: Bed, random: Random, seconds: float) -> None:
    service = _one(bed, random)
    service.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    service.send(signal.SIGCONT)


def _behaving(mode: str) -> Callable[[Bed, Random, float], Awaitable[None]]:
    async def behave(bed: Bed, random: Random, seconds: float) -> None:
        service = _one(bed, random)
        service.behave(mode)
        await asyncio.sleep(seconds)
        service.behave("well")

    return behave


async def restart_services(bed: Bed, random: Random, seconds: float) -> None:
    """One after the other, each with a drain."""
    for service in bed.services:
        service.send(signal.SIGTERM)
        status = await asyncio.to_thread(service.process.end)
        assert status == 0, service.process.output
        await asyncio.to_thread(service.leave)
        await asyncio.to_thread(service.start)


async def restart_sidecar(bed: Bed, random: Random, seconds: float) -> None:
    """A hot restart, to the end of the old process."""
    workers = "--concurrency" in bed.options
    drained = bed.sidecar.output.count("ended: no connection is left")
    bed.sidecar.send(signal.SIGHUP)
    await bed.reaches("ended: no connection is left", drained + (2 if workers else 1))


async def _stall_sidecar(bed: Bed, random: Random, seconds: float) -> None:
    """The sidecar itself gets no time, as on a machine that is overcommitted or was suspended."""
    pids = bed.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(min(seconds, 1.5))
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


_CUT_OFF = frozenset(("503", "cut"))

DISTURBANCES = {
    "kill": Disturbance(_kill, _CUT_OFF | {"502", "504"}),
    "stop": Disturbance(_stop, frozenset(("503", "504"))),
    "slow": Disturbance(_behaving("slow"), frozenset()),
    "half": Disturbance(_behaving("half"), _CUT_OFF | {"502"}),
    "wrong": Disturbance(_behaving("wrong"), _CUT_OFF | {"502"}),
    "reset": Disturbance(_behaving("reset"), _CUT_OFF),
    "refuse": Disturbance(_behaving("refuse"), frozenset(("503",))),
    "stall": Disturbance(_stall_sidecar, frozenset()),
    "restart-services": Disturbance(restart_services, frozenset()),
    "restart-sidecar": Disturbance(restart_sidecar, frozenset()),
}
