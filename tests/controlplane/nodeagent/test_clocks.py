"""Somebody sets the clock of a node whose agent runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from controlplane.nodeagent.agent import Agent
from controlplane.nodeagent.renewal import Now, read_clocks
from tests.controlplane.nodeagent.node import node


class Clocks:
    """Those of this machine, the wall's set by so many seconds, and more time gone by."""

    def __init__(self) -> None:
        self.set = 0.0
        self.gone = 0.0

    def __call__(self) -> Now:
        now = read_clocks()
        return Now(now.wall + self.set + self.gone, now.steady + self.gone)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(what)


def test_clocks_that_jump(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        one.join("reviews", lifetime=3600)
        clocks = Clocks()

        async def main() -> None:
            agent = Agent(one.identities, one.sockets, clocks=clocks, interval=0.1)
            await agent.start()
            running = asyncio.create_task(agent.run())
            try:
                await asyncio.sleep(0.3)
                workload = agent.workloads["shop/reviews"]
                first = workload.svid.serial
                assert workload.is_good

                clocks.set = 2000.0  # forward, beyond half of its life: renewed at once
                await eventually(lambda: workload.svid.serial != first, "it was renewed")
                assert workload.is_good
                jumps = agent.metrics.registry.get_sample_value("mizzen_agent_clock_jumps_total")
                assert jumps is not None and jumps >= 1

                clocks.set = 20_000.0  # beyond its end, and that of what the control plane gives: nothing is served
                await eventually(lambda: not workload.is_good, "it is over by the wall's clock")
                assert "ended" in workload.current.material.reason
                assert agent.complaints()

                clocks.set = 0.0  # set right: what the control plane gives is good again
                await eventually(lambda: workload.is_good, "it has recovered by itself")
                assert not agent.complaints()

                second = workload.svid.serial
                clocks.gone, clocks.set = 2000.0, -90_000.0  # time has passed, the wall's clock is set back
                await eventually(lambda: workload.svid.serial != second, "it was renewed by the other clock")
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await agent.stop()

        asyncio.run(main())
