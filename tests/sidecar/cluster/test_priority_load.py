"""The share of each priority, against the tables of Envoy's documentation (priority levels, degraded, panic)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cluster.host_set import HostSet, HostSets
from sidecar.cluster.load_balancers.priority_load import priority_load
from tests.sidecar.cluster.surroundings import make_hosts


def host_set(priority: int, healthy: int, degraded: int = 0, total: int = 100) -> HostSet:
    hosts = make_hosts(total)
    for host in hosts[healthy : healthy + degraded]:
        host.set_health_status("DEGRADED")
    for host in hosts[healthy + degraded :]:
        host.set_health_status("UNHEALTHY")
    return HostSet(priority, tuple(hosts))


def host_sets(*healthy: int) -> HostSets:
    return tuple(host_set(priority, percent) for priority, percent in enumerate(healthy))


@pytest.mark.parametrize(
    ("healthy", "load"),
    [
        ((100, 100), [100, 0]),
        ((72, 72), [100, 0]),
        ((71, 71), [99, 1]),
        ((50, 50), [70, 30]),
        ((25, 100), [35, 65]),
        ((0, 100), [0, 100]),
        ((25, 25), [50, 50]),
        ((100, 100, 100), [100, 0, 0]),
        ((72, 72, 100), [100, 0, 0]),
        ((71, 71, 100), [99, 1, 0]),
        ((50, 50, 100), [70, 30, 0]),
        ((25, 100, 100), [35, 65, 0]),
        ((25, 25, 100), [35, 35, 30]),
    ],
)
def test_traffic_spills_over_to_the_next_priority(healthy: tuple[int, ...], load: list[int]) -> None:
    result = priority_load(host_sets(*healthy), 50.0)
    assert result.healthy == load
    assert sum(result.degraded) == 0


def test_three_priorities_that_are_not_enough_share_by_their_health() -> None:
    """35, 35 and 28 of 98, rounded down; the first takes what is left, as `test_hashes_like_envoy` shows of Envoy."""
    assert priority_load(host_sets(25, 25, 20), 0.0).healthy == [37, 35, 28]


@pytest.mark.parametrize(
    ("healthy", "degraded", "load"),
    [
        (100, 0, (100, 0)),
        (71, 0, (100, 0)),
        (71, 29, (99, 1)),
        (25, 65, (35, 65)),
        (5, 0, (100, 0)),
    ],
)
def test_degraded_hosts_take_what_healthy_ones_cannot(healthy: int, degraded: int, load: tuple[int, int]) -> None:
    result = priority_load((host_set(0, healthy, degraded),), 0.0)
    assert (result.healthy[0], result.degraded[0]) == load


@pytest.mark.parametrize(
    ("healthy", "panic"),
    [
        ((72, 100), [False, False]),
        ((0, 100), [False, False]),
        ((50, 60), [False, False]),
        ((25, 100), [False, False]),
        ((25, 25), [True, True]),
        ((5, 65), [True, False]),
    ],
)
def test_a_priority_panics_only_if_all_together_are_not_enough(healthy: tuple[int, ...], panic: list[bool]) -> None:
    assert priority_load(host_sets(*healthy), 50.0).panic == panic


def test_in_total_panic_the_load_goes_by_the_number_of_hosts() -> None:
    small, large = host_set(0, 0, total=1), host_set(1, 0, total=3)
    load = priority_load((small, large), 50.0)
    assert (load.healthy, load.panic) == ([25, 75], [True, True])


def test_without_any_host_the_first_priority_has_the_load() -> None:
    load = priority_load((HostSet(0, ()), HostSet(1, ())), 50.0)
    assert load.healthy == [100, 0]


def test_panic_switched_off_leaves_the_load_with_a_priority_that_has_no_usable_host() -> None:
    load = priority_load(host_sets(0, 0), 0.0)
    assert (load.healthy, load.panic, load.only_priority) == ([100, 0], [False, False], 0)


@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=4),
    st.sampled_from([0.0, 1.0, 50.0, 100.0]),
)
def test_the_loads_always_add_up_to_100(counts: list[tuple[int, int, int]], threshold: float) -> None:
    sets = tuple(
        host_set(priority, healthy, degraded, healthy + degraded + bad)
        for priority, (healthy, degraded, bad) in enumerate(counts)
    )
    load = priority_load(sets, threshold)
    assert sum(load.healthy) + sum(load.degraded) == 100
    assert all(share >= 0 for share in load.healthy + load.degraded)
    chosen = {load.choose(number) for number in range(100)}
    expected = {(priority, False) for priority, share in enumerate(load.healthy) if share}
    assert chosen == expected | {(priority, True) for priority, share in enumerate(load.degraded) if share}


def test_weights_may_say_how_well_a_priority_is() -> None:
    """One of two hosts is healthy, and has 9 of 10 shares: that is enough for everything, or for 70 percent."""
    hosts = make_hosts(2, [9, 1])
    hosts[1].set_health_status("UNHEALTHY")
    other = HostSet(1, tuple(make_hosts(1)))
    by_weight = HostSet(0, tuple(hosts), (), 140, True)
    assert priority_load((by_weight, other), 50.0).healthy == [100, 0]
    assert by_weight.refreshed().weighted_priority_health
    assert priority_load((HostSet(0, tuple(hosts)), other), 50.0).healthy == [70, 30]
