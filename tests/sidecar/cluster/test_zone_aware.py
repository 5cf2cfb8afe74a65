"""Zone-aware routing: what stays in the proxy's own zone, and where the rest goes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, LocalityHosts
from sidecar.cluster.load_balancers.flat import LeastRequest, RoundRobin
from sidecar.cluster.load_balancers.layered import CommonOptions, LayeredBalancer
from sidecar.cluster.load_balancers.zone_aware import LocalCluster, ZoneAware
from sidecar.cluster.manager import ClusterManager
from sidecar.config.address import SocketAddress
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.common_lb import ZoneAwareLbConfig
from sidecar.config.core_types import Locality
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from tests.sidecar.cluster.surroundings import PLAIN, Clock, Counts, Stages, finish, make_hosts, picks, seeded

HERE, THERE, YONDER = Locality("r", "here"), Locality("r", "there"), Locality("r", "yonder")
ZONES = (HERE, THERE, YONDER)


def host_set(*sizes: int, priority: int = 0, ill: int = 0) -> HostSet:
    """So many hosts in each of the zones; the first `ill` of them are unhealthy."""
    hosts = make_hosts(sum(sizes))
    for number, host in enumerate(hosts):
        host.priority = priority
        if number < ill:
            host.set_health_status("UNHEALTHY")
    parts, at = [], 0
    for zone, size in zip(ZONES, sizes, strict=False):
        if size >= 0:
            parts.append(LocalityHosts(zone, 0, tuple(hosts[at : at + size])))
            at += size
    return HostSet(priority, tuple(hosts), tuple(parts))


def zone_aware(local: HostSet | None, stats: Any = None, fails: bool = False, **options: Any) -> ZoneAware:
    own = LocalCluster(HERE)
    own.host_set = local
    config = ZoneAwareLbConfig(**{"min_cluster_size": 1, **options})
    return ZoneAware(config, own, stats or Counts(), seeded(), 50.0, fails)


def balancer(zones: ZoneAware, policy: Any = None) -> LayeredBalancer:
    options = CommonOptions(seeded(), zones.stats, 50.0, zones.fail_traffic_on_panic, zone_aware=zones)
    return LayeredBalancer(policy or RoundRobin(seeded()), options)


def shares(counts: dict[str, int], upstream: HostSet) -> list[float]:
    total = sum(counts.values())
    return [sum(counts.get(host.address.text, 0) for host in part.hosts) / total for part in upstream.localities]


@pytest.mark.parametrize(
    ("local", "upstream", "expected", "counted"),
    [
        ((2, 2), (2, 1), [1.0, 0.0], {"lb_zone_routing_all_directly": 10_000}),
        ((1, 3), (1, 3), [1.0, 0.0], {"lb_zone_routing_all_directly": 10_000}),
        ((2, 2), (1, 3), [0.5, 0.5], None),
        ((4, 4, 2), (25, 50, 25), [0.625, 0.25, 0.125], None),
        ((2, 2), (0, 2, 2), [0.0, 0.0, 1.0], {"lb_zone_routing_cross_zone": 10_000}),
    ],
)
def test_as_much_stays_as_there_is_room_for(
    local: tuple[int, ...], upstream: tuple[int, ...], expected: list[float], counted: dict[str, int] | None
) -> None:
    """The example of Envoy's documentation among them: 40, 40 and 20 percent send, 25, 50 and 25 percent receive."""
    stats = Counts()
    hosts = host_set(*upstream)
    counts = picks(finish(balancer(zone_aware(host_set(*local), stats)).build((hosts,))), 10_000)
    assert shares(counts, hosts) == pytest.approx(expected, abs=0.025)
    seen = stats.seen()
    assert seen.pop("lb_recalculate_zone_structures") == 1
    if counted is not None:
        assert seen == counted
    else:
        assert seen["lb_zone_routing_sampled"] + seen["lb_zone_routing_cross_zone"] == 10_000


@pytest.mark.parametrize(
    ("local", "upstream", "options", "counted"),
    [
        ((2, 2), (4,), {}, {}),
        ((4,), (2, 2), {}, {}),
        ((0, 2, 2), (2, 2), {}, {"lb_local_cluster_not_ok": 1}),
        ((2, 2), (2, 3), {"min_cluster_size": 6}, {"lb_zone_cluster_too_small": 1}),
    ],
)
def test_where_zones_count_for_nothing(
    local: tuple[int, ...], upstream: tuple[int, ...], options: dict[str, Any], counted: dict[str, int]
) -> None:
    stats = Counts()
    hosts = host_set(*upstream)
    counts = picks(
        finish(balancer(zone_aware(host_set(*local), stats, **options)).build((hosts,))), 100 * len(hosts.hosts)
    )
    assert set(counts.values()) == {100}
    assert stats.seen() == {"lb_recalculate_zone_structures": 1, **counted}


def test_without_hosts_of_the_local_cluster_nothing_is_even_looked_at() -> None:
    stats = Counts()
    hosts = host_set(2, 2)
    assert set(picks(finish(balancer(zone_aware(None, stats)).build((hosts,))), 400).values()) == {100}
    assert stats.seen() == {}


@pytest.mark.parametrize(("least", "expected"), [(1, 1.0), (2, 0.4), (None, 0.4)])
def test_the_local_zone_may_be_forced(least: int | None, expected: float) -> None:
    hosts = host_set(1, 4)
    pick = finish(balancer(zone_aware(host_set(2, 2), force_local_zone=least)).build((hosts,)))
    assert shares(picks(pick, 10_000), hosts)[0] == pytest.approx(expected, abs=0.025)


