"""Everything changes under load, and no request fails: clusters, endpoints, routes, filter chains, listeners."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.proxies import SIDECAR
from tests.sidecar.xds.beside import ADS, Managed, free_port, managed
from tests.sidecar.xds.test_listeners import chain, listener

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")

SECONDS = 3


class Upstreams:
    """Two HTTP servers in a thread; both answer everything."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.ports = [self._call(self._serve()) for _ in range(2)]

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    async def _serve(self) -> int:
        server = await self.loop.create_server(_Answering, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


class _Answering(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" * data.count(b"\r\n\r\n"))


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[int]]:
    running = Upstreams()
    yield running.ports
    running.close()


def cluster(name: str, number: int) -> dict[str, Any]:
    """Another one for each number."""
    eds = {"eds_config": ADS}
    return {"name": name, "type": "EDS", "eds_cluster_config": eds, "connect_timeout": f"{5 + number % 7}s"}


def endpoints(name: str, *ports: int) -> dict[str, Any]:
    found = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": one}}}} for one in ports
    ]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": found}]}


def table(name: str, to: str, number: int) -> dict[str, Any]:
    """Everything goes to a cluster."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": to, "timeout": f"{10 + number}s"}}
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


def by_rds(name: str) -> dict[str, Any]:
    return {"rds": {"route_config_name": name, "config_source": ADS}}


def change_clusters(managed: Managed, number: int, ports: list[int], port: int) -> None:
    """One changes, and one comes, takes the requests, and goes again."""
    managed.set("cluster", {"a": cluster("a", number)})
    managed.set("endpoints", {"a": endpoints("a", ports[number % 2])})
    other = f"b{number}"
    managed.set("cluster", {other: cluster(other, 0)})
    managed.set("endpoints", {other: endpoints(other, *ports)})
    managed.set("routes", {"r": table("r", other, number)})
    managed.set("routes", {"r": table("r", "a", number)})
    managed.set("cluster", {}, [other])


def change_endpoints(managed: Managed, number: int, ports: list[int], port: int) -> None:
    managed.set("endpoints", {"a": endpoints("a", *(ports, ports[:1], ports[1:])[number % 3])})


def change_routes(managed: Managed, number: int, ports: list[int], port: int) -> None:
    managed.set("routes", {"r": table("r", "a", number)})


def change_chains(managed: Managed, number: int, ports: list[int], port: int) -> None:
    changed = chain({**by_rds("r"), "stream_idle_timeout": f"{100 + number}s"})
    managed.set("listener", {"l": listener("l", port, changed)})


def change_listeners(managed: Managed, number: int, ports: list[int], port: int) -> None:
    managed.set("listener", {"l": listener("l", port, chain(by_rds("r")), stat_prefix=f"l{number}")})


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
@pytest.mark.parametrize("what", ["clusters", "endpoints", "routes", "chains", "listeners"])
def test_no_request_fails(what: str, delta: bool, upstreams: list[int], tmp_path: Path) -> None:
    change = globals()[f"change_{what}"]
    port = free_port()
    resources = {
        "cluster": {"a": cluster("a", 0)},
        "endpoints": {"a": endpoints("a", *upstreams)},
        "routes": {"r": table("r", "a", 0)},
        "listener": {"l": listener("l", port, chain(by_rds("r")))},
    }
    with managed(SIDECAR, tmp_path, resources, {"l": port}, delta) as running:
        load = subprocess.Popen(
            ["wrk", "-t1", "-c8", f"-d{SECONDS}s", f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, text=True
        )
        number = 0
        while load.poll() is None:
            number += 1
            change(running, number, upstreams, port)
            time.sleep(0.05)
        output = load.communicate()[0]
        failed = sum(running.stats("cluster.").get(f"cluster.a.{name}", 0) for name in ("upstream_rq_5xx",))
    requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    assert requests > 500 and number > 5, output
    assert "Non-2xx" not in output and "Socket errors" not in output, f"{number} changes:\n{output}"
    assert not failed
