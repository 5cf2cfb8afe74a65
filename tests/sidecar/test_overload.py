"""The overload manager in a running sidecar, while the pressure in a file changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.overload.defaults import most_connections
from sidecar.server import Server
from sidecar.telemetry.stats import Kind
from tests.sidecar.bootstraps import bootstrap, direct, http_listener

INJECTED = "envoy.resource_monitors.injected_resource"
CONFIG = "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Pressed:
    """A sidecar that follows a file."""

    def __init__(self, server: Server, file: Path) -> None:
        self.server = server
        self.file = file

    def stat(self, name: str) -> int:
        assert self.server.stack is not None
        found: dict[str, Any] = {}
        for group in self.server.stack.scraped_store():
            found.update(group.samples(Kind.COUNTER, Kind.GAUGE))
        return int(found[name])

    async def press(self, pressure: float, action: str) -> None:
        """Change the pressure, and wait until the action follows."""
        new = self.file.with_suffix(".new")
        new.write_text(str(pressure))
        os.replace(new, self.file)
        async with asyncio.timeout(5):
            while self.stat(f"overload.{action}.scale_percent") != (100 if pressure > 0.9 else 0):
                await asyncio.sleep(0.005)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.server.address("in"))


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The head of the response to a request, or nothing if the connection is closed instead."""
    writer.write(GET)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return head


def pressed(directory: Path, action: str, test: Callable[[Pressed], Awaitable[None]], **fields: Any) -> None:
    """Run a test with one action at a pressure of 0.9."""
    file = directory / "pressure"
    file.write_text("0")

    async def main() -> None:
        config = bootstrap(http_listener("in", 0, [direct("hello")], **fields.pop("manager", {})))
        triggers = [{"name": INJECTED, "threshold": {"value": 0.9}}]
        config["overload_manager"] = {
            "refresh_interval": "0.01s",
            "resource_monitors": [{"name": INJECTED, "typed_config": {"@type": CONFIG, "filename": str(file)}}],
            "actions": [{"name": action, "triggers": triggers, **fields}],
            "buffer_factory_config": {"minimum_account_to_track_power_of_two": 10},
        }
        async with Server(config) as server:
            await test(Pressed(server, file))

    asyncio.run(main())


def test_requests_are_refused_while_it_lasts(tmp_path: Path) -> None:
    action = "envoy.overload_actions.stop_accepting_requests"

    async def test(sidecar: Pressed) -> None:
        client = await sidecar.connect()
        for pressure, status in ((0.0, b"200"), (0.95, b"503"), (0.1, b"200")):
            await sidecar.press(pressure, action)
            assert (await ask(*client)).startswith(b"HTTP/1.1 " + status)
        assert sidecar.stat("http.in.downstream_rq_overload_close") == 1
        assert sidecar.stat(f"overload.{action}.active") == 0
        assert sidecar.stat(f"overload.{INJECTED}.pressure") == 10
        client[1].close()

    pressed(tmp_path, action, test)


def test_connections_wait_while_it_lasts(tmp_path: Path) -> None:
    action = "envoy.overload_actions.stop_accepting_connections"

    async def test(sidecar: Pressed) -> None:
        known = await sidecar.connect()
        assert await ask(*known)
        await sidecar.press(0.95, action)
        assert await ask(*known)
        waiting = await sidecar.connect()
        answer = asyncio.ensure_future(ask(*waiting))
        assert await ask(*known)
        assert not answer.done()
        await sidecar.press(0.1, action)
        assert (await answer).startswith(b"HTTP/1.1 200")
        for _, writer in (known, waiting):
            writer.close()

    pressed(tmp_path, action, test)


def test_connections_are_rejected_while_it_lasts(tmp_path: Path) -> None:
    action = "envoy.overload_actions.reject_incoming_connections"

    async def test(sidecar: Pressed) -> None:
        await sidecar.press(0.95, action)
        turned_away = await sidecar.connect()
        assert await ask(*turned_away) == b""
        await sidecar.press(0.1, action)
        served = await sidecar.connect()
        assert await ask(*served)
        for _, writer in (turned_away, served):
            writer.close()

    pressed(tmp_path, action, test)


def test_reading_stops_while_it_lasts(tmp_path: Path) -> None:
    action = "mizzen.overload_actions.stop_reading"

    async def test(sidecar: Pressed) -> None:
        client = await sidecar.connect()
        assert await ask(*client)
        await sidecar.press(0.95, action)
        answer = asyncio.ensure_future(ask(*client))
        other = await sidecar.connect()  # accepted after it began, and so read until it is looked at again
        assert await ask(*other)
        assert not answer.done()
        await sidecar.press(0.1, action)
        assert (await answer).startswith(b"HTTP/1.1 200")
        for _, writer in (client, other):
            writer.close()

    pressed(tmp_path, action, test)


def test_idle_connections_end_while_it_lasts(tmp_path: Path) -> None:
    action = "envoy.overload_actions.reduce_timeouts"
    timers = {
        "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
        "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "0.05s"}],
    }

    async def test(sidecar: Pressed) -> None:
        client = await sidecar.connect()
        assert await ask(*client)
        await sidecar.press(0.95, action)
        async with asyncio.timeout(5):
            assert await client[0].read() == b""
        assert sidecar.stat("http.in.downstream_cx_idle_timeout") == 1
        client[1].close()

    pressed(tmp_path, action, test, typed_config=timers)


def test_without_a_configuration_there_is_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with Server(bootstrap(http_listener("in", 0, [direct("hello")]))) as server:
            assert server.stack is not None
            sidecar = Pressed(server, tmp_path)
            assert server.stack.global_limit.maximum == most_connections()
            pressures = server.stack.overload.manager.pressures
            async with asyncio.timeout(5):
                while not pressures:
                    await asyncio.sleep(0.01)
            assert 0 < pressures["envoy.resource_monitors.fixed_heap"] < 1
            actions = [action.name for action in server.stack.overload.manager.actions]
            assert "envoy.overload_actions.stop_accepting_connections" in actions
            assert all(sidecar.stat(f"overload.{name}.active") == 0 for name in actions)

    asyncio.run(main())


@pytest.mark.parametrize(("configured", "limit"), [(False, 7), (True, 5)])
def test_the_runtime_lowers_the_default_limit_and_gives_way_to_a_configured_one(configured: bool, limit: int) -> None:
    config = bootstrap(http_listener("in", 0, [direct("hello")]))
    layer = {"overload": {"global_downstream_max_connections": 7}}
    config["layered_runtime"] = {"layers": [{"name": "static", "static_layer": layer}]}
    if configured:
        kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
        typed = {"@type": f"type.googleapis.com/{kind}", "max_active_downstream_connections": 5}
        name = "envoy.resource_monitors.global_downstream_max_connections"
        config["overload_manager"] = {"resource_monitors": [{"name": name, "typed_config": typed}]}

    async def main() -> None:
        async with Server(config) as server:
            assert server.stack is not None
            assert server.stack.global_limit.maximum == limit

    asyncio.run(main())
