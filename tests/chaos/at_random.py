"""Disturbances at random, one after the other and two at a time, under a seed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

from tests.chaos.bed import RETRIED, Bed, Report
from tests.chaos.disturbances import DISTURBANCES


async def at_random(folder: Path, seed: int, seconds: float) -> Report:
    """Disturb for so long. AssertionError for what must not happen, and for a failure that no disturbance excuses."""
    print(f"seed {seed}")
    random = Random(seed)
    bed = Bed(folder, seed, retry=random.choice((None, RETRIED)), options=random.choice(((), ("--concurrency", "2"))))
    until = time.monotonic() + seconds
    async with bed.running() as report:
        while time.monotonic() < until:
            names = random.sample(sorted(DISTURBANCES), random.choice((1, 1, 2)))
            if {"restart-sidecar", "stall"} <= set(names) or {"restart-services", "kill"} <= set(names):
                continue  # they would take each other's processes away
            before = dict(bed.clients.outcomes)
            await asyncio.gather(*(DISTURBANCES[name].cause(bed, random, random.uniform(0.2, 3.0)) for name in names))
            await bed.clients.recover(30.0)
            excused = frozenset[str]().union(*(DISTURBANCES[name].excused for name in names))
            new = {what: count - before.get(what, 0) for what, count in bed.clients.outcomes.items()}
            print(f"{'+'.join(names):34} { ({what: count for what, count in new.items() if count}) }")
            unexcused = {what: count for what, count in new.items() if count and what != "200" and what not in excused}
            failures = [one for one in bed.clients.failures if one.split()[0] in unexcused]
            assert not unexcused, (names, unexcused, failures[-10:])
    print(report)
    return report
