"""Clusters whose hosts are checked: when they are warm, and hosts that stay though they are no longer to be found."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.manager import ClusterManager
from sidecar.config.cluster import Cluster as ClusterConfig
from tests.sidecar.cluster.health_checks.checking import Checking
from tests.sidecar.cluster.surroundings import Clock, Stages, make_hosts, seeded
from tests.sidecar.config.resources import endpoints, load_cluster, socket_address

CHECK = {"timeout": "1s", "interval": "5s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {}}


class CheckedStages(Stages):
    """With a health checker whose probes do as they are told."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.checking: Any = None

    def health_checker(self, cluster: Cluster) -> Any:
        self.checking = Checking(self.clock, [], healthy_threshold=1, unhealthy_threshold=1, timeout=1000.0)
        self.checking.checker._changed = cluster.refresh_health
        return self.checking.checker


class Warming:
    """A manager with one cluster."""

    def __init__(self, clock: Clock, **fields: Any) -> None:
        self.clock = clock
        self.stages = CheckedStages(clock)
        self.manager = ClusterManager(self.stages, clock.wheel, seeded())
        config: ClusterConfig = load_cluster(health_checks=[CHECK], **fields)
        self.cluster = self.manager.add(config)
        self.ready = False
        self.manager.start(self._on_ready)
        clock.advance(0.05)

    def _on_ready(self) -> None:
        self.ready = True

    def tell(self, healthy: bool, *ips: str) -> None:
        """What the checks of these hosts come to."""
        for host, probe in list(self.stages.checking.probes.items()):
            if host.address.ip in ips:
                if healthy:
                    probe.outcome.succeeded()
                else:
                    probe.outcome.failed("ACTIVE")
        self.clock.advance(0.05)

    def found(self) -> dict[str, str]:
        return {host.address.ip or "": host.health_flags() for host in self.cluster.hosts}

    def resolve(self, *addresses: str) -> None:
        self.stages.scripted.answer(*addresses)
        self.clock.advance(0.05)

    def resolve_later(self, *addresses: str) -> None:
        """The next refresh."""
        self.clock.advance(6)
        self.resolve(*addresses)


def static(*ips: str) -> dict[str, Any]:
    return {"load_assignment": {"cluster_name": "c", "endpoints": endpoints(*(socket_address(ip, 80) for ip in ips))}}


def named(**fields: Any) -> dict[str, Any]:
    return {**static("db.internal"), "type": "STRICT_DNS", "dns_refresh_rate": "5s", **fields}


def test_a_static_cluster_is_warm_when_each_host_was_checked(clock: Clock) -> None:
    warming = Warming(clock, **static("10.0.0.1", "10.0.0.2"))
    assert warming.found() == dict.fromkeys(("10.0.0.1", "10.0.0.2"), "/failed_active_hc")
    warming.tell(True, "10.0.0.1")
    assert not warming.ready
    warming.tell(False, "10.0.0.2")
    assert warming.ready and warming.cluster.initialised
    assert [host.address.ip for host in warming.cluster.host_sets[0].healthy] == ["10.0.0.1"]
    assert warming.stages.stats["c"].seen()["membership_healthy"] == 1


def test_a_host_that_is_found_later_is_checked_before_it_serves(clock: Clock) -> None:
    warming = Warming(clock, **named())
    assert not warming.ready
    warming.resolve("10.0.0.1")
    assert not warming.ready
    warming.tell(True, "10.0.0.1")
    assert warming.ready
    warming.resolve_later("10.0.0.1", "10.0.0.2")
    assert warming.found() == {"10.0.0.1": "healthy", "10.0.0.2": "/failed_active_hc"}
    assert [host.address.ip for host in warming.cluster.host_sets[0].healthy] == ["10.0.0.1"]
    warming.tell(True, "10.0.0.2")
    assert len(warming.cluster.host_sets[0].healthy) == 2


def test_nobody_waits_for_names_where_that_is_not_wanted(clock: Clock) -> None:
    assert Warming(clock, **named(wait_for_warm_on_init=False)).ready
    assert not Warming(clock, **static("10.0.0.1"), wait_for_warm_on_init=False).ready, "this is not about names"


def test_the_host_of_a_logical_name_is_presumed_healthy(clock: Clock) -> None:
    hosts = make_hosts(1)
    checking = Checking(clock, [])
    checking.checker._presume_healthy = True
    checking.checker.admit(hosts)
    assert hosts[0].health_flags() == "healthy"


def test_a_healthy_host_that_is_no_longer_found_stays_until_it_fails(clock: Clock) -> None:
    warming = Warming(clock, **named())
    warming.resolve("10.0.0.1", "10.0.0.2")
    warming.tell(True, "10.0.0.1", "10.0.0.2")
    (first, second) = warming.cluster.hosts
    warming.resolve_later("10.0.0.2")
    assert warming.found() == {"10.0.0.1": "/pending_dynamic_removal", "10.0.0.2": "healthy"}
    assert first in warming.cluster.host_sets[0].healthy
    warming.tell(False, "10.0.0.2")
    assert warming.found() == {"10.0.0.1": "/pending_dynamic_removal", "10.0.0.2": "/failed_active_hc"}
    warming.tell(False, "10.0.0.1")
    assert warming.found() == {"10.0.0.2": "/failed_active_hc"}
    assert first.removed and not second.removed
    assert warming.stages.checking.probes[first].closed


def test_one_that_is_found_again_is_the_same(clock: Clock) -> None:
    warming = Warming(clock, **named())
    warming.resolve("10.0.0.1", "10.0.0.2")
    warming.tell(True, "10.0.0.1", "10.0.0.2")
    first = warming.cluster.hosts[0]
    warming.resolve_later("10.0.0.2")
    warming.resolve_later("10.0.0.2", "10.0.0.1")
    assert first in warming.cluster.hosts and len(warming.cluster.hosts) == 2
    assert warming.found() == dict.fromkeys(("10.0.0.1", "10.0.0.2"), "healthy")


@pytest.mark.parametrize("ignore", [True, False])
def test_one_that_fails_leaves_at_once_and_so_do_all_where_health_is_ignored(clock: Clock, ignore: bool) -> None:
    warming = Warming(clock, **named(ignore_health_on_host_removal=ignore))
    warming.resolve("10.0.0.1", "10.0.0.2", "10.0.0.3")
    warming.tell(True, "10.0.0.2", "10.0.0.3")
    warming.tell(False, "10.0.0.1")
    warming.resolve_later("10.0.0.3")
    assert list(warming.found()) == (["10.0.0.3"] if ignore else ["10.0.0.3", "10.0.0.2"])


def test_closing_ends_checks_and_keeps_nobody(clock: Clock) -> None:
    warming = Warming(clock, **named())
    warming.resolve("10.0.0.1")
    warming.tell(True, "10.0.0.1")
    warming.manager.close()
    assert warming.cluster.hosts == []
    assert all(probe.closed for probe in warming.stages.checking.probes.values())
    assert len(clock.wheel) == 0
