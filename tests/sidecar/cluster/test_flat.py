"""ROUND_ROBIN, LEAST_REQUEST and RANDOM over one priority: who is picked, and how often."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cluster.host import FAILED_OUTLIER_CHECK
from sidecar.cluster.host_set import host_sets_of
from sidecar.cluster.load_balancers.edf import edf
from sidecar.cluster.load_balancers.flat import FlatPolicy, LeastRequest, RandomHost, RoundRobin
from sidecar.cluster.load_balancers.layered import CommonOptions, LayeredBalancer
from sidecar.cluster.load_balancers.refining import accepts_statuses
from sidecar.core.override_host import OverrideHost
from tests.sidecar.cluster.surroundings import PLAIN, Context, cluster_stats, finish, make_hosts, picks, seeded

POLICIES = {
    "round_robin": RoundRobin(seeded()),
    "least_request": LeastRequest(seeded()),
    "least_of_three": LeastRequest(seeded(), choice_count=3),
    "random": RandomHost(seeded()),
}


def balancer(policy: FlatPolicy) -> LayeredBalancer:
    return LayeredBalancer(policy, CommonOptions(seeded(), cluster_stats()))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(0, 1000))
def test_earliest_deadline_first_follows_the_weights_closely(weights: list[int], turns: int) -> None:
    choose = edf(list(enumerate(weights)), lambda entry: float(entry[1]), seeded())
    counts = Counter(choose()[0] for _ in range(turns))
    for number, weight in enumerate(weights):
        assert abs(counts[number] - turns * weight / sum(weights)) <= len(weights) + 1


def test_earliest_deadline_first_asks_for_the_weight_at_every_turn() -> None:
    weights = {"a": 1.0, "b": 1.0}
    choose = edf(["a", "b"], weights.__getitem__, seeded())
    assert Counter(choose() for _ in range(100)) == {"a": 50, "b": 50}
    weights["a"] = 9.0
    counts = Counter(choose() for _ in range(1000))
    assert abs(counts["a"] - 900) <= 10


def test_round_robin_takes_turns() -> None:
    pick = finish(balancer(RoundRobin(seeded())).build(host_sets_of(make_hosts(5))))
    first = [pick(PLAIN) for _ in range(5)]
    assert len(set(first)) == 5
    assert [pick(PLAIN) for _ in range(10)] == first * 2


def test_round_robin_by_weight() -> None:
    hosts = make_hosts(3, [1, 2, 5])
    pick = finish(balancer(RoundRobin(seeded())).build(host_sets_of(hosts)))
    assert picks(pick, 800) == {"10.0.0.0:80": 100, "10.0.0.1:80": 200, "10.0.0.2:80": 500}


@pytest.mark.parametrize("policy", [LeastRequest(seeded()), RandomHost(seeded())], ids=["least_request", "random"])
def test_equal_hosts_without_load_are_picked_equally_often(policy: FlatPolicy) -> None:
    pick = finish(balancer(policy).build(host_sets_of(make_hosts(10))))
    counts = picks(pick, 10_000)
    assert len(counts) == 10
    assert all(abs(count - 1000) < 5 * (10_000 * 0.1 * 0.9) ** 0.5 for count in counts.values())


@pytest.mark.parametrize(("choices", "share"), [(1, 0.25), (2, 0.4375), (4, 0.68359375)])
def test_power_of_choices_prefers_the_host_with_fewest_requests(choices: int, share: float) -> None:
    """The idle one of four hosts wins whenever it is among the choices: 1 - (3/4) ** choices."""
    hosts = make_hosts(4)
    for host in hosts[1:]:
        host.rq_active = 10
    pick = finish(balancer(LeastRequest(seeded(), choices)).build(host_sets_of(hosts)))
    counts = picks(pick, 10_000)
    assert abs(counts["10.0.0.0:80"] / 10_000 - share) < 0.025


def test_requests_that_stay_active_spread_evenly() -> None:
    hosts = make_hosts(10)
    pick = finish(balancer(LeastRequest(seeded())).build(host_sets_of(hosts)))
    for _ in range(1000):
        host = pick(PLAIN)
        assert host is not None
        host.rq_active += 1
    assert max(host.rq_active for host in hosts) - min(host.rq_active for host in hosts) <= 6


@pytest.mark.parametrize(("bias", "share"), [(1.0, 0.5), (0.0, 0.75), (2.0, 0.3)])
def test_weighted_least_request_divides_the_weight_by_the_load(bias: float, share: float) -> None:
    """Weights 3 and 1 where the first has 2 requests and the second none: (3 / 3 ** bias) : 1; bias 1 is 1 : 1."""
    hosts = make_hosts(2, [3, 1])
    hosts[0].rq_active = 2
    pick = finish(balancer(LeastRequest(seeded(), active_request_bias=bias)).build(host_sets_of(hosts)))
    expected = (3 / 3**bias) / (3 / 3**bias + 1)
    counts = picks(pick, 1000)
    assert abs(counts["10.0.0.0:80"] / 1000 - expected) < 0.01
    assert abs(expected - share) < 0.06


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_nobody_is_picked_from_nobody(policy: FlatPolicy) -> None:
    assert finish(balancer(policy).build(host_sets_of([])))(PLAIN) is None


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_unhealthy_hosts_are_left_out(policy: FlatPolicy) -> None:
    hosts = make_hosts(4)
    hosts[2].set_health_status("UNHEALTHY")
    pick = finish(balancer(policy).build(host_sets_of(hosts)))
    assert set(picks(pick, 200)) == {"10.0.0.0:80", "10.0.0.1:80", "10.0.0.3:80"}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_hosts_that_were_tried_are_avoided(policy: FlatPolicy) -> None:
    hosts = make_hosts(3)
    pick = finish(balancer(policy).build(host_sets_of(hosts)))
    context = Context(tried=hosts[:2], host_selection_retry_max_attempts=100)
    assert set(picks(pick, 50, context)) == {"10.0.0.2:80"}


def test_after_the_attempts_a_tried_host_is_taken_after_all() -> None:
    hosts = make_hosts(2)
    pick = finish(balancer(RoundRobin(seeded())).build(host_sets_of(hosts)))
    context = Context(tried=hosts, host_selection_retry_max_attempts=3)
    assert picks(pick, 4, context) == {"10.0.0.0:80": 2, "10.0.0.1:80": 2} or len(picks(pick, 4, context)) == 1
    assert pick(context) in hosts


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_an_override_host_is_taken_if_it_is_usable(policy: FlatPolicy) -> None:
    hosts = make_hosts(3)
    hosts[1].set_health_status("UNHEALTHY")
    pick = finish(balancer(policy).build(host_sets_of(hosts)))
    assert picks(pick, 20, Context(override_host=OverrideHost("10.0.0.2:80"))) == {"10.0.0.2:80": 20}
    assert "10.0.0.1:80" not in picks(pick, 20, Context(override_host=OverrideHost("10.0.0.1:80")))
    assert "none" not in picks(pick, 20, Context(override_host=OverrideHost("10.9.9.9:80")))


def test_a_full_scan_finds_the_host_with_fewest_requests_and_is_fair_among_equals() -> None:
    hosts = make_hosts(5)
    for host, active in zip(hosts, (3, 1, 2, 1, 1), strict=True):
        host.rq_active = active
    pick = finish(balancer(LeastRequest(seeded(), full_scan=True)).build(host_sets_of(hosts)))
    counts = picks(pick, 3000)
    assert set(counts) == {hosts[at].address.text for at in (1, 3, 4)}
    assert all(abs(count - 1000) < 130 for count in counts.values())
    hosts[0].rq_active = 0
    assert picks(pick, 10) == {hosts[0].address.text: 10}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_a_full_scan_never_picks_a_host_that_has_more_than_another(loads: list[int]) -> None:
    hosts = make_hosts(len(loads))
    for host, active in zip(hosts, loads, strict=True):
        host.rq_active = active
    pick = finish(balancer(LeastRequest(seeded(), full_scan=True)).build(host_sets_of(hosts)))
    picked = {pick(PLAIN) for _ in range(20)}
    assert {host.rq_active for host in picked if host is not None} == {min(loads)}


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_no_host_starves_whatever_the_weights_and_the_bias(weights: list[int], bias: float) -> None:
    hosts = make_hosts(len(weights), weights)
    pick = finish(balancer(LeastRequest(seeded(), active_request_bias=bias)).build(host_sets_of(hosts)))
    counts = picks(pick, 100 * sum(weights))
    assert len(counts) == len(hosts)
    if len(set(weights)) > 1:
        assert all(abs(counts[host.address.text] - 100 * host.weight) <= len(hosts) + 1 for host in hosts)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_where_only_the_override_host_will_do_there_is_no_other(policy: FlatPolicy) -> None:
    hosts = make_hosts(3)
    hosts[1].set_health_status("UNHEALTHY")
    pick = finish(balancer(policy).build(host_sets_of(hosts)))
    assert picks(pick, 5, Context(override_host=OverrideHost("10.0.0.2:80", True))) == {"10.0.0.2:80": 5}
    assert picks(pick, 5, Context(override_host=OverrideHost("10.0.0.1:80", True))) == {"none": 5}
    assert picks(pick, 5, Context(override_host=OverrideHost("10.9.9.9:80", True))) == {"none": 5}


STATUSES = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED")


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("accepted", [None, *STATUSES])
def test_which_hosts_may_be_asked_for_by_their_health(status: str, accepted: str | None) -> None:
    """As real Envoy says: the status that the configuration gives, literally; by default what may serve at all."""
    hosts = make_hosts(2)
    hosts[0].set_health_status(status)
    accepts = accepts_statuses(None if accepted is None else frozenset((accepted,)))
    options = CommonOptions(seeded(), cluster_stats(), accepts_override=accepts)
    pick = finish(LayeredBalancer(RoundRobin(seeded()), options).build(host_sets_of(hosts)))
    wanted = Context(override_host=OverrideHost("10.0.0.0:80", True))
    expected = status in ("UNKNOWN", "HEALTHY", "DEGRADED") if accepted is None else status == accepted
    assert (pick(wanted) is hosts[0]) is expected


def test_a_host_that_was_ejected_is_unhealthy_whatever_the_configuration_says() -> None:
    (host,) = make_hosts(1)
    host.set_flag(FAILED_OUTLIER_CHECK, True)
    assert host.status == "UNHEALTHY"
    assert not accepts_statuses(None)(host)
    assert not accepts_statuses(frozenset(("HEALTHY", "UNKNOWN")))(host)
