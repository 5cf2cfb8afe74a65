"""Slow start: what a new host gets, and when it is no longer new."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cluster.host import DEGRADED_EDS_HEALTH, FAILED_ACTIVE_HC, Host
from sidecar.cluster.host_set import host_sets_of
from sidecar.cluster.load_balancers.flat import FlatPolicy, LeastRequest, RoundRobin
from sidecar.cluster.load_balancers.layered import CommonOptions, LayeredBalancer
from sidecar.cluster.load_balancers.slow_start import SlowStart
from sidecar.config.lb_policies import SlowStartConfig
from tests.sidecar.cluster.surroundings import Clock, cluster_stats, finish, make_hosts, picks, seeded

WINDOW = 10.0


def slow_start(clock: Clock, aggression: float = 1.0, least: float = 10.0) -> SlowStart:
    return SlowStart(SlowStartConfig(WINDOW, aggression, least), lambda: clock.now)


def weight(host: Host) -> float:
    return float(host.weight)


@pytest.mark.parametrize(
    ("lasted", "aggression", "least", "share"),
    [
        (0.0, 1.0, 10.0, 0.1),
        (0.0, 1.0, 0.0, 0.0001),
        (2.5, 1.0, 10.0, 0.25),
        (2.5, 2.0, 10.0, 0.5),
        (5.0, 0.5, 10.0, 0.25),
        (1.0, 0.5, 10.0, 0.1),
        (9.9, 1.0, 10.0, 0.99),
        (10.0, 1.0, 10.0, 1.0),
        (60.0, 1.0, 10.0, 1.0),
    ],
)
def test_the_share_of_a_host_that_is_so_new(
    lasted: float, aggression: float, least: float, share: float, clock: Clock
) -> None:
    slow, (host,) = slow_start(clock, aggression, least), make_hosts(1, [4])
    slow.enter([host])
    clock.now += lasted
    assert slow.scaled(weight)(host) == pytest.approx(4 * share)


def test_only_hosts_that_serve_begin(clock: Clock) -> None:
    slow, hosts = slow_start(clock), make_hosts(3)
    hosts[1].set_flag(FAILED_ACTIVE_HC, True)
    hosts[2].set_flag(DEGRADED_EDS_HEALTH, True)
    slow.enter(hosts)
    clock.now += 5.0
    hosts[1].set_flag(FAILED_ACTIVE_HC, False)
    slow.enter(hosts)
    assert [slow.scaled(weight)(host) for host in hosts] == pytest.approx([0.5, 0.1, 1.0])


def test_a_host_that_failed_its_health_checks_begins_anew_and_one_that_the_configuration_shut_off_does_not(
    clock: Clock,
) -> None:
    slow, hosts = slow_start(clock), make_hosts(2)
    slow.enter(hosts)
    clock.now += 20.0
    hosts[0].set_flag(FAILED_ACTIVE_HC, True)
    hosts[1].set_health_status("UNHEALTHY")
    slow.enter(hosts)
    hosts[0].set_flag(FAILED_ACTIVE_HC, False)
    hosts[1].set_health_status("HEALTHY")
    slow.enter(hosts)
    clock.now += 1.0
    assert [slow.scaled(weight)(host) for host in hosts] == pytest.approx([0.1, 1.0])


def test_hosts_that_left_are_forgotten(clock: Clock) -> None:
    slow, hosts = slow_start(clock), make_hosts(2)
    slow.enter(hosts)
    hosts[0].removed = True
    slow.enter(hosts[1:])
    assert set(slow._since) == {hosts[1]}


@pytest.mark.parametrize("kind", [RoundRobin, LeastRequest])
def test_a_new_host_gets_little_at_first_and_its_full_share_at_last(kind: type[FlatPolicy], clock: Clock) -> None:
    policy = kind(seeded(), slow_start=slow_start(clock))
    balancer = LayeredBalancer(policy, CommonOptions(seeded(), cluster_stats()))
    hosts = make_hosts(4)
    finish(balancer.build(host_sets_of(hosts[:3])))
    clock.now += 100.0
    pick = finish(balancer.build(host_sets_of(hosts)))
    new = hosts[3].address.text
    shares = []
    for _ in range(4):
        shares.append(picks(pick, 3100)[new] / 3100)
        clock.now += 5.0
    assert shares == pytest.approx([0.1 / 3.1, 0.5 / 3.5, 0.25, 0.25], abs=0.01)


def test_when_no_host_is_new_nothing_is_weighed(clock: Clock) -> None:
    policy = RoundRobin(seeded(), slow_start(clock))
    balancer = LayeredBalancer(policy, CommonOptions(seeded(), cluster_stats()))
    hosts = make_hosts(3)
    finish(balancer.build(host_sets_of(hosts)))
    clock.now += 11.0
    pick = finish(balancer.build(host_sets_of(hosts)))
    assert policy.slow_start is not None and not policy.slow_start.active
    assert picks(pick, 300) == {host.address.text: 100 for host in hosts}


@given(
    st.floats(0.0, 30.0),
    st.floats(0.1, 10.0),
    st.floats(0.0, 100.0),
    st.integers(1, 100),
)
def test_a_new_host_never_starves_and_never_gets_more_than_its_weight(
    lasted: float, aggression: float, least: float, own: int
) -> None:
    now = 0.0
    slow = SlowStart(SlowStartConfig(WINDOW, aggression, least), lambda: now)
    (host,) = make_hosts(1, [own])
    slow.enter([host])
    now = lasted
    got = slow.scaled(weight)(host)
    assert 0 < got <= own
    assert got >= own * least / 100 * 0.999999
