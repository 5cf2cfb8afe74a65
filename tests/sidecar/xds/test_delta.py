"""Deltas over ADS: what is asked, what is applied, what is acknowledged, and what a new stream begins with."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT
from tests.sidecar.tls_bootstraps import until
from tests.sidecar.xds.server import XdsServer, delta
from tests.sidecar.xds.subjects import Watcher, discovering, subscribe
from tests.sidecar.xds.world import World


async def test_what_changes_and_what_goes_is_applied_and_acknowledged() -> None:
    async with XdsServer() as server, discovering(server.port, "DELTA_GRPC") as discovery:
        watcher = Watcher({"bad": "is bad"})
        subscribe(discovery, CLUSTER, None, watcher)
        assert await server.requests(1) == ["#1 Cluster + - [] node"]
        await server.conversation.send(delta(CLUSTER, "1", {"a": Cluster(name="a"), "b": Cluster(name="b")}))
        await server.conversation.send(delta(CLUSTER, "2", {"c": Cluster(name="c")}, ["a"]))
        await server.conversation.send(delta(CLUSTER, "3", {"bad": Cluster(name="bad"), "d": Cluster(name="d")}))
        lines = await server.requests(4)
        assert lines[1:] == [
            "#1 Cluster + - [] nonce=Cluster-1 node",
            "#1 Cluster + - [] nonce=Cluster-2 node",
            "#1 Cluster + - [] nonce=Cluster-3 error node",
        ]
        assert server.asked[3].message.error_detail.message == "bad: is bad"
        assert watcher.world == {"b": "1", "c": "2", "d": "3"}
        server.conversation.cut()
        lines = await server.requests(5)
        assert lines[4] == "#2 Cluster + - [b=1,c=2,d=3] node"


async def test_names_come_and_go() -> None:
    async with (
        XdsServer() as server,
        discovering(server.port, "DELTA_GRPC", set_node_on_first_message_only=True) as discovery,
    ):
        one, two = Watcher(), Watcher()
        first = subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["b", "a"], one)
        assert await server.requests(1) == ["#1 ClusterLoadAssignment +a,b - [] node"]
        second = subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["b", "c"], two)
        assert (await server.requests(2))[1] == "#1 ClusterLoadAssignment +c - []"
        made = {name: ClusterLoadAssignment(cluster_name=name) for name in "abc"}
        await server.conversation.send(delta(CLUSTER_LOAD_ASSIGNMENT, "1", made))
        assert (await server.requests(3))[2] == "#1 ClusterLoadAssignment + - [] nonce=ClusterLoadAssignment-1"
        assert (sorted(one.world), sorted(two.world)) == (["a", "b"], ["b", "c"])
        first.close()
        assert (await server.requests(4))[3] == "#1 ClusterLoadAssignment + -a []"
        second.update_names(["c", "d"])
        assert (await server.requests(5))[4] == "#1 ClusterLoadAssignment +d -b []"
        await server.conversation.send(delta(CLUSTER_LOAD_ASSIGNMENT, "2", {}, ["c", "d"]))
        await server.requests(6)
        assert two.heard[-1] == ([], ["c", "d"], "2", False)
        late = Watcher()
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, None, late)
        assert (await server.requests(7))[6] == "#1 ClusterLoadAssignment +* - []"


async def test_one_who_asks_for_what_another_has_is_told_at_once() -> None:
    async with XdsServer() as server, discovering(server.port, "DELTA_GRPC") as discovery:
        one, two = Watcher(), Watcher()
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], one)
        await server.requests(1)
        await server.conversation.send(
            delta(CLUSTER_LOAD_ASSIGNMENT, "1", {"a": ClusterLoadAssignment(cluster_name="a")})
        )
        await server.requests(2)
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], two)
        await until(lambda: two.world == {"a": "1"})
        assert len(server.asked) == 2


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
async def test_who_leaves_and_comes_back_before_the_server_has_heard_of_it_has_what_was_there(kind: Any) -> None:
    endpoints = {"a": ClusterLoadAssignment(cluster_name="a")}
    async with World({CLUSTER_LOAD_ASSIGNMENT: endpoints}) as server, discovering(server.port, kind) as discovery:
        one, two, three = Watcher(), Watcher(), Watcher()
        first = subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], one)
        await until(lambda: one.world == {"a": "1"})
        await server.settled()
        discovery.pause(CLUSTER_LOAD_ASSIGNMENT)
        first.close()
        second = subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], two)
        discovery.resume(CLUSTER_LOAD_ASSIGNMENT)
        await until(lambda: two.world == {"a": "1"})
        second.close()  # which the server hears
        subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], three)
        await until(lambda: three.world == {"a": "1"})
