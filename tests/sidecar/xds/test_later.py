"""What comes later meets what is the case already: load, and clusters that look at responses."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.server import Server
from tests.sidecar.tls_bootstraps import upstream
from tests.sidecar.xds.driving import ADS, DYNAMIC, XDS_CLUSTER, HandDriven, assignment, drive
from tests.sidecar.xds.test_clusters import eds
from tests.sidecar.xds.test_listeners import Client, Sidecar, chain, free_port, get, inline, listener, routes

MONITOR = "envoy.resource_monitors.injected_resource"
CONFIG = "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig"


class Pressed(Sidecar):
    """One whose load is what a file says."""

    def __init__(self, driven: HandDriven, file: Path, *actions: str) -> None:
        Sidecar.__init__(self, driven)
        self.file = file
        triggers = [{"name": MONITOR, "threshold": {"value": 0.9}}]
        file.write_text("0")
        self.server = Server(
            {
                "static_resources": {"clusters": [XDS_CLUSTER]},
                "node": {"id": "it", "cluster": "us"},
                "dynamic_resources": {**DYNAMIC, "lds_config": ADS},
                "overload_manager": {
                    "refresh_interval": "0.01s",
                    "resource_monitors": [{"name": MONITOR, "typed_config": {"@type": CONFIG, "filename": str(file)}}],
                    "actions": [{"name": action, "triggers": triggers} for action in actions],
                },
            },
            drain_time=0.2,
        )

    async def press(self, pressure: str) -> None:
        """Wait until actions follow."""
        new = self.file.with_suffix(".new")
        new.write_text(pressure)
        os.replace(new, self.file)
        wanted = float(pressure) > 0.9
        async with asyncio.timeout(5):
            while any(bool(one.scale) is not wanted for one in self.stack.overload.manager.actions):
                await asyncio.sleep(0.005)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> HandDriven:
    return drive(monkeypatch)


async def test_requests_to_a_later_listener_are_refused_under_load(driven: HandDriven, tmp_path: Path) -> None:
    port = free_port()
    async with Pressed(driven, tmp_path / "pressure", "envoy.overload_actions.stop_accepting_requests") as sidecar:
        await sidecar.starting
        await sidecar.press("0.95")
        await driven.send("Listener", {"a": listener("a", port, chain(inline("one")))})
        assert (await get(port))[0] == 503
        await driven.send("Listener", {"a": listener("a", port, chain(inline("two")))}, "2")  # in place
        assert (await get(port))[0] == 503
        await sidecar.press("0.1")
        assert await get(port) == (200, "two")


async def test_connections_to_a_later_listener_wait_under_load(driven: HandDriven, tmp_path: Path) -> None:
    port = free_port()
    async with Pressed(driven, tmp_path / "pressure", "envoy.overload_actions.stop_accepting_connections") as sidecar:
        await sidecar.starting
        await sidecar.press("0.95")
        await driven.send("Listener", {"a": listener("a", port, chain(inline("one")))})
        client = await Client.to(port)
        answer = asyncio.create_task(client.get())
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not answer.done()
        await sidecar.press("0.1")
        assert await answer == (200, "one")
        client.close()


async def test_a_later_cluster_that_checks_health_hears_of_hosts_that_fail(driven: HandDriven) -> None:
    port = free_port()
    route: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "a"}}
    table = {
        "name": "r",
        "validate_clusters": False,
        "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}],
    }
    check = {"timeout": "1s", "interval": "9s", "unhealthy_threshold": 2, "healthy_threshold": 1,
             "http_health_check": {"path": "/health"}}  # fmt: skip
    async with upstream() as backend, Sidecar(driven, listener("a", port, chain({"route_config": table}))) as sidecar:
        await sidecar.starting
        stack = sidecar.stack
        assert stack.bootstrap.dynamic_resources is not None
        source: Any = stack.bootstrap.dynamic_resources.lds_config
        discovering = asyncio.create_task(stack.xds.discover_clusters(source))
        await asyncio.sleep(0)
        client = await Client.to(port)
        for _ in range(4):  # the express lane has seen it
            assert (await client.get())[0] == 503
        await driven.send("Cluster", [eds("a", health_checks=[check])])
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", backend.port)})
        async with asyncio.timeout(5):
            await discovering
        assert (await client.get())[0] == 200
        (routes,) = stack.routed.values()
        assert all(one.upstream_request.attentive for one in routes.table.routes)
        client.close()


async def test_what_stands_in_the_bootstrap_may_be_discovered_in_part(driven: HandDriven) -> None:
    port = free_port()
    table = {"rds": {"route_config_name": "r", "config_source": ADS}}
    server = Server(
        {
            "static_resources": {
                "clusters": [XDS_CLUSTER, eds("a")],
                "listeners": [listener("static", port, chain(table))],
            },
            "node": {"id": "it", "cluster": "us"},
            "dynamic_resources": DYNAMIC,
        }
    )
    starting = asyncio.create_task(server.start())
    try:
        async with asyncio.timeout(5):
            while not driven.wanted("ClusterLoadAssignment"):
                await asyncio.sleep(0)
            await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1)})
            while not driven.wanted("RouteConfiguration"):
                await asyncio.sleep(0)
            assert not starting.done()
            await driven.send("RouteConfiguration", {"r": routes("r", "one")})
            await starting
        assert await get(port) == (200, "one")
        await driven.send("RouteConfiguration", {"r": routes("r", "two")}, "2")
        assert await get(port) == (200, "two")
    finally:
        await server.stop()
