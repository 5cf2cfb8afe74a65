"""Clusters and their endpoints that come, change and go while the sidecar runs, handed to it as a management server would."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.server import Server
from sidecar.stack import Stack
from tests.sidecar.xds.driving import ADS, DYNAMIC, XDS_CLUSTER, HandDriven, assignment, drive


def eds(name: str, **more: Any) -> dict[str, Any]:
    """An EDS cluster."""
    return {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": ADS}, "connect_timeout": "1s", **more}


class Sidecar:
    """A sidecar with clusters from CDS, whose first answer are ``clusters``."""

    def __init__(self, driven: HandDriven, *clusters: dict[str, Any], **more: Any) -> None:
        self.driven = driven
        self.clusters = clusters
        self.server = Server(
            {
                "static_resources": {"clusters": [XDS_CLUSTER]},
                "node": {"id": "it", "cluster": "us"},
                "dynamic_resources": {**DYNAMIC, "cds_config": ADS},
                **more,
            }
        )
        self.rejections: list[Any] = []

    async def __aenter__(self) -> Sidecar:
        self.starting = asyncio.create_task(self.server.start())
        async with asyncio.timeout(5):
            while not self.driven.interests:
                await asyncio.sleep(0)
        self.rejections = await self.driven.send("Cluster", list(self.clusters))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.starting.cancel()
        await asyncio.gather(self.starting, return_exceptions=True)
        await self.server.stop()

    @property
    def stack(self) -> Stack:
        assert self.server.stack is not None
        return self.server.stack

    def hosts(self, name: str) -> list[str]:
        """Those of a cluster in use."""
        cluster = self.stack.clusters.get(name)
        assert cluster is not None
        return [host.address.text for host in cluster.hosts]

    def shown(self, prefix: str) -> list[str]:
        """The groups of statistics."""
        return [group.prefix for group in self.stack.store if group.prefix.startswith(prefix)]


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> HandDriven:
    return drive(monkeypatch)


async def test_the_start_waits_for_clusters_and_their_first_endpoints(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a"), eds("b")) as sidecar:
        assert driven.wanted("ClusterLoadAssignment") == ["a", "b"]
        assert not driven.paused
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1, 2)})
        assert not sidecar.starting.done()
        assert sidecar.stack.clusters.get("a") is not None and sidecar.stack.clusters.get("b") is None
        await driven.send("ClusterLoadAssignment", {"b": assignment("b", 3)})
        await sidecar.starting
        assert sidecar.hosts("a") == ["127.0.0.1:1", "127.0.0.1:2"]


async def test_a_bad_cluster_is_rejected_by_name_and_the_others_apply(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a"), eds("b", track_timeout_budgets=True), {"name": "xds"}, eds("a")) as sidecar:
        assert [(one.name, one.reason.partition(":")[0].partition(";")[0]) for one in sidecar.rejections] == [
            ("b", "track_timeout_budgets"),
            ("a", "another cluster of this update has the same name"),
        ]
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1)})
        await sidecar.starting
        before = sidecar.stack.clusters.get("a")
        rejections = await driven.send("Cluster", {"a": eds("a", lb_policy="CLUSTER_PROVIDED")}, "2")
        assert [one.name for one in rejections] == ["a"]
        assert sidecar.stack.clusters.get("a") is before
        assert sidecar.stack.clusters.clusters["xds"].config.type == "STATIC"  # that of the bootstrap is never replaced


async def test_an_unchanged_cluster_stays_and_a_changed_one_is_replaced_when_it_is_warm(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a"), eds("b")) as sidecar:
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1), "b": assignment("b", 2)})
        await sidecar.starting
        stack = sidecar.stack
        a, b = stack.clusters.get("a"), stack.clusters.get("b")
        await driven.send("Cluster", [eds("a"), eds("b", connect_timeout="2s")], "2")
        assert stack.clusters.get("a") is a and stack.clusters.get("b") is b
        assert list(stack.clusters.warming) == ["b"]
        stats: Any = stack.clusters.warming["b"].stats
        assert stats.warming_state == 1
        await driven.send("ClusterLoadAssignment", {"b": assignment("b", 3)})
        assert stack.clusters.get("a") is a
        assert sidecar.hosts("b") == ["127.0.0.1:3"]
        assert stats.warming_state == 0
        assert stack.cluster_manager_stats.cluster_modified == 1


async def test_a_version_that_takes_the_place_of_one_that_was_never_warm_counts_where_all_can_see_it(
    driven: HandDriven,
) -> None:
    async with Sidecar(driven, eds("a")) as sidecar:
        await driven.send("Cluster", [eds("a", connect_timeout="2s")], "2")
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1, 2)})
        await sidecar.starting
        cluster = sidecar.stack.clusters.get("a")
        assert cluster is not None and cluster.config.connect_timeout == 2.0
        assert any(group is cluster.stats for group in sidecar.stack.store)
        await driven.send("Cluster", {}, "3", removed=["a"])
        assert sidecar.shown("cluster.a.") == []


async def test_nothing_is_left_of_a_cluster_that_is_gone(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a"), eds("b")) as sidecar:
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1), "b": assignment("b", 2)})
        await sidecar.starting
        assert len(sidecar.shown("cluster.b.")) == 4
        await driven.send("Cluster", [eds("a")], "2")
        assert sidecar.stack.clusters.get("b") is None
        assert sidecar.shown("cluster.b.") == []
        assert driven.wanted("ClusterLoadAssignment") == ["a"]
        assert sidecar.stack.cluster_manager_stats.cluster_removed == 1
        await driven.send("Cluster", {}, "3", removed=["a"])
        assert driven.wanted("ClusterLoadAssignment") == []
        assert sidecar.stack.clusters.get("xds") is not None


async def test_hosts_that_stay_keep_all_that_is_known_of_them(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a")) as sidecar:
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1, 2)})
        await sidecar.starting
        cluster: Any = sidecar.stack.clusters.get("a")
        first, second = cluster.hosts
        changed = assignment("a", 2, 3)
        changed["endpoints"][0]["lb_endpoints"][0] |= {
            "load_balancing_weight": 7,
            "health_status": "DRAINING",
            "metadata": {"filter_metadata": {"envoy.lb": {"canary": True}}},
        }
        changed["endpoints"][0]["priority"] = 1
        await driven.send("ClusterLoadAssignment", {"a": changed}, "2")
        again, third = cluster.hosts
        assert again is second and third.address.port == 3 and first.removed
        assert (again.weight, again.priority, again.canary, again.usable) == (7, 1, True, False)
        assert cluster.stats.membership_change == 2
        assert cluster.stats.membership_total == 2


async def test_an_assignment_that_is_gone_changes_nothing_and_an_empty_one_does(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a")) as sidecar:
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1)})
        await sidecar.starting
        await driven.send("ClusterLoadAssignment", {}, "2", removed=["a"])
        assert sidecar.hosts("a") == ["127.0.0.1:1"]
        await driven.send("ClusterLoadAssignment", {"a": {"cluster_name": "a"}}, "3")
        assert sidecar.hosts("a") == []


async def test_endpoints_go_stale_when_nothing_is_heard_of_them(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a")) as sidecar:
        stale = assignment("a", 1, policy={"endpoint_stale_after": "0.05s"})
        await driven.send("ClusterLoadAssignment", {"a": stale})
        await sidecar.starting
        assert sidecar.hosts("a") == ["127.0.0.1:1"]
        async with asyncio.timeout(5):
            while sidecar.hosts("a"):
                await asyncio.sleep(0.01)
        stats: Any = sidecar.stack.clusters.clusters["a"].stats
        assert stats.assignment_stale == 1


async def test_a_bad_assignment_is_rejected_and_the_last_good_one_stays(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a")) as sidecar:
        await driven.send("ClusterLoadAssignment", {"a": assignment("a", 1)})
        await sidecar.starting
        bad = assignment("a", 2)
        bad["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = "name.test"
        (rejection,) = await driven.send("ClusterLoadAssignment", {"a": bad}, "2")
        assert rejection.name == "a" and "is no IP address" in rejection.reason
        assert sidecar.hosts("a") == ["127.0.0.1:1"]


async def test_nobody_answers(driven: HandDriven) -> None:
    async with Sidecar(driven, eds("a")) as sidecar:
        (interest,) = [one for one in driven.interests if one.names]
        interest.watcher.on_unavailable()
        await sidecar.starting
        assert sidecar.hosts("a") == []
