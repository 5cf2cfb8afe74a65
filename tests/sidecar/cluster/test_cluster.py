"""A cluster by itself: membership, health, readiness, tables that take several slices, and what it weighs."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.context import LoadBalancerContext, Pick
from sidecar.cluster.endpoints import static_host_sets
from sidecar.cluster.host import FAILED_OUTLIER_CHECK, Host
from sidecar.cluster.host_set import HostSets, host_sets_of
from sidecar.cluster.load_balancers.configured import balancer_of
from sidecar.cluster.load_balancers.flat import LeastRequest, RoundRobin
from sidecar.cluster.load_balancers.layered import Build, CommonOptions, LayeredBalancer
from sidecar.cluster.manager import make_cluster as make_configured_cluster
from sidecar.cluster.slices import Slices
from sidecar.config.address import Pipe, SocketAddress
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from tests.sidecar.cluster.surroundings import (
    PLAIN,
    Clock,
    Counts,
    Stages,
    cluster_stats,
    make_cluster,
    make_hosts,
    picks,
    seeded,
)


def round_robin() -> LayeredBalancer:
    return LayeredBalancer(RoundRobin(seeded()), CommonOptions(seeded(), cluster_stats()))


class Slow:
    """A balancer whose work takes as many slices as told."""

    def __init__(self, clock: Clock, steps: int) -> None:
        self.clock = clock
        self.steps = steps

    def build(self, host_sets: HostSets) -> Build:
        hosts = [host for host_set in host_sets for host in host_set.hosts]
        for _ in range(self.steps):
            self.clock.now += 0.001
            yield

        def pick(context: LoadBalancerContext) -> Host | None:
            return hosts[0] if hosts else None

        result: Pick = pick
        return result


@pytest.mark.parametrize(
    ("status", "text", "usable", "degraded"),
    [
        ("UNKNOWN", "healthy", True, False),
        ("HEALTHY", "healthy", True, False),
        ("UNHEALTHY", "/failed_eds_health", False, False),
        ("TIMEOUT", "/failed_eds_health", False, False),
        ("DRAINING", "/eds_status_draining", False, False),
        ("DEGRADED", "/degraded_eds_health", True, True),
    ],
)
def test_health_statuses_of_endpoints(status: str, text: str, usable: bool, degraded: bool) -> None:
    """The texts are those of Envoy 1.40's /clusters for the same statuses."""
    (host,) = make_hosts(1, health_status=status)
    assert (host.health_flags(), host.usable, host.degraded) == (text, usable, degraded)
    host.set_flag(FAILED_OUTLIER_CHECK, True)
    assert not host.usable
    assert not host.set_flag(FAILED_OUTLIER_CHECK, False) or usable
    host.set_health_status("HEALTHY")
    assert host.health_flags() == "healthy" and host.usable


def test_addresses_of_endpoints() -> None:
    group = LocalityLbEndpoints((LbEndpoint(SocketAddress("::1", 80)), LbEndpoint(Pipe("/run/x.sock"))))
    (host_set,) = static_host_sets(ClusterLoadAssignment("c", (group,)), False)
    assert [host.address.text for host in host_set.hosts] == ["[::1]:80", "/run/x.sock"]
    assert host_set.hosts[1].address.ip is None


def test_membership_changes_are_counted_and_told(clock: Clock) -> None:
    stats = Counts()
    hosts = make_hosts(4)
    cluster = make_cluster(clock, round_robin(), host_sets_of(hosts[:3]), stats)
    told: list[tuple[Sequence[Host], Sequence[Host]]] = []
    cluster.on_membership = (lambda added, removed: told.append((added, removed)),)
    assert stats.seen() == {
        "membership_change": 1,
        "membership_total": 3,
        "membership_healthy": 3,
        "transport_socket_total_match_count": 3,
    }
    hosts[1].set_health_status("DEGRADED")
    cluster.update(host_sets_of(hosts[1:]))
    assert told == [([hosts[3]], [hosts[0]])]
    assert hosts[0].removed and not hosts[1].removed
    assert stats.seen() == {
        "membership_change": 2,
        "membership_total": 3,
        "membership_healthy": 2,
        "membership_degraded": 1,
        "transport_socket_total_match_count": 4,
    }
    cluster.update(host_sets_of(hosts[1:]))
    assert stats.membership_change == 2 and len(told) == 1


def test_a_new_health_changes_what_is_picked(clock: Clock) -> None:
    hosts = make_hosts(3)
    cluster = make_cluster(clock, round_robin(), host_sets_of(hosts))
    hosts[0].set_flag(FAILED_OUTLIER_CHECK, True)
    cluster.refresh_health()
    assert "10.0.0.0:80" not in picks(cluster.pick, 10)
    hosts[0].set_flag(FAILED_OUTLIER_CHECK, False)
    cluster.refresh_health()
    assert picks(cluster.pick, 30) == {host.address.text: 10 for host in hosts}


def test_closing_lets_all_hosts_go(clock: Clock) -> None:
    hosts = make_hosts(2)
    cluster = make_cluster(clock, round_robin(), host_sets_of(hosts))
    gone: list[Host] = []
    cluster.on_membership = (lambda added, removed: gone.extend(removed),)
    cluster.close()
    assert gone == hosts
    assert cluster.pick(PLAIN) is None
    assert cluster.hosts == []


def test_a_table_in_the_making_does_not_stop_the_old_one(clock: Clock) -> None:
    hosts = make_hosts(2)
    balancer = Slow(clock, 0)
    cluster = make_cluster(clock, balancer, host_sets_of(hosts[:1]))
    gone: list[Host] = []
    cluster.on_membership = (lambda added, removed: gone.extend(removed),)
    assert cluster.pick(PLAIN) is hosts[0]
    balancer.steps = 10
    cluster.update(host_sets_of(hosts[1:]))
    assert cluster.pick(PLAIN) is hosts[0]
    assert gone == []
    clock.advance(1.0)
    assert cluster.pick(PLAIN) is hosts[1]
    assert gone == [hosts[0]]


