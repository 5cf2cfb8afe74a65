"""Whatever happens in whatever order: in the end everybody has what the server has, and every response was answered once."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any as Packed

from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT
from tests.sidecar.tls_bootstraps import until
from tests.sidecar.xds.subjects import Watcher, discovering, subscribe
from tests.sidecar.xds.world import World

NAMES = "abcde"
STEPS = 60


class Chance:
    """A server, sidecars' interests, and what chance does to them."""

    def __init__(self, seed: int, world: World, discovery: Any) -> None:
        self.random = Random(seed)
        self.world = world
        self.discovery = discovery
        self.clusters = Watcher({"bad": "is bad"})
        self.endpoints: dict[Any, Watcher] = {}
        self.paused = 0
        self.number = 0
        subscribe(discovery, CLUSTER, None, self.clusters)

    async def step(self) -> None:
        """One thing."""
        what = self.random.choice(
            [self.change_clusters] * 3
            + [self.change_endpoints] * 3
            + [self.subscribe] * 3
            + [self.close, self.rename, self.pause, self.resume, self.cut, self.end, self.garbage, self.wait]
        )
        await what()

    def some(self) -> list[str]:
        return self.random.sample(NAMES, self.random.randrange(1, 4))

    async def change_clusters(self) -> None:
        self.number += 1
        changed = {name: Cluster(name=name, alt_stat_name=str(self.number)) for name in self.some()}
        if self.random.random() < 0.2:
            changed["bad"] = Cluster(name="bad")
        removed = [name for name in self.some() if name not in changed]
        await self.world.set(CLUSTER, changed, [*removed, *([] if "bad" in changed else ["bad"])])

    async def change_endpoints(self) -> None:
        self.number += 1
        made = {name: ClusterLoadAssignment(cluster_name=name) for name in self.some()}
        for one in made.values():
            one.policy.drop_overloads.add(category=str(self.number))
        await self.world.set(CLUSTER_LOAD_ASSIGNMENT, made)

    async def subscribe(self) -> None:
        watcher = Watcher()
        self.endpoints[subscribe(self.discovery, CLUSTER_LOAD_ASSIGNMENT, self.some(), watcher)] = watcher

    async def close(self) -> None:
        if self.endpoints:
            chosen = self.random.choice(list(self.endpoints))
            del self.endpoints[chosen]
            chosen.close()

    async def rename(self) -> None:
        if self.endpoints:
            self.random.choice(list(self.endpoints)).update_names(self.some())

    async def pause(self) -> None:
        self.paused += 1
        self.discovery.pause(CLUSTER_LOAD_ASSIGNMENT)

    async def resume(self) -> None:
        if self.paused:
            self.paused -= 1
            self.discovery.resume(CLUSTER_LOAD_ASSIGNMENT)

    async def cut(self) -> None:
        if self.world.conversations:
            self.world.conversation.cut()

    async def end(self) -> None:
        if self.world.conversations and self.world.conversation.open:
            await self.world.conversation.end()

    async def garbage(self) -> None:
        """A resource that is none, beside what there is: it is refused, and the rest applies."""
        for conversation in self.world.conversations:
            wanted = self.world.wanted.get((conversation.number, CLUSTER))
            if conversation.open and wanted and not conversation.is_delta:
                message = self.world._whole(CLUSTER, wanted)
                message.resources.append(Packed(type_url=CLUSTER, value=b"\xff"))
                await conversation.send(self.world._noted(conversation, message))

    async def wait(self) -> None:
        await asyncio.sleep(self.random.random() * 0.02)

    def is_right(self) -> bool:
        """Whether all have what the server has: every version apart, for deltas tell them one by one."""
        clusters = self.world.resources.get(CLUSTER, {})
        endpoints = self.world.resources.get(CLUSTER_LOAD_ASSIGNMENT, {})
        if contents(self.clusters, clusters.keys() - {"bad"}) != serialized(clusters, clusters.keys() - {"bad"}):
            return False
        return all(
            contents(watcher, interest.names) == serialized(endpoints, interest.names)
            for interest, watcher in self.endpoints.items()
        )


def serialized(resources: dict[str, Any], names: Any) -> dict[str, bytes]:
    return {name: resources[name].SerializeToString() for name in names if name in resources}


def contents(watcher: Watcher, names: Any) -> dict[str, bytes]:
    return {name: watcher.payloads[name].value for name in names if name in watcher.world}


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
@pytest.mark.parametrize("seed", range(8))
async def test_in_the_end_all_is_well(kind: Any, seed: int) -> None:
    async with World() as world, discovering(world.port, kind) as discovery:
        chance = Chance(seed, world, discovery)
        for _ in range(STEPS):
            try:
                await chance.step()
            except Exception as error:
                if not hung_up(error):
                    raise
        while chance.paused:
            await chance.resume()
        await world.set(CLUSTER, {}, ["bad"])
        await until(lambda: world.is_settled and chance.is_right(), 20)
        assert not any(name == "bad" for name in chance.clusters.world)
        answers = Counter(
            (asked.stream, asked.message.type_url, asked.message.response_nonce)
            for asked in world.asked
            if asked.is_delta and asked.message.response_nonce
        )
        assert all(count == 1 for count in answers.values())


def hung_up(error: Exception) -> bool:
    """Whether the server has found a stream gone while it spoke."""
    return type(error).__name__ in ("StreamTerminatedError", "ProtocolError", "ConnectionClosed", "StreamClosedError")
