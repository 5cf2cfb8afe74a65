"""State of the world over ADS: what is asked, what is applied, what is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any as Packed

from sidecar.telemetry.groups.server import SubscriptionStats
from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT
from tests.sidecar.tls_bootstraps import until
from tests.sidecar.xds.server import XdsServer, response
from tests.sidecar.xds.subjects import Watcher, discovering, subscribe


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def test_a_wildcard_subscription_is_asked_acknowledged_and_replaced() -> None:
    async def main() -> None:
        async with XdsServer() as server, discovering(server.port) as discovery:
            watcher, stats = Watcher(), SubscriptionStats()
            subscribe(discovery, CLUSTER, None, watcher, stats=stats)
            assert await server.requests(1) == ["#1 Cluster all v node"]
            assert server.asked[0].message.node.metadata["NAMESPACE"] == "shop"
            await server.conversation.send(response(CLUSTER, "1", Cluster(name="a"), Cluster(name="b")))
            assert (await server.requests(2))[1] == "#1 Cluster all v1 nonce=Cluster-1 node"
            assert watcher.heard == [(["a", "b"], [], "1", True)]
            await server.conversation.send(response(CLUSTER, "2", Cluster(name="b")))
            assert (await server.requests(3))[2] == "#1 Cluster all v2 nonce=Cluster-2 node"
            assert watcher.world == {"b": "2"}
            assert (stats.update_success, stats.update_rejected, stats.version_text) == (2, 0, "2")

    run(main())


def test_good_resources_apply_and_the_bad_one_is_named() -> None:
    async def main() -> None:
        async with XdsServer() as server, discovering(server.port) as discovery:
            watcher, stats = Watcher({"b": "has no endpoints"}), SubscriptionStats()
            subscribe(discovery, CLUSTER, None, watcher, stats=stats)
            await server.requests(1)
            await server.conversation.send(response(CLUSTER, "1", Cluster(name="a"), Cluster(name="b")))
            assert (await server.requests(2))[1] == "#1 Cluster all v nonce=Cluster-1 error node"
            assert server.asked[1].message.error_detail.message == "b: has no endpoints"
            assert server.asked[1].message.error_detail.code == 13
            assert watcher.world == {"a": "1"}
            assert (stats.update_success, stats.update_rejected) == (0, 1)

    run(main())


def test_names_are_asked_for_together_and_each_hears_of_its_own() -> None:
    async def main() -> None:
        async with XdsServer() as server, discovering(server.port) as discovery:
            discovery.pause(CLUSTER_LOAD_ASSIGNMENT)
            one, two = Watcher(), Watcher()
            subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["b"], one)
            second = subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], two)
            assert server.asked == []
            discovery.resume(CLUSTER_LOAD_ASSIGNMENT)
            assert await server.requests(1) == ["#1 ClusterLoadAssignment a,b v node"]
            answer = response(CLUSTER_LOAD_ASSIGNMENT, "7", ClusterLoadAssignment(cluster_name="a"))
            await server.conversation.send(answer)
            await server.requests(2)
            assert (one.heard, two.heard) == ([], [(["a"], [], "7", False)])
            second.close()
            expected = "#1 ClusterLoadAssignment b v7 nonce=ClusterLoadAssignment-1 node"
            assert (await server.requests(3))[2] == expected

    run(main())


def test_what_is_known_is_told_to_who_asks_later() -> None:
    async def main() -> None:
        async with XdsServer() as server, discovering(server.port) as discovery:
            one, two = Watcher(), Watcher()
            subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], one)
            await server.requests(1)
            answer = response(CLUSTER_LOAD_ASSIGNMENT, "7", ClusterLoadAssignment(cluster_name="a"))
            await server.conversation.send(answer)
            await server.requests(2)
            subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], two)
            await until(lambda: two.world == {"a": "7"})

    run(main())


def test_after_a_restart_of_the_server_everything_is_asked_again_with_the_last_version() -> None:
    async def main() -> None:
        async with XdsServer() as server, discovering(server.port) as discovery:
            watcher, stats = Watcher(), SubscriptionStats()
            subscribe(discovery, CLUSTER, None, watcher, stats=stats)
            subscribe(discovery, CLUSTER_LOAD_ASSIGNMENT, ["a"], Watcher())
            await server.requests(2)
            await server.conversation.send(response(CLUSTER, "1", Cluster(name="a")))
            await server.requests(3)
            await server.stop()
            await until(lambda: stats.update_failure > 0)
            await server.start()
            lines = await server.requests(5)
            assert lines[3:] == ["#2 Cluster all v1 node", "#2 ClusterLoadAssignment a v node"]
            assert watcher.world == {"a": "1"}

    run(main())


def test_resources_that_cannot_be_read_are_rejected_and_nothing_is_taken_away() -> None:
    async def main() -> None:
        async with XdsServer() as server, discovering(server.port) as discovery:
            watcher = Watcher()
            subscribe(discovery, CLUSTER, None, watcher)
            await server.requests(1)
            await server.conversation.send(response(CLUSTER, "1", Cluster(name="a"), Cluster(name="b")))
            await server.requests(2)
            garbage = Packed(type_url=CLUSTER, value=b"\xff\xff\xff")
            other = ClusterLoadAssignment(cluster_name="a")
            await server.conversation.send(response(CLUSTER, "2", Cluster(name="b"), garbage, other))
            await server.requests(3)
            request = server.asked[2].message
            assert request.version_info == "1"
            assert "does not hold a envoy.config.cluster.v3.Cluster" in request.error_detail.message
            assert "ClusterLoadAssignment, in a response of type" in request.error_detail.message
            assert watcher.world == {"a": "1", "b": "2"}
            await server.conversation.send(response(CLUSTER, "3", Cluster(name="c"), Cluster(name="c")))
            await server.requests(4)
            assert server.asked[3].message.error_detail.message == "c: occurs twice in one response"
            assert watcher.world == {"a": "1", "b": "2"}

    run(main())