def test_a_cluster_is_ready_when_its_hosts_can_be_picked(clock: Clock) -> None:
    cluster = Cluster("backend", None, cluster_stats(), Slow(clock, 10), Slices(clock.wheel))
    ready: list[str] = []
    cluster.when_ready(lambda: ready.append("early"))
    cluster.update(host_sets_of(make_hosts(1)))
    cluster.start()
    assert ready == [] and not cluster.initialised
    clock.advance(1.0)
    assert ready == ["early"] and cluster.initialised
    cluster.when_ready(lambda: ready.append("late"))
    assert ready == ["early", "late"]


def test_a_newer_membership_overtakes_a_table_in_the_making(clock: Clock) -> None:
    hosts = make_hosts(3)
    cluster = make_cluster(clock, Slow(clock, 10), host_sets_of(hosts[:1]))
    cluster.update(host_sets_of(hosts[1:2]))
    told: list[tuple[Sequence[Host], Sequence[Host]]] = []
    cluster.on_membership = (lambda added, removed: told.append((added, removed)),)
    cluster.update(host_sets_of(hosts[2:]))
    clock.advance(1.0)
    assert cluster.pick(PLAIN) is hosts[2]
    assert told == [(hosts, hosts[:2])]
    assert len(clock.wheel) == 0


def config(name: str, hosts: int, **more: Any) -> ClusterConfig:
    """A static cluster with addresses of its own."""
    octets = sum(map(ord, name)) % 250
    endpoints = tuple(
        LbEndpoint(SocketAddress(f"10.{octets}.{number >> 8}.{number & 255}", 80)) for number in range(hosts)
    )
    assignment = ClusterLoadAssignment(name, (LocalityLbEndpoints(endpoints),))
    return ClusterConfig(name, name, "STATIC", assignment, **more)


def size_of(make: Callable[[], object]) -> int:
    """Bytes that what `make` returns holds."""
    tracemalloc.start()
    try:
        made = make()
        return tracemalloc.get_traced_memory()[0] if made is not None else 0
    finally:
        tracemalloc.stop()


def test_a_host_weighs_less_than_600_bytes() -> None:
    group = LocalityLbEndpoints(tuple(LbEndpoint(SocketAddress(f"10.1.2.{number}", 8080)) for number in range(250)))
    assignment = ClusterLoadAssignment("c", (group,))
    assert size_of(lambda: static_host_sets(assignment, False)) / 250 < 600


def test_a_cluster_weighs_less_than_4_kilobytes_beside_its_hosts(clock: Clock) -> None:
    stages = Stages()
    configs = [config(f"cluster-{number}", 10) for number in range(100)]
    hosts = size_of(lambda: [static_host_sets(each.load_assignment, False) for each in configs])
    clusters = size_of(
        lambda: [make_configured_cluster(each, stages, clock.wheel, Slices(clock.wheel), seeded()) for each in configs]
    )
    dice = sys.getsizeof(seeded())
    assert (clusters - hosts) / len(configs) - dice < 4096


def test_p2c_is_quick() -> None:
    """0.4 microseconds is the goal on a quiet machine; the bound leaves room for a busy one."""
    hosts = make_hosts(10)
    policy = LayeredBalancer(LeastRequest(seeded()), CommonOptions(seeded(), cluster_stats()))
    pick: Pick
    try:
        work = policy.build(host_sets_of(hosts))
        while True:
            next(work)
    except StopIteration as end:
        pick = end.value
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(1000):
            pick(PLAIN)
        best = min(best, time.perf_counter() - start)
    assert best / 1000 < 2e-6


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "RANDOM"])
def test_policies_by_name(policy: str, clock: Clock) -> None:
    cluster = make_configured_cluster(
        config("named", 4, lb_policy=policy), Stages(), clock.wheel, Slices(clock.wheel), seeded()
    )
    cluster.start()
    assert cluster.initialised
    assert len(picks(cluster.pick, 100)) == 4
    balancer = balancer_of(config("named", 1, lb_policy=policy), cluster_stats(), seeded(), lambda: 0.0)
    assert isinstance(balancer, LayeredBalancer)
    assert type(balancer.policy).__name__ == {"ROUND_ROBIN": "RoundRobin", "RANDOM": "RandomHost"}[policy]


def test_all_clusters_together_take_one_slice_at_a_time(clock: Clock) -> None:
    slices = Slices(clock.wheel)
    done: list[str] = []
    for name in ("first", "second", "third"):
        slices.run(name, Slow(clock, 10).build(()), lambda pick, name=name: done.append(name))  # type: ignore[misc]
    assert done == []
    while len(done) < 3:
        clock.now += 0.01
        before = clock.now
        clock.wheel.advance()
        assert clock.now - before <= 0.0041
    assert done == ["first", "second", "third"]
    assert len(clock.wheel) == 0


def test_work_that_is_cancelled_or_replaced_is_dropped(clock: Clock) -> None:
    slices = Slices(clock.wheel)
    done: list[str] = []
    slices.run("a", Slow(clock, 10).build(()), lambda pick: done.append("old"))
    slices.run("a", Slow(clock, 5).build(()), lambda pick: done.append("new"))
    slices.run("b", Slow(clock, 5).build(()), lambda pick: done.append("cancelled"))
    slices.cancel("b")
    clock.advance(1.0)
    assert done == ["new"]
