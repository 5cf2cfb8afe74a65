"""Priorities, panic and weighted localities above the flat policies."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cluster.endpoints import static_host_sets
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, LocalityHosts, host_sets_of
from sidecar.cluster.load_balancers.flat import RoundRobin
from sidecar.cluster.load_balancers.layered import CommonOptions, LayeredBalancer
from sidecar.config.address import SocketAddress
from sidecar.config.core_types import Locality
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from tests.sidecar.cluster.surroundings import PLAIN, Counts, finish, make_hosts, picks, seeded

X, Y = Locality("x"), Locality("y")


def balancer(stats: Any = None, **options: Any) -> LayeredBalancer:
    random = seeded()
    return LayeredBalancer(RoundRobin(random), CommonOptions(random, stats or Counts(), **options))


def by_priority(*healthy_of_ten: int) -> tuple[HostSet, ...]:
    hosts = make_hosts(10 * len(healthy_of_ten))
    for number, host in enumerate(hosts):
        host.priority = number // 10
        if number % 10 >= healthy_of_ten[host.priority]:
            host.set_health_status("UNHEALTHY")
    return host_sets_of(hosts)


def share(counts: dict[str, int], hosts: tuple[Host, ...]) -> float:
    return sum(counts.get(host.address.text, 0) for host in hosts) / sum(counts.values())


@pytest.mark.parametrize(("healthy", "first"), [((10, 10), 1.0), ((8, 10), 1.0), ((5, 10), 0.7), ((0, 10), 0.0)])
def test_requests_follow_the_priority_load(healthy: tuple[int, int], first: float) -> None:
    stats = Counts()
    host_sets = by_priority(*healthy)
    counts = picks(finish(balancer(stats).build(host_sets)), 10_000)
    assert abs(share(counts, host_sets[0].hosts) - first) < 0.025
    assert set(counts) <= {host.address.text for host_set in host_sets for host in host_set.healthy}
    assert stats.seen() == {}


def test_in_panic_all_hosts_are_used_and_every_pick_is_counted() -> None:
    stats = Counts()
    counts = picks(finish(balancer(stats).build(by_priority(4))), 1000)
    assert len(counts) == 10 and set(counts.values()) == {100}
    assert stats.lb_healthy_panic == 1000


def test_exactly_at_the_threshold_there_is_no_panic() -> None:
    assert len(picks(finish(balancer().build(by_priority(5))), 1000)) == 5


def test_traffic_may_fail_instead_of_panicking() -> None:
    stats = Counts()
    pick = finish(balancer(stats, fail_traffic_on_panic=True).build(by_priority(4)))
    assert pick(PLAIN) is None
    assert stats.lb_healthy_panic == 1


def test_without_panic_and_without_healthy_hosts_nobody_is_picked() -> None:
    assert finish(balancer(healthy_panic_threshold=0.0).build(by_priority(0)))(PLAIN) is None


def test_degraded_hosts_get_what_spills_over() -> None:
    hosts = make_hosts(10)
    for host in hosts[5:]:
        host.set_health_status("DEGRADED")
    (host_set,) = host_sets_of(hosts)
    counts = picks(finish(balancer().build((host_set,))), 10_000)
    assert abs(share(counts, host_set.healthy) - 0.7) < 0.025
    assert len(counts) == 10


@pytest.mark.parametrize(
    ("healthy", "percent"), [(100, 33.3), (72, 33.3), (69, 32.6), (50, 25.9), (25, 14.9), (0, 0.0)]
)
def test_localities_share_by_weight_and_health(healthy: int, percent: float) -> None:
    """The table of Envoy's documentation: locality X has weight 1 and some healthy hosts, Y weight 2."""
    hosts = make_hosts(200)
    for host in hosts[healthy:100]:
        host.set_health_status("UNHEALTHY")
    x, y = tuple(hosts[:100]), tuple(hosts[100:])
    host_set = HostSet(0, tuple(hosts), (LocalityHosts(X, 1, x), LocalityHosts(Y, 2, y)))
    counts = picks(finish(balancer(locality_weighted=True).build((host_set,))), 3000)
    assert abs(share(counts, x) * 100 - percent) < 0.2
    assert len([name for name in counts if name in {host.address.text for host in x}]) == healthy


def test_localities_without_the_option_count_for_nothing() -> None:
    hosts = tuple(make_hosts(4))
    host_set = HostSet(0, hosts, (LocalityHosts(X, 1, hosts[:1]), LocalityHosts(Y, 100, hosts[1:])))
    assert picks(finish(balancer().build((host_set,))), 400) == {host.address.text: 100 for host in hosts}


def assignment(*groups: tuple[Locality, int, int, int]) -> ClusterLoadAssignment:
    """Groups of (locality, weight, priority, hosts)."""
    made, port = [], 0
    for locality, weight, priority, count in groups:
        endpoints = tuple(LbEndpoint(SocketAddress("10.0.0.1", port + number)) for number in range(count))
        port += count
        made.append(LocalityLbEndpoints(endpoints, locality, weight, priority))
    return ClusterLoadAssignment("backend", tuple(made))


def test_an_assignment_becomes_host_sets_by_priority() -> None:
    first, second, third = static_host_sets(assignment((X, 0, 2, 1), (X, 0, 0, 2), (Y, 0, 0, 3)), True)
    assert [len(host_set.hosts) for host_set in (first, second, third)] == [5, 0, 1]
    assert [host.locality for host in first.hosts] == [X, X, Y, Y, Y]
    assert [(part.locality, part.weight) for part in first.localities] == [(X, 0), (Y, 0)]


def test_weighted_localities_are_kept_apart_and_merged_by_name() -> None:
    (host_set,) = static_host_sets(assignment((Y, 3, 0, 1), (X, 0, 0, 2), (Y, 3, 0, 1)), True)
    assert [(part.locality, part.weight, len(part.hosts)) for part in host_set.localities] == [(X, 0, 2), (Y, 3, 2)]
    assert static_host_sets(assignment((Y, 3, 0, 1)), False)[0].localities == ()


def test_healthy_hosts_are_not_stored_twice() -> None:
    host_set = HostSet(0, tuple(make_hosts(3)))
    assert host_set.healthy is host_set.hosts
    assert host_set.degraded == ()
