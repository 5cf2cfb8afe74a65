"""Subset load balancing: selectors, fallbacks and what real Envoy answers for the same hosts and criteria."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cluster.context import Pick, SubsetKey
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, LocalityHosts, host_sets_of
from sidecar.cluster.load_balancers.flat import RoundRobin
from sidecar.cluster.load_balancers.layered import CommonOptions, LayeredBalancer
from sidecar.cluster.load_balancers.subset import SubsetBalancer
from sidecar.config.core_types import Locality
from sidecar.config.subset import LbSubsetConfig, LbSubsetSelector
from sidecar.core.address import Address
from sidecar.core.matching import canonical
from sidecar.core.override_host import OverrideHost
from tests.sidecar.cluster.surroundings import Context, Counts, finish, picks, seeded


def host(number: int, **metadata: Any) -> Host:
    return Host(Address("10.0.0.1", number), metadata={"envoy.lb": metadata})


def subset_key(**match: Any) -> SubsetKey:
    return tuple(sorted((key, canonical(value)) for key, value in match.items()))


def selector(*keys: str, fallback: str = "NOT_DEFINED", **more: Any) -> LbSubsetSelector:
    return LbSubsetSelector(keys, fallback_policy=fallback, **more)


def balancer(config: LbSubsetConfig, stats: Any = None, **options: Any) -> SubsetBalancer:
    random = seeded()
    common = CommonOptions(random, stats or Counts(), **options)
    return SubsetBalancer(config, LayeredBalancer(RoundRobin(random), common), common)


def ports(pick: Pick, key: SubsetKey | None, times: int = 60) -> set[int]:
    return {int(name.rpartition(":")[2]) if name != "none" else 0 for name in picks(pick, times, Context(subset=key))}


@pytest.mark.parametrize(
    ("match", "expected", "counted"),
    [
        ({"v": "1"}, {1}, "lb_subsets_selected"),
        ({"v": "9"}, {1, 2}, None),
        ({"v": "1", "x": 1}, {1}, "lb_subsets_selected"),
        ({"v": "2", "x": 5}, {2}, "lb_subsets_selected"),
        ({"z": 1.0}, {1}, "lb_subsets_selected"),
        ({"z": 2}, {2}, "lb_subsets_fallback"),
        ({"q": 1}, {0}, None),
        ({"nope": 1}, {2}, "lb_subsets_fallback"),
    ],
)
def test_as_envoy_answers(match: dict[str, Any], expected: set[int], counted: str | None) -> None:
    """Envoy 1.40 picked these hosts and counted these statistics for the same cluster and routes."""
    config = LbSubsetConfig(
        (
            selector("v", fallback="ANY_ENDPOINT"),
            selector("v", "x", fallback="KEYS_SUBSET", fallback_keys_subset=("v",)),
            selector("z"),
            selector("q", fallback="NO_FALLBACK"),
        ),
        fallback_policy="DEFAULT_SUBSET",
        default_subset={"v": "2"},
    )
    stats = Counts()
    pick = finish(balancer(config, stats).build(host_sets_of([host(1, v="1", x=1, z=1), host(2, v="2")])))
    assert stats.seen() == {"lb_subsets_created": 4, "lb_subsets_active": 4}
    assert ports(pick, subset_key(**match), 4) == expected
    assert stats.seen() == {"lb_subsets_created": 4, "lb_subsets_active": 4} | ({counted: 4} if counted else {})


@pytest.mark.parametrize(
    ("policy", "expected"), [("NO_FALLBACK", {0}), ("ANY_ENDPOINT", {1, 2, 3}), ("DEFAULT_SUBSET", {3})]
)
def test_the_fallback_policy_decides_without_a_match(policy: str, expected: set[int]) -> None:
    config = LbSubsetConfig((selector("v"),), fallback_policy=policy, default_subset={"stage": "prod"})
    pick = finish(balancer(config).build(host_sets_of([host(1, v=1), host(2), host(3, v=2, stage="prod")])))
    assert ports(pick, None) == expected
    assert ports(pick, subset_key(v=3)) == expected
    assert ports(pick, subset_key(v=1)) == {1}


def test_values_are_compared_as_values() -> None:
    hosts = [host(1, v=1), host(2, v="1"), host(3, v=True), host(4, v={"a": 1, "b": [1, 2]}), host(5, v=None)]
    pick = finish(balancer(LbSubsetConfig((selector("v"),))).build(host_sets_of(hosts)))
    for value, port in ((1.0, 1), ("1", 2), (True, 3), ({"b": [1, 2], "a": 1}, 4), (None, 5), (1.5, 0)):
        assert ports(pick, subset_key(v=value)) == {port}


def test_a_list_may_stand_for_any_of_its_values() -> None:
    hosts = [host(1, v=["a", "b"]), host(2, v="b")]
    config = LbSubsetConfig((selector("v"),), list_as_any=True)
    pick = finish(balancer(config).build(host_sets_of(hosts)))
    assert ports(pick, subset_key(v="a")) == {1}
    assert ports(pick, subset_key(v="b")) == {1, 2}
    whole = finish(balancer(LbSubsetConfig((selector("v"),))).build(host_sets_of(hosts)))
    assert ports(whole, subset_key(v="a")) == {0}
    assert ports(whole, subset_key(v=["a", "b"])) == {1}


def test_a_single_host_per_subset() -> None:
    config = LbSubsetConfig((selector("v", single_host_per_subset=True),))
    stats = Counts()
    pick = finish(balancer(config, stats).build(host_sets_of([host(1, v=1), host(2, v=1), host(3, v=2)])))
    assert ports(pick, subset_key(v=1)) == {1}
    assert stats.lb_subsets_single_host_per_subset_duplicate == 1


def test_an_empty_default_subset_falls_back_to_any_host_if_panic_mode_says_so() -> None:
    stats = Counts()
    config = LbSubsetConfig(
        (selector("v"),), fallback_policy="DEFAULT_SUBSET", default_subset={"v": 7}, panic_mode_any=True
    )
    pick = finish(balancer(config, stats).build(host_sets_of([host(1, v=1), host(2, v=2)])))
    assert ports(pick, subset_key(v=9), 10) == {1, 2}
    assert stats.lb_subsets_fallback_panic == 10


def test_a_list_of_fallbacks_is_tried_in_order() -> None:
    config = LbSubsetConfig((selector("v"), selector("v", "w")), metadata_fallback_policy="FALLBACK_LIST")
    pick = finish(balancer(config).build(host_sets_of([host(1, v=1, w=1), host(2, v=2)])))
    assert ports(pick, subset_key(v=1, fallback_list=[{"v": 8}, {"v": 2}, {"v": 1}])) == {2}
    assert ports(pick, subset_key(v=1, fallback_list=[{"w": 1}])) == {1}
    assert ports(pick, subset_key(v=1, fallback_list=[])) == {1}
    assert ports(pick, subset_key(v=1, fallback_list=[{"v": 8}])) == {0}
    assert ports(pick, subset_key(v=1)) == {1}


def test_subsets_panic_on_their_own() -> None:
    hosts = [host(1, v=1), host(2, v=1), host(3, v=2)]
    hosts[0].set_health_status("UNHEALTHY")
    hosts[1].set_health_status("UNHEALTHY")
    stats = Counts()
    pick = finish(balancer(LbSubsetConfig((selector("v"),)), stats).build(host_sets_of(hosts)))
    assert ports(pick, subset_key(v=2), 10) == {3}
    assert stats.lb_healthy_panic == 0
    assert ports(pick, subset_key(v=1), 10) == {1, 2}
    assert stats.lb_healthy_panic == 10


def test_subsets_that_come_and_go_are_counted() -> None:
    stats = Counts()
    subsets = balancer(LbSubsetConfig((selector("v"),)), stats)
    finish(subsets.build(host_sets_of([host(1, v=1), host(2, v=2)])))
    finish(subsets.build(host_sets_of([host(2, v=2), host(3, v=3), host(4, v=4)])))
    assert (stats.lb_subsets_active, stats.lb_subsets_created, stats.lb_subsets_removed) == (3, 4, 1)


@pytest.mark.parametrize(
    ("aware", "scaled", "share"), [(False, False, 1 / 4), (True, False, 1 / 2), (True, True, 1 / 3)]
)
def test_locality_weights_within_a_subset(aware: bool, scaled: bool, share: float) -> None:
    """Of X's two hosts (weight 4 of 8) one is in the subset; of Y's three all are."""
    x = (host(1, v=1), host(2))
    y = (host(3, v=1), host(4, v=1), host(5, v=1))
    whole = HostSet(0, x + y, (LocalityHosts(Locality("x"), 4, x), LocalityHosts(Locality("y"), 4, y)))
    config = LbSubsetConfig((selector("v"),), locality_weight_aware=aware, scale_locality_weight=scaled)
    pick = finish(balancer(config, locality_weighted=True).build((whole,)))
    counts = picks(pick, 1200, Context(subset=subset_key(v=1)))
    assert abs(counts["10.0.0.1:1"] / 1200 - share) < 0.01


def test_hosts_that_were_tried_are_avoided_in_subsets_and_fallbacks() -> None:
    hosts = [host(1, v=1), host(2, v=1)]
    config = LbSubsetConfig((selector("v"), selector("v", "w", fallback="KEYS_SUBSET", fallback_keys_subset=("v",))))
    pick = finish(balancer(config).build(host_sets_of(hosts)))
    for key in (subset_key(v=1), subset_key(v=1, w=1)):
        context = Context(subset=key, tried=[hosts[0]], host_selection_retry_max_attempts=5)
        assert set(picks(pick, 10, context)) == {"10.0.0.1:2"}


REDUNDANT = LbSubsetConfig(
    (selector("a"), selector("a", "b"), selector("c", "d"), selector("a", "b", "e", fallback="KEYS_SUBSET",
     fallback_keys_subset=("a",))),
    allow_redundant_keys=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"a": 1}, {1, 2}),
        ({"a": 1, "z": 1}, {1, 2}),
        ({"a": 1, "b": 1, "z": 1}, {1}),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, {1}),
        ({"c": 1, "d": 1, "z": 1}, {3}),
        ({"b": 1}, {0}),
        ({"a": 1, "b": 9, "z": 1}, {0}),
        ({"a": 1, "b": 9, "e": 1, "z": 1}, {1, 2}),
    ],
)
def test_redundant_keys_may_be_left_out(match: dict[str, int], expected: set[int]) -> None:
    hosts = [host(1, a=1, b=1), host(2, a=1, b=2), host(3, c=1, d=1)]
    pick = finish(balancer(REDUNDANT).build(host_sets_of(hosts)))
    for _ in range(2):
        assert ports(pick, subset_key(**match)) == expected


def test_a_host_that_is_asked_for_is_taken_from_whatever_subset() -> None:
    """As real Envoy, which looks for it before it looks for subsets."""
    pick = finish(balancer(LbSubsetConfig((selector("v"),))).build(host_sets_of([host(1, v=1), host(2, v=2)])))
    other = OverrideHost("10.0.0.1:2")
    assert picks(pick, 3, Context(subset=subset_key(v=1), override_host=other)) == {"10.0.0.1:2": 3}
    nobody = OverrideHost("10.0.0.1:3")
    assert picks(pick, 3, Context(subset=subset_key(v=1), override_host=nobody)) == {"10.0.0.1:1": 3}
    strict = OverrideHost("10.0.0.1:3", True)
    assert picks(pick, 3, Context(subset=subset_key(v=1), override_host=strict)) == {"none": 3}
