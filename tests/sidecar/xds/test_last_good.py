"""What was good last is on disk, and used while the server is away."""

from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret

from sidecar.config.config_source import ADS, ConfigSource
from sidecar.core.worker import Worker
from sidecar.telemetry.groups.server import SubscriptionStats
from sidecar.xds.last_good import Kept, LastGoodFiles, file_name, read_state, write_state
from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, SECRET
from tests.sidecar.tls_bootstraps import until
from tests.sidecar.xds.server import XdsServer, delta, packed, response
from tests.sidecar.xds.subjects import Watcher, discovering, subscribe
from tests.sidecar.xds.world import World

CLUSTERS = {name: Cluster(name=name) for name in "abc"}


def states(directory: Path, type_name: str = "") -> list[Path]:
    """The files that were written."""
    return list(directory.rglob(f"*{type_name}.state"))


async def fill(state: Path, kind: Any = "GRPC") -> None:
    """A run whose server has clusters a, b and c, and endpoints of a."""
    resources = {CLUSTER: CLUSTERS, CLUSTER_LOAD_ASSIGNMENT: {"a": ClusterLoadAssignment(cluster_name="a")}}
    async with World(resources) as server, discovering(server.port, kind, state=state) as discovery:
        subscribe(discovery, CLUSTER, None, Watcher())
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a", "x"], Watcher())
        await server.settled(4)


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
async def test_it_is_used_at_once_when_the_server_cannot_be_reached_and_replaced_later(
    kind: Any, tmp_path: Path
) -> None:
    await fill(tmp_path, kind)
    server = XdsServer()
    await server.start()
    await server.stop()
    async with discovering(server.port, kind, state=tmp_path) as discovery:
        clusters, endpoints, nobody = Watcher(), Watcher(), Watcher()
        subscribe(discovery, CLUSTER, None, clusters)
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], endpoints)
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["y"], nobody)
        await until(lambda: clusters.world == {"a": "1", "b": "1", "c": "1"} and endpoints.world == {"a": "1"})
        assert clusters.heard == [(["a", "b", "c"], [], "", True)]
        assert clusters.payloads["a"] == packed(Cluster(name="a"))
        assert nobody.heard == []
        await server.start()
        try:
            lines = await server.requests(2)
            if kind == "GRPC":
                assert lines == ["#1 Cluster all v node", "#1 ClusterLoadAssignment a,y v node"]
                await server.conversation.send(response(CLUSTER, "9", Cluster(name="a")))
            else:
                assert lines == [
                    "#1 Cluster + - [a=1,b=1,c=1] node",
                    "#1 ClusterLoadAssignment +a,y - [a=1] node",
                ]
                await server.conversation.send(delta(CLUSTER, "9", {"a": Cluster(name="a")}, ["b", "c"]))
            await until(lambda: clusters.world == {"a": "9"})
        finally:
            await server.stop()
    async with discovering(server.port, kind, state=tmp_path) as discovery:
        clusters = Watcher()
        subscribe(discovery, CLUSTER, None, clusters)
        await until(lambda: clusters.world == {"a": "9"})


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
async def test_it_is_used_when_the_server_says_nothing_in_time(kind: Any, tmp_path: Path) -> None:
    await fill(tmp_path, kind)
    async with XdsServer() as server, discovering(server.port, kind, state=tmp_path) as discovery:
        clusters, nobody, stats = Watcher(), Watcher(), SubscriptionStats()
        soon = ConfigSource(ADS, 0.05)
        subscribe(discovery, CLUSTER, None, clusters, soon, stats)
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["y"], nobody, soon)
        await until(lambda: clusters.world == {"a": "1", "b": "1", "c": "1"})
        await until(lambda: nobody.heard == ["unavailable"])
        assert stats.init_fetch_timeout == 1
        if kind == "DELTA_GRPC":  # so that the server hears what we have, and says what is gone
            await server.until(lambda: server.asked and server.asked[-1].stream == 2)
            assert "#2 Cluster + - [a=1,b=1,c=1] node" in [asked.line() for asked in server.asked]


