"""A large configuration is applied in slices: the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.sidecar.xds.driving import HandDriven, assignment, drive, resource
from tests.sidecar.xds.test_clusters import eds
from tests.sidecar.xds.test_listeners import Sidecar, chain, free_port, get, listener, rds, routes

MOST = 0.020
"""Seconds of the loop's own time, which is more exact than the time that passes on a busy machine."""

CLUSTERS = 1000


class Loop:
    """Watches how long the loop's turns are."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.worst = 0.0
        self.last = time.thread_time()
        self.timer = self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.thread_time()
        self.worst = max(self.worst, now - self.last)
        self.last = now
        self.timer = self.loop.call_later(0.0005, self._turn)

    def stop(self) -> None:
        self.timer.cancel()


async def worst_of(work: Coroutine[Any, Any, object]) -> float:
    """The longest turn of the loop while something is done, in seconds."""
    gc.collect()
    gc.freeze()
    watched = Loop()
    await asyncio.sleep(0.01)
    watched.worst = 0.0
    rejections = await work
    await asyncio.sleep(0.01)
    watched.stop()
    assert not rejections
    return watched.worst


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> HandDriven:
    return drive(monkeypatch)


async def test_a_thousand_clusters_endpoints_and_routes(driven: HandDriven) -> None:
    port = free_port()
    sidecar = Sidecar(driven, listener("a", port, chain(rds("r"))))
    async with sidecar:
        await driven.send("RouteConfiguration", {"r": routes("r", "one")})
        await sidecar.starting
        xds = sidecar.stack.xds
        source: Any = xds.stack.bootstrap.dynamic_resources
        discovering = asyncio.create_task(xds.discover_clusters(source.lds_config))
        await asyncio.sleep(0)
        (cds,) = [one.watcher for one in driven.interests if one.type_name.endswith(".Cluster")]
        await cds.on_update(
            [resource("envoy.config.cluster.v3.Cluster", eds("first", outlier_detection={}))], [], "0", whole=True
        )
        names = [f"c{number}" for number in range(CLUSTERS)]
        clusters = [resource("envoy.config.cluster.v3.Cluster", eds(name, outlier_detection={})) for name in names]
        ports = range(1, 11)
        assignments = {
            name: resource("envoy.config.endpoint.v3.ClusterLoadAssignment", assignment(name, *ports)) for name in names
        }
        table = [{"match": {"prefix": f"/{name}/"}, "route": {"cluster": name, "timeout": "3s"}} for name in names]
        last = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "large"}}}
        large = {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [*table, last]}]}
        configuration = resource("envoy.config.route.v3.RouteConfiguration", large, "2")

        async def assign() -> None:
            for interest in list(driven.interests):
                (name, *_) = interest.names or ("",)
                if name in assignments:
                    assert not await interest.watcher.on_update([assignments[name]], [], "1", whole=False)

        (of_routes,) = [one.watcher for one in driven.interests if one.type_name.endswith("RouteConfiguration")]
        longest = {
            "clusters": await worst_of(cds.on_update(clusters, [], "1", whole=True)),
            "endpoints": await worst_of(assign()),
            "routes": await worst_of(of_routes.on_update([configuration], [], "2", whole=False)),
            "the same clusters": await worst_of(cds.on_update(clusters, [], "2", whole=True)),
            "no clusters": await worst_of(cds.on_update([], [], "3", whole=True)),
        }
        discovering.cancel()
        assert max(longest.values()) < MOST, longest
        assert await get(port) == (200, "large")
