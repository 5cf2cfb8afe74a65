"""Sidecars whose management server is gone: they go on, and start again from what was good last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sidecar.server import Server
from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from tests.sidecar.bootstraps import cluster
from tests.sidecar.pool.asking import over_http2
from tests.sidecar.tls_bootstraps import counted, until
from tests.sidecar.xds.resources import OVER_ADS, assignment, eds_cluster, listener, routes
from tests.sidecar.xds.server import XdsServer
from tests.sidecar.xds.world import World


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An application that says hello, once for each connection."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
    writer.close()


async def ask(port: int) -> bytes:
    """What is answered by a listener on this port: its status line's number and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer[9:12] + answer[answer.index(b"\r\n\r\n") + 4 :]


def bootstrap(port: int, api_type: str) -> dict[str, Any]:
    server = {
        "api_type": api_type,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }
    return {
        "node": {"id": "sidecar~10.0.0.1~a.shop~shop.svc.cluster.local", "cluster": "us"},
        "static_resources": {"clusters": [over_http2(cluster("xds", port))]},
        "dynamic_resources": {"ads_config": server, "cds_config": OVER_ADS, "lds_config": OVER_ADS},
    }


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
async def test_a_sidecar_serves_without_its_server_and_follows_it_when_it_is_back(
    api_type: str, tmp_path: Path
) -> None:
    application = await asyncio.start_server(answering, "127.0.0.1", 0)
    port = application.sockets[0].getsockname()[1]
    made = World(
        {
            CLUSTER: {"a": eds_cluster("a")},
            CLUSTER_LOAD_ASSIGNMENT: {"a": assignment("a", port)},
            LISTENER: {"in": listener("in", "r")},
            ROUTE_CONFIGURATION: {"r": routes("r", "a")},
        }
    )
    await made.start()
    configuration = bootstrap(made.port, api_type)
    try:
        async with Server(configuration, xds_state_dir=tmp_path) as server:
            assert await ask(server.address("in")[1]) == b"200hello"
            await made.stop()
            await until(lambda: not counted(server).get("control_plane.connected_state"))
            assert await ask(server.address("in")[1]) == b"200hello"
        async with Server(configuration, xds_state_dir=tmp_path) as server:
            assert await ask(server.address("in")[1]) == b"200hello"
            await made.start()
            await made.until(lambda: made.is_settled and len(made.conversations) > 1)
            await made.set(ROUTE_CONFIGURATION, {"r": routes("r", "nowhere")})
            await made.settled()
            assert (await ask(server.address("in")[1]))[:3] == b"503"
    finally:
        await made.stop()
        application.close()


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
async def test_a_server_that_takes_the_stream_and_says_nothing_is_waited_for_once(
    api_type: str, tmp_path: Path
) -> None:
    application = await asyncio.start_server(answering, "127.0.0.1", 0)
    port = application.sockets[0].getsockname()[1]
    resources = {
        CLUSTER: {"a": eds_cluster("a")},
        CLUSTER_LOAD_ASSIGNMENT: {"a": assignment("a", port)},
        LISTENER: {"in": listener("in", "r")},
        ROUTE_CONFIGURATION: {"r": routes("r", "a")},
    }
    async with World(resources) as made, Server(bootstrap(made.port, api_type), xds_state_dir=tmp_path) as server:
        assert await ask(server.address("in")[1]) == b"200hello"
    async with XdsServer() as silent:
        configuration = bootstrap(silent.port, api_type)
        soon = {**OVER_ADS, "initial_fetch_timeout": "0.3s"}  # but for endpoints and routes it is as long as ever
        configuration["dynamic_resources"].update(cds_config=soon, lds_config=soon)
        async with asyncio.timeout(10), Server(configuration, xds_state_dir=tmp_path) as server:
            assert await ask(server.address("in")[1]) == b"200hello"
    application.close()


async def test_without_a_state_the_start_waits_no_longer_than_the_initial_fetch_timeout() -> None:
    made = World()
    await made.start()
    await made.stop()
    configuration = bootstrap(made.port, "GRPC")
    soon = {**OVER_ADS, "initial_fetch_timeout": "0.1s"}
    configuration["dynamic_resources"].update(cds_config=soon, lds_config=soon)
    async with Server(configuration) as server:
        found = counted(server)
        assert found["cluster_manager.cds.init_fetch_timeout"] == found["listener_manager.lds.init_fetch_timeout"] == 1
