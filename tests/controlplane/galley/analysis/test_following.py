"""The analysis of a mesh that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.galley.analysis.following import Findings, FollowingAnalysis
from controlplane.model.parsing import parse
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.resource import Resource, ResourceKey
from tests.controlplane.model.documents import document


def _resource(kind: str, body: str) -> Resource:
    return parse(document(kind, body))


class _Told:
    def __init__(self) -> None:
        self.findings: list[Findings] = []
        self._news = asyncio.Event()

    def __call__(self, findings: Findings) -> None:
        self.findings.append(findings)
        self._news.set()

    async def until(self, right: Callable[[Findings], bool]) -> Findings:
        async with asyncio.timeout(10):
            while not self.findings or not right(self.findings[-1]):
                self._news.clear()
                await self._news.wait()
        return self.findings[-1]


def _codes(findings: Findings) -> set[str]:
    return {entry["type"]["code"] for entries in findings.values() for entry in entries}


async def _following(
    scenario: Callable[[dict[ResourceKey, Resource], FollowingAnalysis, _Told, list[Proxy]], Any],
) -> None:
    resources: dict[ResourceKey, Resource] = {}
    proxies: list[Proxy] = []
    told = _Told()
    analysis = FollowingAnalysis(resources, told, lambda: proxies, quiet=0.001)
    running = asyncio.create_task(analysis.run())
    try:
        await scenario(resources, analysis, told, proxies)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_what_is_found_follows_the_mesh() -> None:
    async def scenario(
        resources: dict[ResourceKey, Resource], analysis: FollowingAnalysis, told: _Told, proxies: list[Proxy]
    ) -> None:
        assert await told.until(lambda _: True) == {}
        rule = _resource("DestinationRule", "{host: reviews}")
        resources[rule.key] = rule
        analysis.changed()
        assert set(await told.until(bool)) == {rule.key} and _codes(told.findings[-1]) == {"IST0174"}
        service = _resource("Service", "{ports: [{name: http, port: 80}]}")
        renamed = parse(document("Service", "{ports: [{name: http, port: 80}]}", name="reviews"))
        resources |= {service.key: service, renamed.key: renamed}
        analysis.changed()
        assert await told.until(lambda findings: not findings) == {}

    asyncio.run(_following(scenario))


def test_proxies_that_connect_count() -> None:
    async def scenario(
        resources: dict[ResourceKey, Resource], analysis: FollowingAnalysis, told: _Told, proxies: list[Proxy]
    ) -> None:
        gateway = _resource(
            "Gateway",
            "{selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
        )
        resources[gateway.key] = gateway
        proxies.append(
            Proxy("router~10.0.0.9~x.shop~shop.svc", ProxyType.ROUTER, "shop", "x", "svc", labels={"a": "b"})
        )
        analysis.changed()
        assert _codes(await told.until(bool)) == {"IST0101"}
        proxies.append(
            Proxy("router~10.0.0.8~y.shop~shop.svc", ProxyType.ROUTER, "shop", "y", "svc", labels={"istio": "edge"})
        )
        analysis.changed()
        assert await told.until(lambda findings: not findings) == {}

    asyncio.run(_following(scenario))


def test_a_failure_is_logged_and_the_next_change_is_analysed(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(
        resources: dict[ResourceKey, Resource], analysis: FollowingAnalysis, told: _Told, proxies: list[Proxy]
    ) -> None:
        await told.until(lambda _: True)
        rule = _resource("DestinationRule", "{host: reviews}")
        resources[ResourceKey("Nothing", "", "x")] = None  # type: ignore[assignment]
        resources[rule.key] = Resource(rule.key, rule.metadata, object(), rule.document)
        analysis.changed()
        async with asyncio.timeout(10):
            while "the analysis failed" not in caplog.text:
                await asyncio.sleep(0.005)
        resources.clear()
        resources[rule.key] = rule
        analysis.changed()
        assert _codes(await told.until(bool)) == {"IST0174"}

    asyncio.run(_following(scenario))
