"""Connection managers that come and go while a route configuration is taken, bit by bit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from google.protobuf.any_pb2 import Any as Packed

from sidecar.core.discovery import DiscoveredResource
from sidecar.core.pace import Pace
from sidecar.xds.apply.routes import RouteWatcher

CONFIG = SimpleNamespace(name="routes")
RESOURCE = DiscoveredResource("routes", "1", Packed(type_url="type.googleapis.com/routes", value=b"1"))


class Routes:
    """The routes of a connection manager: three, each a step of its own. ``at_step``: what happens meanwhile."""

    def __init__(self, at_step: dict[int, Any] | None = None) -> None:
        self.at_step = at_step or {}
        self.gone = False
        self.taken: list[Any] = []

    def compile(self, config: Any) -> Any:
        return SimpleNamespace(routes=(1, 2, 3))

    def steps(self, routes: tuple[Any, ...]) -> Iterable[tuple[Any, ...]]:
        return [(route,) for route in routes]

    def fit(self, routes: Iterable[Any]) -> None:
        for route in routes:
            self.at_step.get(route, lambda: None)()

    def check(self, routes: Iterable[Any]) -> None:
        assert not self.gone or not list(routes), "there are no filters to ask any more"

    def take(self, config: Any, table: Any) -> None:
        assert not self.gone
        self.taken.append(config)


async def judged(*_: Any) -> Any:
    return CONFIG


def watcher() -> RouteWatcher:
    """Whose every step is behind everything else that is to be done."""
    judge: Any = SimpleNamespace(judge=judged)
    counters: Any = SimpleNamespace(config_reload=0, config_reload_time_ms=0, update_empty=0)
    return RouteWatcher("routes", judge, Pace(itertools.count(0.0, 1.0).__next__), counters, lambda: 0.0)


def test_a_manager_that_ends_meanwhile_refuses_nothing() -> None:
    async def scenario() -> None:
        watched = watcher()
        stays = Routes()

        def end() -> None:
            watched.leave(leaves)
            asyncio.get_running_loop().call_soon(setattr, leaves, "gone", True)

        leaves = Routes({2: end})
        watched.join(leaves)
        watched.join(stays)
        assert await watched.on_update([RESOURCE], [], "1", whole=True) == ()
        assert (stays.taken, leaves.taken) == ([CONFIG], [])

    asyncio.run(scenario())


def test_a_manager_that_ends_while_it_begins_refuses_nothing() -> None:
    async def scenario() -> None:
        watched = watcher()
        first = Routes()
        watched.join(first)
        await watched.on_update([RESOURCE], [], "1", whole=True)

        def end() -> None:
            watched.leave(second)
            asyncio.get_running_loop().call_soon(setattr, second, "gone", True)

        second = Routes({1: end})
        watched.join(second)
        there: list[bool] = []
        await watched.begin(second, lambda: there.append(True))
        assert second.taken == []

    asyncio.run(scenario())


def test_a_manager_that_comes_meanwhile_takes_the_same_routes() -> None:
    async def scenario() -> None:
        watched = watcher()
        second = Routes()
        first = Routes({2: lambda: watched.join(second)})
        watched.join(first)
        await watched.on_update([RESOURCE], [], "1", whole=True)
        assert first.taken == second.taken == [CONFIG]

    asyncio.run(scenario())
