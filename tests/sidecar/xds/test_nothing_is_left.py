"""What was replaced or removed goes away by itself: the collector may not look at it, and need not."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest

from sidecar.server import Server
from tests.sidecar.xds.driving import ADS, DYNAMIC, XDS_CLUSTER, assignment, drive
from tests.sidecar.xds.test_clusters import eds
from tests.sidecar.xds.test_listeners import chain, free_port, get, listener, rds, routes

_OURS = ("Cluster", "EndpointDiscovery", "Host", "Listener", "ConnectionManager", "ManagerRoutes", "RouteTable", "Route",
         "RouteConfiguration", "Router", "FilterChain", "ExpressLane", "OutlierDetector", "HealthChecker")  # fmt: skip


async def test_nothing_is_left_of_what_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    driven = drive(monkeypatch)
    server = Server(
        {
            "static_resources": {"clusters": [XDS_CLUSTER]},
            "node": {"id": "it", "cluster": "us"},
            "dynamic_resources": {**DYNAMIC, "cds_config": ADS, "lds_config": ADS},
        },
        drain_time=0.05,
    )
    starting = asyncio.create_task(server.start())
    while not driven.interests:
        await asyncio.sleep(0)
    await driven.send("Cluster", [])
    while len(driven.interests) < 2:
        await asyncio.sleep(0)
    await driven.send("Listener", [])
    await starting
    port = free_port()
    check = {
        "timeout": "1s",
        "interval": "9s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "tcp_health_check": {},
    }
    gc.collect()
    gc.disable()
    try:
        before = Counter(type(one).__name__ for one in gc.get_objects() if type(one).__name__ in _OURS)
        for number in range(1, 4):
            more = {"health_checks": [check], "outlier_detection": {}} if number == 2 else {}
            await driven.send("Cluster", [eds("a", connect_timeout=f"{number}s", **more)])
            await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1, 2)})
            # another prefix in statistics makes another listener, another action at one route changes it in place
            replaced = listener("l", port, chain(rds("r")), stat_prefix=f"x{number // 2}")
            await driven.send("Listener", [replaced])
            await driven.send("RouteConfiguration", {"r": routes("r", f"answer {number}")})
            async with asyncio.timeout(5):
                while not server.stack or not server.stack.listeners:
                    await asyncio.sleep(0.01)
            assert await get(port) == (200, f"answer {number}")
        await driven.send("Cluster", [])
        await driven.send("Listener", [])
        async with asyncio.timeout(10):
            while True:
                left = Counter(type(one).__name__ for one in gc.get_objects() if type(one).__name__ in _OURS)
                if left <= before:
                    break
                await asyncio.sleep(0.1)
    finally:
        gc.enable()
        await server.stop()
