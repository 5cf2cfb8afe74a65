"""What istiod sends is taken, and requests go, though Istio's own extensions are not here; what guards is never left out."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from envoy.config.listener.v3.listener_components_pb2 import Filter
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as Packed

from sidecar.config import left_out
from sidecar.config.left_out import BOOTSTRAP_EXTENSIONS, HTTP_FILTERS, NETWORK_FILTERS, UPSTREAM_FILTERS
from sidecar.server import Server
from sidecar.xds.resource_types import CLUSTER, LISTENER
from tests.running import REPOSITORY, free_ports
from tests.sidecar.transport.serving import AUTHORITY
from tests.sidecar.xds import istiod
from tests.sidecar.xds.test_listeners import Client
from tests.sidecar.xds.world import World

GUARDS = {
    "istio_authn over HTTP": Packed(
        type_url=istiod.TYPE + "istio.envoy.config.filter.http.authn.v2alpha1.FilterConfig", value=b"\x0a\x00"
    ),
    "WebAssembly": istiod.struct("envoy.extensions.filters.http.wasm.v3.Wasm", {"config": {"name": "guard"}}),
    "another TypedStruct": istiod.struct("io.istio.http.guard.Config", {}),
}
NETWORK_GUARDS = {
    "istio_authn": istiod.struct("io.istio.network.authn.Config", {}),
    "istio_authn, bare": Packed(type_url=istiod.TYPE + "io.istio.network.authn.Config", value=b""),
}


class Application:
    """Answers every request with its head."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nreviews")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def mesh() -> AsyncIterator[tuple[Server, World, Application, int, int]]:
    """The sidecar when it has what istiod sends, the server, the application, the outbound and the inbound port."""
    application = Application()
    served = await asyncio.start_server(application, "127.0.0.1", 0)
    port = served.sockets[0].getsockname()[1]
    outward, inward, admin = free_ports(3)
    async with World(istiod.resources(port, outward, inward)) as world:
        sidecar = Server(istiod.bootstrap(world.port, admin), drain_time=0.2)
        try:
            async with asyncio.timeout(20):
                await sidecar.start()
            yield sidecar, world, application, outward, inward
        finally:
            await sidecar.stop()
            served.close()


async def ask(port: int, host: str) -> tuple[int, str]:
    client = await Client.to(port)
    try:
        client.writer.write(f"GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            return await client.response()
    finally:
        client.close()


async def test_a_small_mesh_of_istiods_is_taken_and_requests_go_through_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with mesh() as (sidecar, world, application, outward, _):
        assert world.refused == {}
        for _ in range(3):
            assert await ask(outward, "reviews:9080") == (200, "reviews")
        assert "by=spiffe://cluster.local/ns/shop/sa/reviews;" in application.heads[0]  # it came over mutual TLS
        assert sidecar.stack is not None
        said = [one.getMessage() for one in caplog.records if "is left out" in one.getMessage()]
    for table in (HTTP_FILTERS, NETWORK_FILTERS, UPSTREAM_FILTERS):
        for name in table:
            assert len([one for one in said if name in one]) == 1, (name, said)  # once, however often it is there


async def test_a_change_is_taken_after_the_first_ones_and_a_bad_one_keeps_the_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with mesh() as (_, world, _application, outward, _inward):
        cluster = world.resources[CLUSTER][istiod.OUTBOUND]
        cluster.filters[0].typed_config.CopyFrom(istiod.struct("io.istio.network.guard.Config", {}))
        before = len(world.refused)
        await world.set(CLUSTER, {istiod.OUTBOUND: cluster})
        await world.until(lambda: len(world.refused) > before)
        (reason,) = world.refused.values()
        assert istiod.OUTBOUND in reason
        assert "is a filter of upstream connections, which Mizzen has not got" in reason
        assert await ask(outward, "reviews:9080") == (200, "reviews")


@pytest.mark.parametrize("config", GUARDS.values(), ids=GUARDS)
async def test_an_http_filter_that_guards_is_never_left_out(config: Packed) -> None:
    async with mesh() as (_, world, _application, outward, _inward):
        guard = HttpFilter(name="guard", typed_config=config)
        changed = istiod.listeners(outward, outward)["0.0.0.0_9080"]
        changed.filter_chains[0].filters[0].CopyFrom(
            istiod.manager({"rds": {"route_config_name": "9080", "config_source": istiod.ADS}}, "upstream", guard)
        )
        await world.set(LISTENER, {changed.name: changed})
        await world.until(lambda: world.refused)
        (reason,) = world.refused.values()
        assert "filter_chains[0].filters[0].typed_config.http_filters[4].typed_config" in reason
        assert "is not known" in reason or "is not implemented by Mizzen" in reason
        assert await ask(outward, "reviews:9080") == (200, "reviews")


@pytest.mark.parametrize("config", NETWORK_GUARDS.values(), ids=NETWORK_GUARDS)
async def test_a_network_filter_that_guards_is_never_left_out(config: Packed) -> None:
    async with mesh() as (_, world, _application, outward, inward):
        changed = istiod.listeners(outward, inward)["virtualInbound"]
        changed.filter_chains[0].filters.insert(0, Filter(name="istio_authn", typed_config=config))
        await world.set(LISTENER, {changed.name: changed})
        await world.until(lambda: world.refused)
        (reason,) = world.refused.values()
        assert "filter_chains[0].filters[0].typed_config" in reason
        assert "io.istio.network.authn.Config" in reason
        assert await ask(outward, "reviews:9080") == (200, "reviews")


async def test_the_protocol_of_metadata_exchange_is_never_agreed_on(tmp_path: Path) -> None:
    """A peer that saw it agreed on would write metadata where requests are read."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.check_hostname = False
    context.load_cert_chain(*istiod.IDENTITY.write(tmp_path, "peer"))
    async with mesh() as (*_, inward):
        for offered, agreed in ((["istio-peer-exchange", "http/1.1"], "http/1.1"), (["istio-peer-exchange"], None)):
            context.set_alpn_protocols(offered)
            _, writer = await asyncio.open_connection("127.0.0.1", inward, ssl=context)
            secured: Any = writer.get_extra_info("ssl_object")
            assert secured.selected_alpn_protocol() == agreed
            writer.close()


def test_the_page_has_the_whole_table() -> None:
    page = (REPOSITORY / "docs" / "with-istiod.md").read_text()
    for table in (HTTP_FILTERS, NETWORK_FILTERS, UPSTREAM_FILTERS, BOOTSTRAP_EXTENSIONS):
        for name in table:
            assert f"`{name}`" in page, name
    assert left_out.PEER_EXCHANGE in page
