"""A hot restart hands over the sockets of listeners that were discovered, too."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import Process, get, is_free, until
from tests.sidecar.lifecycle.load import Load
from tests.sidecar.xds.beside import ServedWorld, bootstrap, free_port
from tests.sidecar.xds.test_listeners import chain, listener
from tests.sidecar.xds.test_under_load import Upstreams, by_rds, cluster, endpoints, table

STARTED = "all clusters initialised"


@pytest.fixture
def served() -> Iterator[tuple[ServedWorld, int]]:
    upstreams, port = Upstreams(), free_port()
    world = ServedWorld(
        {
            "cluster": {"a": cluster("a", 0)},
            "endpoints": {"a": endpoints("a", *upstreams.ports)},
            "routes": {"r": table("r", "a", 0)},
            "listener": {"l": listener("l", port, chain(by_rds("r")), enable_reuse_port=False)},
        }
    )
    yield world, port
    world.stop()
    upstreams.close()


def started(process: Process, count: int) -> None:
    until(lambda: process.output.count(STARTED) >= count or not process.running, f"{count} processes to start", 30)
    assert process.output.count(STARTED) >= count, process.output


async def test_nothing_is_lost(served: tuple[ServedWorld, int], tmp_path: Path) -> None:
    world, port = served
    admin = free_port()
    config = tmp_path / "bootstrap.json"
    config.write_text(json.dumps(bootstrap(world.world.port, admin, True)))
    options = ("--drain-time-s", "0.5", "--xds-state-dir", "")
    with Process("sidecar", "-c", str(config), *options) as process:
        await asyncio.to_thread(started, process, 1)
        load = Load(port, 10)
        await load.reach(100)
        process.send(signal.SIGHUP)
        await asyncio.to_thread(started, process, 2)
        async with asyncio.timeout(20):
            while "stopped" not in process.output:
                await asyncio.sleep(0.01)
        await load.reach(100)
        await load.end()
        assert load.lost == []
        assert load.asked_to_close >= 10  # each connection moved to the new process
        page: Any = json.loads((await asyncio.to_thread(get, admin, "/listeners?format=json"))[2])
        assert [one["name"] for one in page["listener_statuses"]] == ["l"]
        process.send(signal.SIGTERM)
        assert await asyncio.to_thread(process.end) == 0


async def test_several_workers_share_what_they_discover(served: tuple[ServedWorld, int], tmp_path: Path) -> None:
    world, port = served
    admin = free_port()
    config = tmp_path / "bootstrap.json"
    config.write_text(json.dumps(bootstrap(world.world.port, admin, False)))
    options = ("--concurrency", "2", "--drain-time-s", "0.5", "--xds-state-dir", "")
    with Process("sidecar", "-c", str(config), *options) as process:
        await asyncio.to_thread(until, lambda: "2 workers serve" in process.output, "two workers", 30)
        assert world.world.refused == {}
        load = Load(port, 10)
        await load.reach(50)
        process.send(signal.SIGHUP)
        await asyncio.to_thread(until, lambda: process.output.count(STARTED) >= 4, "two more workers", 30)
        await load.reach(50)
        second = free_port()
        added = {"m": listener("m", second, chain(by_rds("r")), enable_reuse_port=False)}
        await asyncio.to_thread(world.set, "listener", added)
        another = Load(second, 4)
        await another.reach(20)
        await asyncio.gather(load.end(), another.end())
        assert load.lost == another.lost == []
        await asyncio.to_thread(world.set, "listener", {}, ["m"])
        await asyncio.to_thread(until, lambda: is_free(second), "the address to be free")
        assert world.world.refused == {}
        process.send(signal.SIGTERM)
        assert await asyncio.to_thread(process.end) == 0
