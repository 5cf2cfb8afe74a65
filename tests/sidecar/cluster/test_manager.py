"""All clusters together: the start, new versions that warm behind the old one, removal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.cluster.dns_cache import DnsCache
from sidecar.cluster.manager import ClusterManager
from sidecar.config.address import SocketAddress
from sidecar.config.circuit_breakers import CircuitBreakers, RetryBudget, Thresholds
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.common_lb import CommonLbConfig
from sidecar.config.dns import DnsSettings
from sidecar.config.dns_cache import DnsCacheConfig
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from sidecar.config.health_check import HealthCheck, TcpHealthCheck
from sidecar.config.lb_policies import LbConfig, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig
from sidecar.config.outlier_detection import OutlierDetection
from tests.sidecar.cluster.surroundings import PLAIN, Clock, Counts, Stages, picks, seeded


def config(name: str, *addresses: str, kind: str = "STATIC", **more: Any) -> ClusterConfig:
    endpoints = tuple(LbEndpoint(SocketAddress(address, 80)) for address in addresses)
    return ClusterConfig(name, name, kind, ClusterLoadAssignment(name, (LocalityLbEndpoints(endpoints),)), **more)


def manager_of(clock: Clock, *configs: ClusterConfig) -> tuple[ClusterManager, Stages]:
    stages = Stages()
    manager = ClusterManager(stages, clock.wheel, seeded())
    for each in configs:
        manager.add(each)
    return manager, stages


def test_ready_when_all_clusters_are(clock: Clock) -> None:
    names = [config("one", "one.test", kind="STRICT_DNS"), config("two", "two.test", kind="LOGICAL_DNS")]
    manager, stages = manager_of(clock, config("static", "10.0.0.1"), *names)
    ready: list[bool] = []
    manager.start(lambda: ready.append(True))
    assert set(manager.warming) == {"one", "two"} and set(manager.clusters) == {"static", "one", "two"}
    stages.scripted.answer("10.0.0.2")
    assert not ready and set(manager.warming) == {"two"}
    stages.scripted.answer(failed=True)
    assert ready == [True] and not manager.warming
    one = manager.get("one")
    assert one is not None and picks(one.pick, 3) == {"10.0.0.2:80": 3}
    assert manager.get("unknown") is None


def test_static_clusters_are_ready_at_once(clock: Clock) -> None:
    ready: list[bool] = []
    manager, _ = manager_of(clock, config("a", "10.0.0.1"), config("b"))
    manager.start(lambda: ready.append(True))
    assert ready == [True]
    manager, _ = manager_of(clock)
    manager.start(lambda: ready.append(True))
    assert ready == [True, True]


def test_a_new_version_serves_once_it_is_warm(clock: Clock) -> None:
    manager, stages = manager_of(clock, config("a", "10.0.0.1"))
    gone: list[str] = []
    manager.on_membership = lambda added, removed: gone.extend(host.address.text for host in removed)
    manager.add(config("b", "10.0.0.9"))
    manager.start(lambda: None)
    old = manager.get("a")
    manager.add(config("a", "a.test", kind="STRICT_DNS"))
    assert manager.get("a") is old and "a" in manager.warming
    newer = manager.add(config("a", "newer.test", kind="STRICT_DNS"))
    stages.scripted.answer("10.0.0.2")
    assert manager.get("a") is old
    stages.scripted.answer("10.0.0.3")
    assert manager.get("a") is newer and not manager.warming
    assert [host.address.text for host in newer.hosts] == ["10.0.0.3:80"]
    assert old is not None and old.hosts == []
    assert stages.stats["a"].membership_total == 1


def test_removal_and_closing(clock: Clock) -> None:
    manager, stages = manager_of(clock)
    gone: list[str] = []
    manager.on_membership = lambda added, removed: gone.extend(host.address.text for host in removed)
    manager.add(config("a", "10.0.0.1"))
    manager.add(config("b", "10.0.0.2"))
    manager.start(lambda: None)
    assert manager.remove("a") and not manager.remove("a")
    assert manager.get("a") is None and gone == ["10.0.0.1:80"]
    manager.add(config("dns", "dns.test", kind="STRICT_DNS"))
    manager.add(config("dns", "dns.test", kind="STRICT_DNS"))
    assert stages.cluster_manager_stats.seen() == {"cluster_added": 3, "cluster_modified": 1, "cluster_removed": 1}
    manager.close()
    assert gone == ["10.0.0.1:80", "10.0.0.2:80"]
    assert not manager.clusters and not manager.warming
    assert len(clock.wheel) == 0


def test_limits_and_outlier_detection_come_from_the_configuration(clock: Clock) -> None:
    budget = RetryBudget(10.0, 1)
    breakers = CircuitBreakers(Thresholds(1, 2, 3, 4, None, True), Thresholds(retry_budget=budget))
    manager, stages = manager_of(
        clock,
        config("a", "10.0.0.1", circuit_breakers=breakers, outlier_detection=OutlierDetection(consecutive_5xx=1)),
        config("b", "10.0.0.1"),
    )
    cluster, other = manager.get("a"), manager.get("b")
    assert cluster is not None and other is not None
    default, high = cluster.breakers
    assert (default.max_connections, default.max_pending_requests, default.max_requests) == (1, 2, 3)
    assert (default.max_retries, default.track_remaining, high.retry_budget) == (4, True, budget)
    assert other.outlier is None and set(stages.outliers) == {"a"}
    assert cluster.outlier is not None
    cluster.outlier.on_status(cluster.hosts[0], 500)
    assert stages.outliers["a"].ejections_overflow == 1


@pytest.mark.parametrize(
    ("policy", "own"),
    [
        ("LEAST_REQUEST", LeastRequestLbConfig()),
        ("RING_HASH", RingHashLbConfig()),
        ("MAGLEV", MaglevLbConfig()),
    ],
)
def test_policies_with_a_configuration(policy: str, own: LbConfig, clock: Clock) -> None:
    addresses = [f"10.0.0.{number}" for number in range(4)]
    manager, _ = manager_of(clock, config("a", *addresses, lb_policy=policy, lb_config=own))
    ready: list[bool] = []
    manager.start(lambda: ready.append(True))
    clock.advance(0.1)
    cluster = manager.get("a")
    assert ready and cluster is not None and cluster.pick(PLAIN) is not None
    assert len(picks(cluster.pick, 200)) == 4


def test_many_clusters_start_without_a_timer(clock: Clock) -> None:
    configs = [config(f"c{number}", *(f"10.0.{number}.{last}" for last in range(10))) for number in range(200)]
    manager, _ = manager_of(clock, *configs)
    manager.start(lambda: None)
    assert len(clock.wheel) == 0


class Drained:
    """A pool that counts how often its connections were to go."""

    def __init__(self) -> None:
        self.times = 0

    def drain_connections(self) -> None:
        self.times += 1


@pytest.mark.parametrize(("wanted", "times"), [(True, 1), (False, 0)])
def test_connections_go_when_the_hosts_change_if_that_is_wanted(wanted: bool, times: int, clock: Clock) -> None:
    common = CommonLbConfig(close_connections_on_host_set_change=wanted)
    configured = replace(config("a", "a.test", kind="STRICT_DNS"), common_lb_config=common)
    manager, stages = manager_of(clock, configured)
    manager.start(lambda: None)
    stages.scripted.answer("10.0.0.1", "10.0.0.2", ttl=1)
    cluster = manager.get("a")
    assert cluster is not None
    pools = [Drained() for _ in cluster.hosts]
    for host, pool in zip(cluster.hosts, pools, strict=True):
        host.pool = pool
    cluster.refresh_health()
    assert [pool.times for pool in pools] == [0, 0]
    clock.advance(6.0)
    stages.scripted.answer("10.0.0.1", "10.0.0.3", ttl=1)
    assert [pool.times for pool in pools] == [times, 0], "what left drains by itself"


@pytest.mark.parametrize("status", ["DRAINING", "UNHEALTHY", "TIMEOUT"])
def test_a_host_that_is_to_get_no_more_requests_keeps_its_connections(status: str, clock: Clock) -> None:
    manager, _ = manager_of(clock, config("a", "10.0.0.1", "10.0.0.2"))
    manager.start(lambda: None)
    cluster = manager.get("a")
    assert cluster is not None
    pool = cluster.hosts[0].pool = Drained()
    cluster.hosts[0].set_health_status(status)
    cluster.refresh_health()
    assert picks(cluster.pick, 10) == {"10.0.0.2:80": 10}
    assert pool.times == 0


class Forwarding(Stages):
    """Stages with caches of names, in which there is something that a cluster needs and cannot have."""

    def __init__(self, clock: Clock, missing: str) -> None:
        super().__init__()
        self.clock = clock
        self.missing = missing
        self.closed: list[DnsCache] = []

    def dns_cache(self, config: DnsCacheConfig) -> DnsCache:
        counts: Any = Counts()
        return DnsCache(config, counts, counts, self.scripted, self.clock.wheel, seeded(), self.closed.append).open()

    def outlier_events(self) -> None:
        self._find("outlier_events")

    def health_checker(self, cluster: Any) -> Any:
        self._find("health_checker")

    def needs_of(self, config: ClusterConfig) -> tuple[()]:
        self._find("needs_of")
        return ()

    def _find(self, what: str) -> None:
        if what == self.missing:
            raise OSError(what)


@pytest.mark.parametrize("missing", ["outlier_events", "health_checker", "needs_of", ""])
def test_a_cluster_that_cannot_be_made_leaves_its_cache_of_names(missing: str, clock: Clock) -> None:
    stages = Forwarding(clock, missing)
    manager = ClusterManager(stages, clock.wheel, seeded())
    forward = ClusterConfig(
        "a",
        "a",
        "DYNAMIC_FORWARD_PROXY",
        ClusterLoadAssignment("a"),
        dns_cache=DnsCacheConfig("c", DnsSettings()),
        outlier_detection=OutlierDetection(),
        health_check=HealthCheck(TcpHealthCheck(), 1.0, 1.0, 1, 1) if missing == "health_checker" else None,
    )
    if missing:
        with pytest.raises(OSError, match=missing):
            manager.add(forward)
        assert not manager.clusters and len(stages.closed) == 1
    else:
        manager.add(forward)
        assert not stages.closed
