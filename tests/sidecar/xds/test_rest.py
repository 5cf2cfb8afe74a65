"""Resources over REST: the request, what is applied, what happens when the server is away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from sidecar.config.config_source import ApiConfigSource, ConfigSource
from sidecar.telemetry.groups.server import SubscriptionStats
from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT
from tests.sidecar.tls_bootstraps import until
from tests.sidecar.xds.subjects import Watcher, discovering, subscribe

Answer = tuple[int, str]


@asynccontextmanager
async def rest(answer: Callable[[dict[str, Any]], Answer]) -> AsyncIterator[tuple[int, list[Any]]]:
    """A server that answers all questions so: its port, and the paths and bodies that it has seen."""
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append((request.path, request.content_type, body))
        status, text = answer(body)
        return web.Response(status=status, text=text, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        await runner.cleanup()


def text(version: str, *names: str, type_url: str = CLUSTER, field: str = "name") -> str:
    return json.dumps({"version_info": version, "resources": [{"@type": type_url, field: name} for name in names]})


def source(delay: float = 0.01) -> ConfigSource:
    return ConfigSource(ApiConfigSource("REST", None, "xds", delay, 1.0), 15.0)


async def test_the_server_is_asked_again_with_the_version_that_was_accepted() -> None:
    answers: list[Answer] = [(200, text("1", "a")), (304, ""), (503, ""), (200, "{"), (200, text("2", "bad", "b"))]

    def answer(body: dict[str, Any]) -> Answer:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async with rest(answer) as (port, seen), discovering(port, http2=False) as discovery:
        watcher, stats = Watcher({"bad": "is bad"}), SubscriptionStats()
        subscribe(discovery, CLUSTER, None, watcher, source(), stats)
        await until(lambda: watcher.world == {"a": "1"})
        await until(lambda: watcher.world == {"b": "2"}, 20)
        path, content_type, body = seen[0]
        assert (path, content_type) == ("/v3/discovery:clusters", "application/json")
        assert body["node"]["id"] == "it"
        assert body["node"]["metadata"] == {"NAMESPACE": "shop"}
        assert "version_info" not in body
        assert [one[2].get("version_info") for one in seen[1:5]] == ["1", "1", "1", "1"]
        assert stats.update_success == 1
        assert stats.update_failure == 1
        assert stats.update_rejected >= 2


async def test_names_are_asked_for() -> None:
    kind = CLUSTER_LOAD_ASSIGNMENT
    async with (
        rest(lambda body: (200, text("1", *body["resource_names"], type_url=kind, field="cluster_name"))) as (
            port,
            seen,
        ),
        discovering(port, http2=False) as discovery,
    ):
        watcher = Watcher()
        subscription = subscribe(discovery, kind, ["b", "a"], watcher, source(100.0))
        await until(lambda: watcher.world == {"a": "1", "b": "1"})
        assert seen[0][2]["resource_names"] == ["a", "b"]
        subscription.update_names(["c"])
        await until(lambda: "c" in watcher.world)
        assert seen[1][0] == "/v3/discovery:endpoints"