async def test_a_server_that_answers_is_believed_and_not_the_disk(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with XdsServer() as server, discovering(server.port, state=tmp_path) as discovery:
        clusters = Watcher()
        subscribe(discovery, CLUSTER, None, clusters)
        await server.requests(1)
        await server.conversation.send(response(CLUSTER, "2", Cluster(name="z")))
        await server.requests(2)
        server.conversation.cut()
        await server.requests(3)
        assert clusters.world == {"z": "2"}


async def test_what_is_wanted_and_has_not_come_yet_stays_on_disk(tmp_path: Path) -> None:
    await fill(tmp_path)
    (path,) = states(tmp_path, "ClusterLoadAssignment")
    async with XdsServer() as server, discovering(server.port, state=tmp_path) as discovery:
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a", "b"], Watcher())
        await server.requests(1)
        await server.conversation.send(response(CLUSTER_LOAD_ASSIGNMENT, "5", ClusterLoadAssignment(cluster_name="b")))
        await server.requests(2)
    assert {name: kept.version for name, kept in read_state(path).items()} == {"a": "1", "b": "5"}


async def test_secrets_stay_off_the_disk(tmp_path: Path) -> None:
    async with (
        World({SECRET: {"key": Secret(name="key")}}) as server,
        discovering(server.port, state=tmp_path) as discovery,
    ):
        watcher = Watcher()
        subscribe(discovery, SECRET, ["key"], watcher)
        await until(lambda: watcher.world == {"key": "1"})
    assert states(tmp_path) == []


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:40] + b"x" + data[41:], lambda data: b""]
)
def test_a_damaged_file_is_ignored_with_a_warning(damage: Any, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "some" / "Cluster.state"
    kept = {"a": Kept("1", CLUSTER, Cluster(name="a").SerializeToString())}
    write_state(path, CLUSTER, kept)
    assert read_state(path) == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert read_state(path) == {}
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sidecar~10.0.0.7~a.shop~shop.svc", "sidecar~10.0.0.7~a.shop~shop.svc"),
        ("", "-"),
        ("..", "%2E%2E"),
        ("../x", "..%2Fx"),
        ("a/b\n", "a%2Fb%0A"),
    ],
)
def test_directories_are_named_by_what_is_in_them_and_stay_where_they_are(text: str, name: str) -> None:
    assert file_name(text) == name


def test_long_names_are_told_apart() -> None:
    one, other = file_name("x" * 300 + "1"), file_name("x" * 300 + "2")
    assert one != other
    assert len(one) < 200


async def test_a_newer_write_is_never_undone_by_an_older_one(tmp_path: Path) -> None:
    worker = Worker(asyncio.get_running_loop())
    kept = LastGoodFiles(worker, tmp_path, "it", "ads")
    accepted = {"a": Kept("1", CLUSTER, b"")}
    kept.save(CLUSTER, accepted, None)
    older = kept._taken()
    accepted["a"] = Kept("2", CLUSTER, b"")
    kept.save(CLUSTER, accepted, None)
    kept.flush()
    kept._write_all(*older)
    assert (await LastGoodFiles(worker, tmp_path, "it", "ads").read(CLUSTER))["a"].version == "2"
    worker.wheel.close()


async def test_a_directory_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "it").write_text("a file where the directory would be")
    await fill(tmp_path)
    assert "cannot keep what was good last" in caplog.text


async def test_resources_with_a_key_in_them_stay_off_the_disk(tmp_path: Path, caplog: Any) -> None:
    with_key = Cluster(name="key", alt_stat_name="-----BEGIN EC PRIVATE KEY-----")
    async with (
        World({CLUSTER: {"key": with_key, "a": CLUSTERS["a"]}}) as server,
        discovering(server.port, state=tmp_path) as discovery,
    ):
        watcher = Watcher()
        subscribe(discovery, CLUSTER, None, watcher)
        await until(lambda: len(watcher.world) == 2)
        await server.settled()
    (path,) = states(tmp_path)
    assert list(read_state(path)) == ["a"]
    assert "1 resources with a private key" in caplog.text