def test_a_forced_zone_needs_no_second_one_among_the_proxies() -> None:
    hosts = host_set(1, 4)
    pick = finish(balancer(zone_aware(host_set(2), force_local_zone=1)).build((hosts,)))
    assert shares(picks(pick, 100), hosts) == [1.0, 0.0]


def test_only_some_requests_may_go_by_zones() -> None:
    stats = Counts()
    hosts = host_set(2, 1)
    pick = finish(balancer(zone_aware(host_set(2, 2), stats, routing_enabled=50)).build((hosts,)))
    assert shares(picks(pick, 10_000), hosts)[0] == pytest.approx(0.5 + 0.5 * 2 / 3, abs=0.025)
    assert stats.lb_zone_routing_all_directly == pytest.approx(5000, abs=250)


def test_shares_may_be_counted_in_weights() -> None:
    hosts = host_set(1, 3)
    hosts.hosts[0].weight = 3
    by_number = zone_aware(host_set(2, 2)).routing(hosts)
    by_weight = zone_aware(host_set(2, 2), locality_basis="HEALTHY_HOSTS_WEIGHT").routing(hosts)
    assert by_number is not None and not by_number.direct and by_number.to_local == 5000
    assert by_weight is not None and by_weight.direct


@pytest.mark.parametrize(("fails", "picked"), [(False, 3), (True, 0)])
def test_proxies_that_panic_do_not_go_by_zones(fails: bool, picked: int) -> None:
    stats = Counts()
    pick = finish(balancer(zone_aware(host_set(3, 3, ill=4), stats, fails)).build((host_set(2, 1),)))
    counts = picks(pick, 300)
    assert len([name for name in counts if name != "none"]) == picked
    assert stats.lb_local_cluster_not_ok == 300


def test_a_cluster_that_panics_does_not_go_by_zones() -> None:
    stats = Counts()
    pick = finish(balancer(zone_aware(host_set(2, 2), stats)).build((host_set(2, 1, ill=2),)))
    assert set(picks(pick, 300).values()) == {100}
    assert stats.seen() == {"lb_recalculate_zone_structures": 1, "lb_healthy_panic": 300}


def test_only_the_first_priority_goes_by_zones() -> None:
    stats = Counts()
    second = host_set(2, 1, priority=1)
    pick = finish(balancer(zone_aware(host_set(2, 2), stats)).build((host_set(2, 1, ill=3), second)))
    assert shares(picks(pick, 300), second) == pytest.approx([2 / 3, 1 / 3])
    assert "lb_zone_routing_all_directly" not in stats.seen()


def test_least_request_chooses_within_the_zone() -> None:
    hosts = host_set(2, 1)
    hosts.hosts[0].rq_active = 5
    pick = finish(balancer(zone_aware(host_set(2, 2)), LeastRequest(seeded())).build((hosts,)))
    counts = picks(pick, 1000)
    assert set(counts) == {host.address.text for host in hosts.hosts[:2]}
    assert counts[hosts.hosts[1].address.text] == pytest.approx(750, abs=75)


sizes = st.lists(st.integers(0, 8), min_size=2, max_size=3)


@given(sizes, sizes)
def test_whatever_the_zones_every_request_has_a_host_and_no_zone_gets_more_than_its_share(
    local: list[int], upstream: list[int]
) -> None:
    """That is what it is for: if all proxies route so, every host gets as much as without zones."""
    hosts, senders = host_set(*upstream), host_set(*local)
    routing = zone_aware(senders).routing(hosts)
    pick = finish(balancer(zone_aware(senders)).build((hosts,)))
    assert (pick(PLAIN) is None) is not any(upstream)
    if routing is None or routing.direct:
        return
    sent = local[0] / sum(local)
    received = upstream[0] / sum(upstream)
    assert routing.to_local / 10_000 * sent <= received + 0.001
    assert routing.residual[-1] <= 10_000
    assert list(routing.residual) == sorted(routing.residual)


def endpoints(*zones: tuple[Locality, int], health: str = "HEALTHY") -> tuple[LocalityLbEndpoints, ...]:
    made, port = [], 1
    for zone, count in zones:
        hosts = tuple(LbEndpoint(SocketAddress("10.0.0.1", port + at), health_status=health) for at in range(count))
        made.append(LocalityLbEndpoints(hosts, zone))
        port += count
    return tuple(made)


def config(name: str, *zones: tuple[Locality, int]) -> ClusterConfig:
    return ClusterConfig(name, name, "STATIC", ClusterLoadAssignment(name, endpoints(*zones)))


@pytest.mark.parametrize("order", [("own", "other"), ("other", "own")])
def test_clusters_follow_the_local_cluster(order: tuple[str, str], clock: Clock) -> None:
    stages = Stages()
    manager = ClusterManager(stages, clock.wheel, seeded(), local_cluster_name="own", locality=HERE)
    configs = {"own": config("own", (HERE, 1), (THERE, 1)), "other": config("other", (HERE, 3), (THERE, 3))}
    for name in order:
        manager.add(configs[name])
    manager.start(lambda: None)
    own, other = manager.get("own"), manager.get("other")
    assert own is not None and other is not None

    def zones() -> set[str]:
        return {host.locality.zone for host in map(other.pick, [PLAIN] * 100) if isinstance(host, Host)}

    assert zones() == {"here"}
    for host in own.hosts:
        if host.locality == THERE:
            host.set_health_status("UNHEALTHY")
    own.refresh_health()
    assert zones() == {"here", "there"}, "all senders that are well are here: half of it goes elsewhere"
    assert len({own.pick(PLAIN) for _ in range(20)}) == 1
    assert "lb_recalculate_zone_structures" not in stages.stats["own"].seen()
