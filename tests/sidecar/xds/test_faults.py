"""Servers that are slow, wrong, dead or gone; limits; resources that live for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import Resource
from google.protobuf.duration_pb2 import Duration

from sidecar.config.config_source import ADS, ApiConfigSource, ConfigSource, RateLimitSettings
from sidecar.config.grpc_service import GrpcService
from sidecar.telemetry.groups.server import ControlPlaneStats, SubscriptionStats
from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT
from tests.sidecar.tls_bootstraps import until
from tests.sidecar.xds.server import XdsServer, delta, packed, response
from tests.sidecar.xds.subjects import Watcher, discovering, subscribe


class Relay:
    """Connections to a port of this machine, which can be made to carry nothing any more without ending."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.taken = 0
        self.dead = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        dead = self.dead = False
        theirs, ours = await asyncio.open_connection("127.0.0.1", self.target)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            nonlocal dead
            while data := await source.read(65536):
                dead = dead or self.dead
                if not dead:
                    target.write(data)
            target.close()

        for task in (asyncio.create_task(pump(reader, ours)), asyncio.create_task(pump(theirs, writer))):
            self._tasks.add(task)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def relayed(target: int) -> AsyncIterator[Relay]:
    relay = Relay(target)
    server = await asyncio.start_server(relay.carry, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        relay.close()
        server.close()


async def test_a_server_that_is_dead_without_having_said_so_is_noticed_by_pings() -> None:
    async with XdsServer() as server, relayed(server.port) as relay:
        protocol = {"connection_keepalive": {"interval": "0.1s", "timeout": "0.1s"}}
        async with discovering(relay.port, protocol=protocol) as discovery:
            stats = SubscriptionStats()
            subscribe(discovery, CLUSTER, None, Watcher(), stats=stats)
            await server.requests(1)
            relay.dead = True
            await until(lambda: stats.update_failure == 1)
            await server.until(lambda: len(server.asked) == 2)
            assert server.asked[1].line() == "#2 Cluster all v node"


async def test_what_is_no_response_ends_the_stream_and_the_next_one_works() -> None:
    async with XdsServer() as server, discovering(server.port) as discovery:
        watcher = Watcher()
        subscribe(discovery, CLUSTER, None, watcher)
        await server.requests(1)
        await server.conversation.stream._stream.send_data(b"\x00\x00\x00\x00\x03\xff\xff\xff")
        await server.requests(2)
        await server.conversation.send(response(CLUSTER, "1", Cluster(name="a")))
        assert (await server.requests(3))[2] == "#2 Cluster all v1 nonce=Cluster-1 node"


async def test_types_that_nobody_has_asked_for_are_ignored() -> None:
    async with XdsServer() as server, discovering(server.port) as discovery:
        watcher = Watcher()
        subscribe(discovery, CLUSTER, None, watcher)
        await server.requests(1)
        await server.conversation.send(response(CLUSTER_LOAD_ASSIGNMENT, "1", ClusterLoadAssignment(cluster_name="a")))
        await server.conversation.send(response("", "1", nonce="empty"))
        await server.conversation.send(response(CLUSTER, "1", Cluster(name="a")))
        assert (await server.requests(2))[1] == "#1 Cluster all v1 nonce=Cluster-2 node"


class Slow(Watcher):
    """Applies nothing before ``go`` is set."""

    def __init__(self) -> None:
        Watcher.__init__(self)
        self.go = asyncio.Event()

    async def on_update(self, *arguments: Any, whole: bool) -> Any:
        await self.go.wait()
        return await Watcher.on_update(self, *arguments, whole=whole)


async def test_the_time_that_an_update_takes_is_not_that_of_the_server() -> None:
    async with XdsServer() as server, discovering(server.port) as discovery:
        clusters, endpoints, stats = Slow(), Watcher(), SubscriptionStats()
        subscribe(discovery, CLUSTER, None, clusters)
        await server.requests(1)
        await server.conversation.send(response(CLUSTER, "1", Cluster(name="a")))
        await until(lambda: discovery._ads is not None and discovery._ads.is_busy)
        soon = ConfigSource(ADS, 0.02)
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], endpoints, soon, stats)
        await asyncio.sleep(0.1)  # in which the timeout is over several times
        assert (endpoints.heard, stats.init_fetch_timeout) == ([], 0)
        clusters.go.set()
        await until(lambda: endpoints.heard == ["unavailable"])
        assert stats.init_fetch_timeout == 1


