"""The server with real Envoy and our sidecar: they boot, follow changes, lose no request meanwhile, say what they refuse."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.xds.messages import bootstrap, cluster, endpoints, listener, routes
from tests.controlplane.xds.plain_mesh import Served, serving
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, Proxy, start
from tests.running import free_ports, get, until


class Upstream:
    """Answers everything with its name."""

    def __init__(self, name: str) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, int]]:
    running = {name: Upstream(name) for name in ("a", "b", "c")}
    yield {name: one.port for name, one in running.items()}
    for one in running.values():
        one.close()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture(params=["envoy", "envoy-delta", "sidecar", "sidecar-delta"])
def proxy(request: Any, served: Served, upstreams: dict[str, int], tmp_path: Path) -> Iterator[Proxy]:
    kind, _, dialect = request.param.partition("-")
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    admin, web = free_ports(2)
    served.change(
        cluster={"a": cluster("a")},
        endpoints={"a": endpoints("a", upstreams["a"])},
        listener={"web": listener("web", web, "web")},
        routes={"web": routes("web", root="a")},
    )
    running = start(
        kind,
        bootstrap(served.port, admin, delta=dialect == "delta"),
        {"admin": admin, "web": web},
        tmp_path,
    )
    yield running
    running.stop()


def body(proxy: Proxy, path: str = "/") -> str:
    return get(proxy.ports["web"], path)[2]


def test_it_boots(proxy: Proxy, served: Served) -> None:
    assert body(proxy) == "a"
    assert served.connected == ["sidecar~127.0.0.1~web-1.shop~shop.svc.cluster.local"]
    until(served.settled, "everything is acknowledged")
    watches = served.ask(lambda: {u: w.status for s in served.hub.sessions for u, w in s.conversation.watches.items()})
    assert set(watches.values()) == {"SYNCED"} and len(watches) == 4


def test_it_follows_changes(proxy: Proxy, served: Served, upstreams: dict[str, int]) -> None:
    served.change(endpoints={"a": endpoints("a", upstreams["b"])})
    until(lambda: body(proxy) == "b", "the endpoint has changed")
    served.change(
        cluster={"c": cluster("c")},
        endpoints={"c": endpoints("c", upstreams["c"])},
        routes={"web": routes("web", c="c", root="a")},
    )
    until(lambda: body(proxy, "/c") == "c", "there is another cluster")
    assert body(proxy) == "b"
    served.change(cluster={"c": None}, endpoints={"c": None}, routes={"web": routes("web", root="a")})
    until(lambda: body(proxy, "/c") == "b", "the route is gone")
    until(lambda: "c::" not in proxy.admin("/clusters")[2], "the cluster is gone")


def test_a_changed_cluster_gets_its_endpoints_unasked(proxy: Proxy, served: Served) -> None:
    for timeout in ("2s", "3s"):
        served.change(cluster={"a": cluster("a", connect_timeout=timeout)})
        until(
            lambda t=timeout: f'"connect_timeout": "{t}"' in proxy.admin("/config_dump")[2], "the cluster has changed"
        )
        until(served.settled, "everything is acknowledged")
        assert "dynamic_warming_clusters" not in proxy.admin("/config_dump")[2]
        assert body(proxy) == "a"


def test_what_it_refuses_is_told_and_the_rest_goes_on(proxy: Proxy, served: Served) -> None:
    bad = cluster("bad", connect_timeout="1s")
    bad.type = 99
    served.change(cluster={"bad": bad})
    until(lambda: bool(served.refused), "it was refused")
    assert "bad" in served.refused[0][1] or "type" in served.refused[0][1].lower(), served.refused
    assert body(proxy) == "a"
    served.change(cluster={"bad": None})
    until(served.settled, "it was mended")
    assert body(proxy) == "a"


def test_the_server_comes_back(proxy: Proxy, served: Served, upstreams: dict[str, int]) -> None:
    until(served.settled, "everything is acknowledged")
    served.restart()
    assert body(proxy) == "a"
    until(lambda: bool(served.ask(lambda: len(served.hub.sessions))), "it has connected again", timeout=40)
    served.change(endpoints={"a": endpoints("a", upstreams["b"])})
    until(lambda: body(proxy) == "b", "the endpoint has changed")
    assert len(served.disconnected) == 1


def test_no_request_fails_while_everything_changes(proxy: Proxy, served: Served, upstreams: dict[str, int]) -> None:
    """Clusters come, change and go, and every route uses one that has just come."""
    stop = threading.Event()
    seen: list[tuple[int, str]] = []

    async def ask() -> None:
        reader = writer = None
        while not stop.is_set():
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.ports["web"])
            writer.write(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            assert reader is not None
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            text = await reader.readexactly(length)
            seen.append((int(head.split()[1]), text.decode()))
        if writer is not None:
            writer.close()

    async def crowd() -> None:
        await asyncio.gather(*(ask() for _ in range(4)))

    asking = threading.Thread(target=lambda: asyncio.run(crowd()))
    asking.start()
    try:
        before = "a"
        for number in range(12):
            now, port = f"cluster-{number}", upstreams["abc"[number % 3]]
            served.change(
                cluster={before: None, now: cluster(now)},
                endpoints={before: None, now: endpoints(now, port)},
                routes={"web": routes("web", root=now)},
            )
            until(lambda n=now: f"{n}::" in proxy.admin("/clusters")[2], "the cluster has come")
            until(lambda b=before: f"{b}::" not in proxy.admin("/clusters")[2], "the cluster before is gone")
            before, count = now, len(seen)
            until(lambda c=count: len(seen) > c + 20, "requests were answered")
    finally:
        stop.set()
        asking.join(20)
    failed = [one for one in seen if one[0] != 200]
    assert len(seen) > 200 and not failed, (len(seen), failed[:5])
    assert {text for _, text in seen} == {"a", "b", "c"}
