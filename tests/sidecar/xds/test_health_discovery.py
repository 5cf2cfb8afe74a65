"""HDS: real Envoy and our sidecar check what a server asks for, and report the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from envoy.service.health.v3.hds_pb2 import HealthCheckRequestOrEndpointHealthResponse, HealthCheckSpecifier
from google.protobuf.json_format import MessageToDict, ParseDict
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Server as GrpcServer

from sidecar.server import Server
from sidecar.xds.health_discovery import PATH
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, start
from tests.sidecar.bootstraps import address, cluster
from tests.sidecar.pool.asking import over_http2
from tests.sidecar.tls_bootstraps import counted, until


class HealthServer:
    """Asks for ``specifier`` of all that connect, and keeps what they say."""

    def __init__(self, specifier: dict[str, Any]) -> None:
        self.specifier = specifier
        self.said: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.streams: list[Any] = []
        self.port = 0

    def __mapping__(self) -> Mapping[str, Handler]:
        kinds = (HealthCheckRequestOrEndpointHealthResponse, HealthCheckSpecifier)
        return {PATH.decode(): Handler(self.serve, Cardinality.STREAM_STREAM, *kinds)}

    async def serve(self, stream: Any) -> None:
        self.streams.append(stream)
        try:
            async for message in stream:
                said = MessageToDict(message, preserving_proto_field_name=True)
                self.said.append(said)
                self.changed.set()
                if "health_check_request" in said:
                    await self.ask(self.specifier)
        except StreamTerminatedError:
            pass

    async def ask(self, specifier: dict[str, Any]) -> None:
        """Have this checked by the last that has connected."""
        await self.streams[-1].send_message(ParseDict(specifier, HealthCheckSpecifier()))

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first message from now on of which this is true."""
        at = len(self.said)
        async with asyncio.timeout(15):
            while True:
                for said in self.said[at:]:
                    if condition(said):
                        return said
                at = len(self.said)
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def serving(specifier: dict[str, Any]) -> AsyncIterator[HealthServer]:
    made = HealthServer(specifier)
    server = GrpcServer([made])
    await server.start("127.0.0.1", 0)
    made.port = server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield made
    finally:
        for stream in made.streams:
            transport = getattr(stream._stream.connection, "_transport", None)
            if transport is not None:
                transport.abort()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def application() -> AsyncIterator[tuple[int, dict[str, int]]]:
    """A service that is as well as the status says that it maps its path to, 200 by default."""
    states: dict[str, int] = {}

    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=states.get(request.path, 200))

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    try:
        yield server.sockets[0].getsockname()[1], states
    finally:
        await runner.cleanup()


def checked(name: str, path: str, *ports: int) -> dict[str, Any]:
    """A `ClusterHealthCheck` of hosts on these ports, in a zone."""
    check = {
        "timeout": "5s",
        "interval": "0.05s",
        "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": path},
    }
    endpoints = [{"address": address(port)} for port in ports]
    return {
        "cluster_name": name,
        "health_checks": [check],
        "locality_endpoints": [{"locality": {"zone": "z"}, "endpoints": endpoints}],
    }


def bootstrap(port: int, **fields: Any) -> dict[str, Any]:
    service = {"envoy_grpc": {"cluster_name": "hds"}}
    return {
        "node": {"id": "it", "cluster": "us"},
        "static_resources": {"clusters": [over_http2(cluster("hds", port))]},
        "hds_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]},
        **fields,
    }


def statuses(said: dict[str, Any]) -> list[list[str]]:
    """How the hosts are, by cluster."""
    answer = said.get("endpoint_health_response", {})
    return [
        [
            one.get("health_status", "")
            for group in found["locality_endpoints_health"]
            for one in group["endpoints_health"]
        ]
        for found in answer.get("cluster_endpoints_health", ())
    ]


async def test_reports_are_those_of_envoy(tmp_path: Path) -> None:
    async def run(kind: str, port: int, states: dict[str, int]) -> list[Any]:
        states.clear()
        dead = FreePorts().take()
        specifier = {"cluster_health_checks": [checked("a", "/a", port, dead)], "interval": "0.1s"}
        async with serving(specifier) as server:
            ports = {"admin": FreePorts().take()}
            document = bootstrap(server.port, admin={"address": address(ports["admin"])})
            try:
                proxy = await asyncio.to_thread(start, kind, document, ports, tmp_path / kind)
            except EnvoyUnavailableError as error:
                pytest.skip(str(error))
            try:
                well = await server.until(lambda said: statuses(said) == [["HEALTHY", "UNHEALTHY"]])
                states["/a"] = 503
                ill = await server.until(lambda said: statuses(said) == [["UNHEALTHY", "UNHEALTHY"]])
                two = [checked("a", "/a", port, dead), checked("b", "/b", port)]
                await server.ask({"cluster_health_checks": two, "interval": "0.1s"})
                both = await server.until(lambda said: ["HEALTHY"] in statuses(said))
                await server.ask({"cluster_health_checks": two[1:], "interval": "0.1s"})
                one = await server.until(lambda said: statuses(said) == [["HEALTHY"]])
            finally:
                await asyncio.to_thread(proxy.stop)
        asked = server.said[0]["health_check_request"]
        assert asked.pop("node")["id"] == "it"
        both["endpoint_health_response"]["cluster_endpoints_health"].sort(key=lambda found: str(found["cluster_name"]))
        for report in (well, ill, both, one):
            report["endpoint_health_response"]["endpoints_health"].sort(key=str)
        return [asked, *(without(report, dead) for report in (well, ill, both, one))]

    async with application() as (port, states):
        envoys, ours = await run(ENVOY, port, states), await run(SIDECAR, port, states)
    assert ours == envoys


def without(report: Any, port: int) -> Any:
    """The report with another number for the port, which is another one for each proxy."""
    if isinstance(report, dict):
        return {key: 0 if value == port else without(value, port) for key, value in report.items()}
    return [without(one, port) for one in report] if isinstance(report, list) else report


async def test_the_server_comes_back_and_a_wrong_check_stops_no_other() -> None:
    async with application() as (port, _):
        wrong = checked("wrong", "/a", port)
        wrong["health_checks"][0]["http_health_check"]["path"] = ""
        specifier = {"cluster_health_checks": [wrong, checked("a", "/a", port)], "interval": "0.05s"}
        async with serving(specifier) as made, Server(bootstrap(made.port)) as server:
            await made.until(lambda said: statuses(said) == [["HEALTHY"]])
            assert counted(server)["hds_delegate.errors"] == 1
            made.streams[0]._stream.connection._transport.abort()
            await until(lambda: len(made.streams) == 2)
            await made.until(lambda said: statuses(said) == [["HEALTHY"]])
            found = counted(server)
            assert found["hds_delegate.requests"] == 2
            assert found["hds_delegate.responses"] >= 2
            assert found["cluster.a.health_check.success"] >= 1
            await made.ask({"interval": "0.05s"})
            await until(lambda: "cluster.a.health_check.success" not in counted(server))