async def test_an_answer_that_was_being_applied_when_the_stream_ended_is_not_acknowledged_on_the_next() -> None:
    async with XdsServer() as server, discovering(server.port) as discovery:
        watcher = Slow()
        subscribe(discovery, CLUSTER, None, watcher)
        await server.requests(1)
        await server.conversation.send(response(CLUSTER, "1", Cluster(name="a")))
        await server.conversation.send(response(CLUSTER, "2", Cluster(name="b")))
        await asyncio.sleep(0.05)
        server.conversation.cut()
        await server.until(lambda: not server.conversations[0].open)
        watcher.go.set()
        lines = await server.requests(2)
        assert "nonce" not in lines[1]
        await server.conversation.send(response(CLUSTER, "3", Cluster(name="c")))
        assert (await server.requests(3))[2] == "#2 Cluster all v3 nonce=Cluster-1 node"
        assert watcher.world == {"c": "3"}


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
async def test_ten_megabytes_at_once_are_taken_and_the_loop_has_its_turns_meanwhile(kind: Any) -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    class Turns(Watcher):
        async def on_update(self, *arguments: Any, whole: bool) -> Any:
            self.before = turns
            return await Watcher.on_update(self, *arguments, whole=whole)

    async with XdsServer() as server, discovering(server.port, kind) as discovery:
        watcher = Turns()
        subscribe(discovery, CLUSTER, None, watcher)
        await server.requests(1)
        many = {f"c{index}": Cluster(name=f"c{index}", alt_stat_name="x" * 1000) for index in range(10_000)}
        made: Any = response(CLUSTER, "1", *many.values()) if kind == "GRPC" else delta(CLUSTER, "1", many)
        assert made.ByteSize() > 10_000_000
        await server.conversation.send(made)
        await until(lambda: server.conversation.nonces == 1)
        turn()
        await server.requests(2)
        assert len(watcher.world) == 10_000
        assert turns - watcher.before > 2  # while what was applied is kept


async def test_requests_wait_for_their_rate_limit_in_one_slot_for_each_type() -> None:
    limit = RateLimitSettings(2, 20.0)
    control_plane = ControlPlaneStats()
    async with (
        XdsServer() as server,
        discovering(server.port, rate_limit_settings=limit, control_plane=control_plane) as discovery,
    ):
        kind = CLUSTER_LOAD_ASSIGNMENT
        began = time.monotonic()
        for index in range(50):
            subscribe(discovery, kind, [f"c{index:02}"], Watcher())
        assert control_plane.pending_requests == 1
        lines = await server.requests(3)
        assert time.monotonic() - began > 0.04
        assert lines[:2] == ["#1 ClusterLoadAssignment c00 v node", "#1 ClusterLoadAssignment c00,c01 v node"]
        assert lines[2].count("c") == 50
        assert control_plane.rate_limit_enforced >= 1
        await until(lambda: control_plane.pending_requests == 0)


async def test_who_waits_goes_on_without_when_nobody_answers() -> None:
    async with XdsServer() as server, discovering(server.port) as discovery:
        watcher, patient, stats = Watcher(), Watcher(), SubscriptionStats()
        subscribe(discovery, CLUSTER, None, watcher, ConfigSource(ADS, 0.05), stats)
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], patient, ConfigSource(ADS, 0.0))
        await until(lambda: watcher.heard == ["unavailable"])
        assert (stats.init_fetch_timeout, stats.update_attempt) == (1, 2)
        await server.conversation.send(response(CLUSTER, "1", Cluster(name="a")))
        await until(lambda: watcher.world == {"a": "1"})
        assert patient.heard == []


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
async def test_a_resource_lives_as_long_as_the_server_says(kind: Any) -> None:
    def mortal(*, content: bool) -> Resource:
        made = Resource(name="a", version="1", ttl=Duration(nanos=300_000_000))
        if content:
            made.resource.CopyFrom(packed(Cluster(name="a")))
        return made

    def said(*, content: bool) -> Any:
        if kind == "GRPC":
            return response(CLUSTER, "1", mortal(content=content))
        answer = delta(CLUSTER, "1", {})
        answer.resources.append(mortal(content=content))
        return answer

    async with XdsServer() as server, discovering(server.port, kind) as discovery:
        watcher = Watcher()
        subscribe(discovery, CLUSTER, None, watcher)
        await server.requests(1)
        await server.conversation.send(said(content=True))
        await until(lambda: watcher.world == {"a": "1"})
        began = time.monotonic()
        while time.monotonic() - began < 0.5:  # as long as it is said again, it stays
            await server.conversation.send(said(content=False))
            await asyncio.sleep(0.05)
            assert watcher.world == {"a": "1"}
        await until(lambda: watcher.world == {})
        assert len([line for line in watcher.heard if line[0]]) == 1


@pytest.mark.parametrize(("api_type", "method"), [("GRPC", "StreamClusters"), ("DELTA_GRPC", "DeltaClusters")])
async def test_a_stream_for_one_type_ends_with_its_only_interest(api_type: Any, method: str) -> None:
    async with XdsServer() as server, discovering(server.port) as discovery:
        watcher = Watcher()
        source = ConfigSource(ApiConfigSource(api_type, GrpcService("xds")))
        subscription = subscribe(discovery, CLUSTER, None, watcher, source)
        await server.requests(1)
        assert server.conversation.path == f"/envoy.service.cluster.v3.ClusterDiscoveryService/{method}"
        cluster = Cluster(name="a")
        made: Any = response(CLUSTER, "1", cluster) if api_type == "GRPC" else delta(CLUSTER, "1", {"a": cluster})
        await server.conversation.send(made)
        await server.requests(2)
        assert watcher.world == {"a": "1"}
        subscription.close()
        await server.until(lambda: not server.conversation.open)
