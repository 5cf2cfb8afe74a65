"""RING_HASH and MAGLEV by themselves: stability, shares, retries, bounded load, and the length of a step."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cluster.host_set import host_sets_of
from sidecar.cluster.load_balancers.bounded_load import BoundedLoad
from sidecar.cluster.load_balancers.hashing import HashBalancer, HashPolicy
from sidecar.cluster.load_balancers.layered import CommonOptions
from sidecar.cluster.load_balancers.maglev import Maglev
from sidecar.cluster.load_balancers.murmur_hash import murmur_hash_2
from sidecar.cluster.load_balancers.ring_hash import RingHash
from sidecar.core.override_host import OverrideHost
from tests.sidecar.cluster.surroundings import Context, Counts, cluster_stats, finish, make_hosts, picks, seeded

POLICIES = [RingHash(), RingHash(hash_function="MURMUR_HASH_2"), Maglev(251)]
NAMES = ["ring", "murmur", "maglev"]
HASHES = [number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF for number in range(2000)]


def balancer(policy: HashPolicy, stats: Any = None, **options: Any) -> HashBalancer:
    return HashBalancer(policy, CommonOptions(seeded(), stats or cluster_stats(), **options))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"", 6142509188972423790),
        (b"hello", 2762169579135187400),
        (b"0123456789abcdef", 10613591747391057286),
        (b"10.0.0.1:80_17", 4437040220721654695),
    ],
)
def test_murmur_hash_is_that_of_libstdcxx(text: bytes, value: int) -> None:
    assert murmur_hash_2(text) == value


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_the_same_hash_finds_the_same_host(policy: HashPolicy) -> None:
    pick = finish(balancer(policy).build(host_sets_of(make_hosts(7))))
    for hash_key in HASHES[:50]:
        assert len(picks(pick, 5, Context(hash_key=hash_key))) == 1


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_without_a_hash_any_host_may_be_picked(policy: HashPolicy) -> None:
    pick = finish(balancer(policy).build(host_sets_of(make_hosts(4))))
    assert len(picks(pick, 200)) == 4


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_a_host_that_leaves_moves_little_more_than_its_own_keys(policy: HashPolicy) -> None:
    hosts = make_hosts(5)
    before = finish(balancer(policy).build(host_sets_of(hosts)))
    after = finish(balancer(policy).build(host_sets_of(hosts[:4])))
    moved = 0
    for hash_key in HASHES:
        context = Context(hash_key=hash_key)
        was = before(context)
        moved += was is not hosts[4] and after(context) is not was
    assert moved / len(HASHES) < 0.2


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_maglev_gives_each_host_its_share_of_the_table(weights: list[int]) -> None:
    size = 1009
    hosts = [(host, host.weight / sum(weights)) for host in make_hosts(len(weights), weights)]
    stats: Any = Counts()
    table = finish(Maglev(size).table(hosts))
    counts = Counter(table.host(place, 0) for place in range(size))
    table.publish(stats)
    assert (stats.maglev_min_entries_per_host, stats.maglev_max_entries_per_host) == (
        min(counts.values()),
        max(counts.values()),
    )
    for host, share in hosts:
        assert abs(counts[host] - share * size) <= max(weights) / min(weights) + 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_ring_points_are_in_proportion_to_the_weights(weights: list[int]) -> None:
    hosts = [(host, host.weight / sum(weights)) for host in make_hosts(len(weights), weights)]
    ring: Any = finish(RingHash(minimum_ring_size=500).table(hosts))
    assert len(ring.points) >= 500
    assert list(ring.points) == sorted(ring.points)
    counts = Counter(ring.places)
    stats = Counts()
    ring.publish(stats)
    assert stats.seen() == {
        "ring_hash_size": len(ring.points),
        "ring_hash_min_hashes_per_host": min(counts.values()),
        "ring_hash_max_hashes_per_host": max(counts.values()),
    }
    for place, (_, share) in enumerate(hosts):
        assert abs(counts[place] - share * len(ring.points)) <= 2


def test_the_maximum_ring_size_is_kept() -> None:
    hosts = [(host, 1 / 50) for host in make_hosts(50)]
    ring: Any = finish(RingHash(minimum_ring_size=10, maximum_ring_size=20).table(hosts))
    assert len(ring.points) == 20


def test_a_hash_behind_the_last_point_finds_the_first() -> None:
    ring: Any = finish(RingHash().table([(host, 0.5) for host in make_hosts(2)]))
    assert ring.points[-1] < 0xFFFFFFFFFFFFFFFF
    assert ring.host(0xFFFFFFFFFFFFFFFF, 0) is ring.host(0, 0) is ring.hosts[ring.places[0]]


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_a_retry_finds_another_host(policy: HashPolicy) -> None:
    hosts = make_hosts(5)
    pick = finish(balancer(policy).build(host_sets_of(hosts)))
    for hash_key in HASHES[:100]:
        first = pick(Context(hash_key=hash_key))
        assert first is not None
        context = Context(hash_key=hash_key, tried=[first], host_selection_retry_max_attempts=50)
        second = pick(context)
        assert second is not None and second is not first
        assert pick(context) is second


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_unhealthy_hosts_are_not_in_the_table_unless_in_panic(policy: HashPolicy) -> None:
    hosts = make_hosts(4)
    hosts[0].set_health_status("UNHEALTHY")
    stats = Counts()
    pick = finish(balancer(policy, stats).build(host_sets_of(hosts)))
    assert {pick(Context(hash_key=hash_key)) for hash_key in HASHES} == set(hosts[1:])
    for host in hosts[1:3]:
        host.set_health_status("UNHEALTHY")
    pick = finish(balancer(policy, stats).build(host_sets_of(hosts)))
    assert stats.lb_healthy_panic == 0
    assert {pick(Context(hash_key=hash_key)) for hash_key in HASHES} == set(hosts)
    assert stats.lb_healthy_panic == len(HASHES)


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_no_hosts_and_override_hosts(policy: HashPolicy) -> None:
    assert finish(balancer(policy).build(host_sets_of([])))(Context(hash_key=1)) is None
    hosts = make_hosts(4)
    pick = finish(balancer(policy).build(host_sets_of(hosts)))
    for hash_key in HASHES[:20]:
        assert pick(Context(hash_key=hash_key, override_host=OverrideHost("10.0.0.3:80"))) is hosts[3]


@pytest.mark.parametrize("bound", [0, 200])
def test_a_balancer_publishes_its_table(bound: int) -> None:
    """Envoy 1.40 says the same of three hosts of one weight."""
    stats = Counts()
    for policy in (RingHash(), Maglev()):
        finish(balancer(BoundedLoad(policy, bound) if bound else policy, stats).build(host_sets_of(make_hosts(3))))
    assert stats.seen() == {
        "ring_hash_size": 1026,
        "ring_hash_min_hashes_per_host": 342,
        "ring_hash_max_hashes_per_host": 342,
        "maglev_min_entries_per_host": 21845,
        "maglev_max_entries_per_host": 21846,
    }


def test_a_host_above_its_bound_passes_requests_on() -> None:
    hosts = make_hosts(4)
    table = finish(BoundedLoad(RingHash(), 125).table([(host, 0.25) for host in hosts]))
    for _ in range(400):
        host = table.host(12345, 0)
        assert host is not None
        host.rq_active += 1
    assert all(host.rq_active <= 126 for host in hosts)
    assert sum(host.rq_active for host in hosts) == 400


def test_below_the_bound_the_hash_decides() -> None:
    hosts = [(host, 0.25) for host in make_hosts(4)]
    bounded, plain = finish(BoundedLoad(Maglev(251), 200).table(hosts)), finish(Maglev(251).table(hosts))
    assert [bounded.host(key, 0) for key in HASHES] == [plain.host(key, 0) for key in HASHES]


@pytest.mark.parametrize("policy", [RingHash(), RingHash(100_000), RingHash(hash_function="MURMUR_HASH_2"), Maglev()])
def test_building_yields_often(policy: HashPolicy) -> None:
    """So that a slice of 2 ms may end within 5: the median step is far shorter, the longest is the machine's."""
    hosts = [(host, 1 / 100) for host in make_hosts(100)]
    work = policy.table(hosts)
    steps = []
    while True:
        start = time.perf_counter()
        try:
            next(work)
        except StopIteration:
            break
        steps.append(time.perf_counter() - start)
    steps.sort()
    assert steps[len(steps) * 9 // 10] < 0.002
