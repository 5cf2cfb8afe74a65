"""The microseconds by stage can be measured: in a process of its own, since the stack is made to dial nobody."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.running import REPOSITORY

_MEASURE = """
import asyncio
from benchmarks.stages import BARE, Path1, service_call

async def measure():
    path = Path1({configuration!r}, [service_call(number) for number in range(20)] + [BARE] * 20)
    halves = path.lane_halves(1)
    print(*halves)

asyncio.run(measure())
"""


@pytest.mark.parametrize("configuration", ["route_only", "mesh_filters"])
def test_both_halves_of_the_express_lane_are_measured(configuration: str) -> None:
    script = _MEASURE.format(configuration=configuration)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(0.1 < float(figure) < 10_000 for figure in done.stdout.split())
    assert len(done.stdout.split()) == 3
