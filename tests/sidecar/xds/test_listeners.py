"""Listeners and routes that come, change and go while the sidecar runs, and the connections that go on meanwhile."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from sidecar.server import Server
from sidecar.stack import Stack
from tests.running import get as fetch
from tests.sidecar.xds.driving import ADS, DYNAMIC, XDS_CLUSTER, HandDriven, drive

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {
    "name": "router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}


def routes(name: str, body: str, **more: Any) -> dict[str, Any]:
    """A route configuration that answers with ``body``."""
    answer = {"status": 200, "body": {"inline_string": body}}
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": answer}]}
    return {"name": name, "virtual_hosts": [host], **more}


def chain(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A filter chain with a connection manager, whose routes come from ``source``."""
    manager = {"@type": HCM, "stat_prefix": "test", "http_filters": [ROUTER], **source}
    return {"filters": [{"name": "http", "typed_config": manager}], **more}


def listener(name: str, port: int, *chains: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A listener on this port."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": list(chains), **more}


def rds(name: str) -> dict[str, Any]:
    """The routes of that name."""
    return {"rds": {"route_config_name": name, "config_source": ADS}}


def inline(body: str) -> dict[str, Any]:
    """Routes in the connection manager itself."""
    return {"route_config": routes("inline", body)}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str = "/") -> tuple[int, str]:
        """Status and body."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
        return await self.response()

    async def response(self) -> tuple[int, str]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return int(head.split()[1]), (await self.reader.readexactly(length)).decode()

    async def ended(self) -> bool:
        """Whether the other end closes within a second."""
        async with asyncio.timeout(5):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


class Sidecar:
    """A sidecar with listeners from LDS, whose first answer are ``listeners``."""

    def __init__(self, driven: HandDriven, *listeners: dict[str, Any], **more: Any) -> None:
        self.driven = driven
        self.listeners = listeners
        self.server = Server(
            {
                "static_resources": {"clusters": [XDS_CLUSTER]},
                "node": {"id": "it", "cluster": "us"},
                "dynamic_resources": {**DYNAMIC, "lds_config": ADS},
            },
            **{"drain_time": 0.3, **more},
        )
        self.rejections: list[Any] = []

    async def __aenter__(self) -> Sidecar:
        self.starting = asyncio.create_task(self.server.start())
        async with asyncio.timeout(5):
            while not self.driven.interests:
                await asyncio.sleep(0)
        self.rejections = await self.driven.send("Listener", list(self.listeners))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.starting.cancel()
        await asyncio.gather(self.starting, return_exceptions=True)
        await self.server.stop()

    @property
    def stack(self) -> Stack:
        assert self.server.stack is not None
        return self.server.stack

    def stats(self, *names: str) -> list[int]:
        """Of the listener manager."""
        self.stack.scraped_store()
        return [getattr(self.stack.listener_manager_stats, name) for name in names]


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> HandDriven:
    return drive(monkeypatch)


async def get(port: int) -> tuple[int, str]:
    """Over a connection of its own."""
    client = await Client.to(port)
    try:
        return await client.get()
    finally:
        client.close()


async def test_the_start_waits_for_listeners_and_their_routes(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, chain(rds("r")))) as sidecar:
        assert driven.wanted("RouteConfiguration") == ["r"]
        assert not sidecar.starting.done()
        await driven.send("RouteConfiguration", {"r": routes("r", "one")})
        await sidecar.starting
        assert await get(port) == (200, "one")
        assert sidecar.stats("listener_added", "total_listeners_active", "total_listeners_warming") == [1, 1, 0]


async def test_routes_change_and_no_connection_is_touched(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, chain(rds("r")))) as sidecar:
        await driven.send("RouteConfiguration", {"r": routes("r", "one")})
        await sidecar.starting
        client = await Client.to(port)
        for _ in range(5):
            assert await client.get() == (200, "one")
        await driven.send("RouteConfiguration", {"r": routes("r", "two")}, "2")
        assert await client.get() == (200, "two")
        (rejection,) = await driven.send(
            "RouteConfiguration", {"r": routes("r", "three", vhds={"config_source": ADS})}, "3"
        )
        assert rejection.name == "r" and rejection.reason.startswith("vhds: is not implemented by Mizzen")
        assert await client.get() == (200, "two")
        client.close()


async def test_two_connection_managers_share_a_route_configuration(driven: HandDriven) -> None:
    ports = free_port(), free_port()
    async with Sidecar(driven, *(listener(f"on {port}", port, chain(rds("r"))) for port in ports)) as sidecar:
        assert driven.wanted("RouteConfiguration") == ["r"]
        await driven.send("RouteConfiguration", {"r": routes("r", "one")})
        await sidecar.starting
        assert [await get(port) for port in ports] == [(200, "one")] * 2
        third = free_port()
        await driven.send("Listener", {"c": listener("c", third, chain(rds("r")))}, "2")
        async with asyncio.timeout(5):
            while (await_ := sidecar.stats("total_listeners_active")) != [3]:
                assert await_ == [2]
                await asyncio.sleep(0.01)
        assert await get(third) == (200, "one")
        assert driven.wanted("RouteConfiguration") == ["r"]


async def test_filter_chains_change_in_place_and_only_what_changed_drains(driven: HandDriven) -> None:
    port = free_port()
    local = {"filter_chain_match": {"source_type": "SAME_IP_OR_LOOPBACK"}, "name": "local"}
    a = chain(inline("kept"), **local)
    async with Sidecar(driven, listener("a", port, a, chain(inline("other")))) as sidecar:
        await sidecar.starting
        kept = await Client.to(port)
        assert await kept.get() == (200, "kept")
        await driven.send("Listener", {"a": listener("a", port, a, chain(inline("new other")))}, "2")
        assert sidecar.stats("listener_in_place_updated", "listener_modified", "total_listeners_active") == [1, 1, 1]
        assert sidecar.stats("total_listeners_draining") == [0]
        assert await kept.get() == (200, "kept")
        await driven.send("Listener", {"a": listener("a", port, chain(inline("changed"), **local))}, "3")
        assert await get(port) == (200, "changed")
        assert await kept.ended()
        async with asyncio.timeout(5):
            while sidecar.stats("total_filter_chains_draining") != [0]:
                await asyncio.sleep(0.01)
        assert len(sidecar.stack.managers) == 1
        assert len(sidecar.stack.routed) == 1


async def test_a_listener_is_replaced_on_its_socket(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, chain(inline("one")), enable_reuse_port=False)) as sidecar:
        await sidecar.starting
        before = await Client.to(port)
        assert await before.get() == (200, "one")
        changed = listener("a", port, chain(inline("two")), enable_reuse_port=False, stat_prefix="x")
        assert await driven.send("Listener", {"a": changed}, "2") == []
        assert await get(port) == (200, "two")
        assert sidecar.stats("listener_in_place_updated", "listener_modified", "total_listeners_draining") == [0, 1, 1]
        assert await before.ended()
        async with asyncio.timeout(5):
            while sidecar.stats("total_listeners_draining") != [0]:
                await asyncio.sleep(0.01)
        assert [one.prefix for one in sidecar.stack.store if one.prefix.startswith("listener.1")] == []


async def test_a_listener_goes(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, chain(inline("one")))) as sidecar:
        await sidecar.starting
        client = await Client.to(port)
        assert await client.get() == (200, "one")
        await driven.send("Listener", [], "2")
        assert sidecar.stats("listener_removed", "total_listeners_active", "total_listeners_draining") == [1, 0, 1]
        with pytest.raises(OSError):
            await Client.to(port)
        assert await client.ended()
        async with asyncio.timeout(5):
            while sidecar.stack.managers:
                await asyncio.sleep(0.01)
        assert not [one.prefix for one in sidecar.stack.store if one.prefix.startswith(("listener.1", "http.test"))]


async def test_a_listener_that_fails_keeps_the_old_one(driven: HandDriven) -> None:
    port, taken = free_port(), socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    async with Sidecar(driven, listener("a", port, chain(inline("one")))) as sidecar:
        await sidecar.starting
        cases = {
            "a": (listener("a", port, chain(inline("x"), transport_socket_connect_timeout="-1s")), "transport_socket"),
            "b": (listener("b", taken.getsockname()[1], chain(inline("x"))), "listener 'b' cannot listen on"),
            "c": (listener("c", port, chain(inline("x"))), f"listener 'a' listens on 127.0.0.1:{port} already"),
        }
        for name, (document, words) in cases.items():
            (rejection,) = await driven.send("Listener", {name: document}, "2")
            assert rejection.name == name and words in rejection.reason, rejection
        assert await get(port) == (200, "one")
        assert sidecar.stats("listener_create_failure", "total_listeners_active") == [1, 1]
        assert len(sidecar.stack.managers) == 1
    taken.close()


async def test_a_listener_warms_before_it_takes_the_place_of_another(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, chain(inline("one")))) as sidecar:
        await sidecar.starting
        await driven.send("Listener", {"a": listener("a", port, chain(rds("r")))}, "2")
        assert sidecar.stats("total_listeners_warming") == [1]
        assert await get(port) == (200, "one")
        await driven.send("RouteConfiguration", {"r": routes("r", "two")})
        assert await get(port) == (200, "two")
        await driven.send("Listener", {"a": listener("a", port, chain(rds("other")))}, "3")
        assert driven.wanted("RouteConfiguration") == ["other", "r"]
        await driven.send("Listener", {"a": listener("a", port, chain(inline("three")))}, "4")
        assert await get(port) == (200, "three")
        async with asyncio.timeout(5):
            while driven.wanted("RouteConfiguration"):
                await asyncio.sleep(0.01)


async def test_routes_that_nobody_sends(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, chain(rds("r")))) as sidecar:
        (interest,) = [one for one in driven.interests if one.names]
        interest.watcher.on_unavailable()
        await sidecar.starting
        assert (await get(port))[0] == 404
        await driven.send("RouteConfiguration", {"r": routes("r", "late")})
        assert await get(port) == (200, "late")


async def test_the_administration_interface_answers_while_others_are_waited_for(driven: HandDriven) -> None:
    port, admin = free_port(), free_port()
    sidecar = Sidecar(driven, listener("a", port, chain(rds("r"))))
    address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    sidecar.server = Server(
        {
            "admin": {"address": address},
            "static_resources": {"clusters": [XDS_CLUSTER]},
            "node": {"id": "it", "cluster": "us"},
            "dynamic_resources": {**DYNAMIC, "lds_config": ADS},
        }
    )
    async with sidecar:
        assert (await asyncio.to_thread(fetch, admin, "/ready"))[0] == 503
        await driven.send("RouteConfiguration", {"r": routes("r", "one")})
        await sidecar.starting
        assert (await asyncio.to_thread(fetch, admin, "/ready"))[0] == 200
        status, _, dump = await asyncio.to_thread(fetch, admin, "/config_dump?resource=dynamic_listeners")
        assert status == 200 and '"active_state"' in dump
