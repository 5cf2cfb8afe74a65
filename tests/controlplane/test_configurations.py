"""Configurations for `mizzen explain` are made while the control plane goes on with everything else."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from controlplane.model.proxy import Proxy
from controlplane.operator_routes import operator_routes
from controlplane.pilot.translator import Pilot
from controlplane.proxy_configuration import configuration_of, encoded_configuration
from controlplane.xds.hub import Hub
from controlplane.xds.rest import RestDiscovery
from controlplane.xds.session import Session
from tests.controlplane.pilot.mesh import change, mesh, proxy

_SERVICES = 300
_REPLICAS = 8
_CAPTURED: dict[str, Any] = {"INTERCEPTION_MODE": "REDIRECT", "SDS_AGENT": "true"}

_SERVICE = """
kind: ServiceEntry
metadata: shop/s{0}
spec:
  hosts: [s{0}.shop.example]
  addresses: [10.9.{1}.{2}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{name: http, number: 80, protocol: HTTP}}, {{name: tcp, number: 9000, protocol: TCP}}]
  endpoints: [{{address: 10.8.{1}.{2}}}]
---
kind: VirtualService
metadata: shop/s{0}
spec: {{hosts: [s{0}.shop.example], http: [{{route: [{{destination: {{host: s{0}.shop.example}}}}]}}]}}
"""


def _large() -> Pilot:
    return mesh("---".join(_SERVICE.format(number, number // 200, number % 200 + 1) for number in range(_SERVICES)))


def _replicas() -> list[Proxy]:
    return [
        proxy(f"r-{number}", "shop", labels={"app": "r"}, address=f"10.7.0.{number}", **_CAPTURED)
        for number in range(1, _REPLICAS + 1)
    ]


def _hub(pilot: Pilot, nodes: Iterable[Proxy]) -> Hub:
    async def send(message: bytes) -> None:
        raise AssertionError("nothing was subscribed to")

    hub = Hub(pilot)
    for node in nodes:
        hub.sessions.add(Session(hub, node, None, send, incremental=True, confidential=True))
    return hub


async def _answer(hub: Hub, pilot: Pilot) -> Response:
    rest = RestDiscovery(hub, lambda node, identity: node)
    routes = operator_routes(hub, pilot, rest, dict, list)
    route = next(one for one in routes if one.path == "/mizzen/v1/configurations")
    scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"namespace=shop&name=r"}
    answer: Response = await route.endpoint(Request(scope))
    return answer


class _Turns:
    """The longest turn of the event loop, in seconds of its own thread's time: others on the machine, and waiting for other
    threads, do not count.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.number = 0
        self._last = time.thread_time()
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self.number += 1
        self._last = now
        self._next = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._next.cancel()


@pytest.fixture(autouse=True)
def _without_collections() -> Iterator[None]:
    """The collector would go through what other tests have left, in whichever turn it likes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _asked(hub: Hub, pilot: Pilot) -> tuple[list[Any], _Turns]:
    async def ask() -> tuple[Response, _Turns]:
        turns = _Turns()
        answer = await _answer(hub, pilot)
        turns.stop()
        return answer, turns

    answer, turns = asyncio.run(ask())
    found = json.loads(answer.body)
    assert [one["proxy"] for one in found] == sorted(session.proxy.id for session in hub.sessions)
    return found, turns


def test_the_loop_goes_on_meanwhile() -> None:
    pilot = _large()
    hub = _hub(pilot, _replicas())
    _asked(hub, pilot)  # what proxies have been sent is kept
    found, turns = _asked(hub, pilot)
    nodes = sorted(_replicas(), key=lambda node: node.id)
    begun = time.thread_time()
    at_once = [configuration_of(pilot, node) for node in nodes]
    took = time.thread_time() - begun
    assert found == at_once
    assert turns.longest < took / 10, (turns.longest, took)


def test_what_is_not_kept_yet_is_generated_in_slices() -> None:
    pilot = _large()
    nodes = _replicas()[:1]
    configuration_of(mesh(_SERVICE.format(0, 0, 1)), nodes[0])  # what is made once for all
    begun = time.thread_time()
    configuration_of(pilot, nodes[0])
    took = time.thread_time() - begun
    again = _large()
    _, turns = _asked(_hub(again, nodes), again)
    assert turns.longest < took * 2 / 3, (turns.longest, took)


def test_a_configuration_is_of_one_mesh() -> None:
    """The mesh changes while it is generated: listeners, routes, clusters and endpoints are all those after the change."""
    pilot = mesh(_SERVICE.format(1, 0, 1))
    node = _replicas()[0]

    async def ask() -> bytes:
        asked = asyncio.create_task(encoded_configuration(pilot, node))
        await asyncio.sleep(0)
        change(pilot, _SERVICE.format(2, 0, 2))
        return await asked

    made = json.loads(asyncio.run(ask()))
    assert made == configuration_of(pilot, node)
    assert b"outbound|80||s2.shop.example" in base64.b64decode(made["bootstrap"])
