"""Load-balancing policies in both spellings, and subsets."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.common_lb import CommonLbConfig, ZoneAwareLbConfig
from sidecar.config.lb_policies import (
    ClientSideWeightedRoundRobin,
    LeastRequestLbConfig,
    MaglevLbConfig,
    RingHashLbConfig,
    RoundRobinLbConfig,
    SlowStartConfig,
)
from sidecar.config.subset import LbSubsetConfig, LbSubsetSelector
from tests.sidecar.config.resources import POLICY, Document, bootstrap, cluster, load, load_cluster, refusals

HERE = "static_resources.clusters[0]"
WEIGHTED = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
SLOW = {
    "slow_start_window": "60s",
    "aggression": {"default_value": 2.0, "runtime_key": "aggression"},
    "min_weight_percent": {"value": 5},
}


def policies(*kinds: Document) -> Document:
    return {"policies": [{"typed_extension_config": {"name": "lb", "typed_config": kind}} for kind in kinds]}


def extension(kind: str, **fields: Any) -> Document:
    return {"@type": POLICY + kind, **fields}


@pytest.mark.parametrize(
    ("fields", "lb_policy", "lb_config"),
    [
        ({}, "ROUND_ROBIN", None),
        ({"lb_policy": "RANDOM"}, "RANDOM", None),
        ({"lb_policy": "LEAST_REQUEST"}, "LEAST_REQUEST", LeastRequestLbConfig(2, 1.0)),
        (
            {
                "lb_policy": "LEAST_REQUEST",
                "least_request_lb_config": {
                    "choice_count": 3,
                    "active_request_bias": {"default_value": 0.5, "runtime_key": "bias"},
                },
            },
            "LEAST_REQUEST",
            LeastRequestLbConfig(3, 0.5),
        ),
        ({"lb_policy": "RING_HASH"}, "RING_HASH", RingHashLbConfig(1024, 8 * 1024 * 1024, "XX_HASH")),
        (
            {
                "lb_policy": "RING_HASH",
                "ring_hash_lb_config": {
                    "minimum_ring_size": 1,
                    "maximum_ring_size": 2,
                    "hash_function": "MURMUR_HASH_2",
                },
            },
            "RING_HASH",
            RingHashLbConfig(1, 2, "MURMUR_HASH_2"),
        ),
        ({"lb_policy": "MAGLEV"}, "MAGLEV", MaglevLbConfig(65537)),
        ({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 11}}, "MAGLEV", MaglevLbConfig(11)),
        ({"load_balancing_policy": policies(extension("random.v3.Random"))}, "RANDOM", None),
        ({"round_robin_lb_config": {"slow_start_config": {}}}, "ROUND_ROBIN", None),
        (
            {"round_robin_lb_config": {"slow_start_config": SLOW}},
            "ROUND_ROBIN",
            RoundRobinLbConfig(SlowStartConfig(60.0, 2.0, 5.0)),
        ),
        (
            {
                "load_balancing_policy": policies(
                    extension(
                        "least_request.v3.LeastRequest",
                        selection_method="FULL_SCAN",
                        slow_start_config={"slow_start_window": "1s", "aggression": {"default_value": -1}},
                    )
                )
            },
            "LEAST_REQUEST",
            LeastRequestLbConfig(2, 1.0, "FULL_SCAN", SlowStartConfig(1.0, 1.0, 10.0)),
        ),
        (
            {"load_balancing_policy": policies(extension(WEIGHTED))},
            "CLIENT_SIDE_WEIGHTED_ROUND_ROBIN",
            ClientSideWeightedRoundRobin(10.0, 180.0, 1.0, 1.0),
        ),
        (
            {
                "load_balancing_policy": policies(
                    extension(
                        WEIGHTED,
                        blackout_period="0s",
                        weight_expiration_period="3s",
                        weight_update_period="0s",
                        error_utilization_penalty=0.5,
                        metric_names_for_computing_utilization=["named_metrics.a", "cpu_utilization"],
                        slow_start_config=SLOW,
                    )
                )
            },
            "CLIENT_SIDE_WEIGHTED_ROUND_ROBIN",
            ClientSideWeightedRoundRobin(
                0.0, 3.0, 0.1, 0.5, ("named_metrics.a", "cpu_utilization"), SlowStartConfig(60.0, 2.0, 5.0)
            ),
        ),
        (
            {"load_balancing_policy": policies(extension("ring_hash.v3.RingHash", minimum_ring_size=5))},
            "RING_HASH",
            RingHashLbConfig(5),
        ),
        (
            {
                "lb_policy": "LOAD_BALANCING_POLICY_CONFIG",
                "load_balancing_policy": policies(extension("maglev.v3.Maglev", table_size=7)),
            },
            "MAGLEV",
            MaglevLbConfig(7),
        ),
    ],
)
def test_policies(fields: Document, lb_policy: str, lb_config: object) -> None:
    built = load_cluster(**fields)
    assert (built.lb_policy, built.lb_config) == (lb_policy, lb_config)


def test_common_settings_in_both_spellings() -> None:
    common = {
        "healthy_panic_threshold": {"value": 0},
        "locality_weighted_lb_config": {},
        "consistent_hashing_lb_config": {"use_hostname_for_hashing": True, "hash_balance_factor": 150},
    }
    expected = CommonLbConfig(0.0, True, True, 150)
    assert load_cluster(type="STRICT_DNS", lb_policy="MAGLEV", common_lb_config=common).common_lb_config == expected
    maglev = extension(
        "maglev.v3.Maglev",
        locality_weighted_lb_config={},
        consistent_hashing_lb_config={"use_hostname_for_hashing": True, "hash_balance_factor": 150},
    )
    built = load_cluster(
        common_lb_config={"healthy_panic_threshold": {"value": 0}}, load_balancing_policy=policies(maglev)
    )
    assert built.common_lb_config == expected
    by_locality = extension("round_robin.v3.RoundRobin", locality_lb_config={"locality_weighted_lb_config": {}})
    assert load_cluster(load_balancing_policy=policies(by_locality)).common_lb_config == CommonLbConfig(50.0, True)
    nested = extension(
        "wrr_locality.v3.WrrLocality",
        endpoint_picking_policy=policies(extension("least_request.v3.LeastRequest", choice_count=4)),
    )
    wrr = load_cluster(load_balancing_policy=policies(nested))
    assert (wrr.lb_policy, wrr.lb_config) == ("LEAST_REQUEST", LeastRequestLbConfig(4))
    assert wrr.common_lb_config == CommonLbConfig(50.0, True)


@pytest.mark.parametrize("kind", ["STATIC", "LOGICAL_DNS", "ORIGINAL_DST"])
def test_hashing_by_host_name_is_for_strict_dns_alone_as_in_envoy(kind: str) -> None:
    hashing = {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}}
    path = "static_resources.clusters[0].common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing"
    document = bootstrap([], [cluster(type=kind, lb_policy="MAGLEV", common_lb_config=hashing)])
    assert (path, "is for STRICT_DNS alone") in refusals(document)


def test_subsets_in_both_spellings() -> None:
    subsets = {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"stage": "prod", "level": 3},
        "subset_selectors": [
            {
                "keys": ["version", "stage", "stage"],
                "fallback_policy": "KEYS_SUBSET",
                "fallback_keys_subset": ["stage"],
            },
            {"keys": ["id"], "single_host_per_subset": True},
        ],
        "scale_locality_weight": True,
        "panic_mode_any": True,
        "list_as_any": True,
        "metadata_fallback_policy": "FALLBACK_LIST",
    }
    expected = LbSubsetConfig(
        (
            LbSubsetSelector(("stage", "version"), False, "KEYS_SUBSET", ("stage",)),
            LbSubsetSelector(("id",), True),
        ),
        "DEFAULT_SUBSET",
        {"stage": "prod", "level": 3},
        False,
        True,
        True,
        True,
        "FALLBACK_LIST",
    )
    assert load_cluster(lb_subset_config=subsets).lb_subset_config == expected
    nested = extension("subset.v3.Subset", **subsets, subset_lb_policy=policies(extension("random.v3.Random")))
    built = load_cluster(load_balancing_policy=policies(nested))
    assert (built.lb_policy, built.lb_subset_config) == ("RANDOM", expected)


def test_a_subset_configuration_without_selectors_is_none() -> None:
    assert load_cluster(lb_subset_config={"fallback_policy": "ANY_ENDPOINT"}).lb_subset_config is None


def test_the_first_policy_that_is_implemented_counts() -> None:
    pick_first = extension("pick_first.v3.PickFirst")
    both = policies(pick_first, extension("random.v3.Random"), extension("maglev.v3.Maglev"))
    built, warnings = load(bootstrap([], [cluster(load_balancing_policy=both)]))
    assert built.static_resources.clusters[0].lb_policy == "RANDOM"
    assert len(warnings) == 1
    assert "the first policy that Mizzen implements is used" in warnings[0]
    (path, _), *rest = refusals(bootstrap([], [cluster(load_balancing_policy=policies(pick_first))]))
    assert rest == []
    assert path == f"{HERE}.load_balancing_policy.policies[0].typed_extension_config.typed_config"


def test_the_configuration_of_another_policy_is_ignored_with_a_warning() -> None:
    built, warnings = load(bootstrap([], [cluster(ring_hash_lb_config={"minimum_ring_size": 3})]))
    assert built.static_resources.clusters[0].lb_policy == "ROUND_ROBIN"
    assert warnings == [f"configuration: {HERE}.ring_hash_lb_config: is ignored: lb_policy is ROUND_ROBIN"]


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"lb_policy": "LOAD_BALANCING_POLICY_CONFIG"}, ".lb_policy", "needs load_balancing_policy"),
        (
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"maximum_ring_size": 5}},
            ".ring_hash_lb_config",
            "minimum_ring_size (1024) is above maximum_ring_size (5)",
        ),
        (
            {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 10}},
            ".maglev_lb_config.table_size",
            "10 is no prime number",
        ),
        (
            {
                "load_balancing_policy": policies(extension("random.v3.Random")),
                "lb_subset_config": {"subset_selectors": [{"keys": ["a"]}]},
            },
            ".lb_subset_config",
            "cannot go with load_balancing_policy",
        ),
        (
            {
                "load_balancing_policy": policies(extension("random.v3.Random")),
                "common_lb_config": {"locality_weighted_lb_config": {}},
            },
            ".common_lb_config.locality_weighted_lb_config",
            "cannot go with load_balancing_policy",
        ),
        ({"load_balancing_policy": {}}, ".load_balancing_policy.policies", "names no policy"),
        (
            {"lb_subset_config": {"locality_weight_aware": True, "subset_selectors": [{"keys": ["a"]}]}},
            ".lb_subset_config.locality_weight_aware",
            "needs common_lb_config.locality_weighted_lb_config",
        ),
        (
            {"lb_subset_config": {"subset_selectors": [{"keys": ["a", "b"], "fallback_policy": "KEYS_SUBSET"}]}},
            ".lb_subset_config.subset_selectors[0].fallback_keys_subset",
            "is required for KEYS_SUBSET",
        ),
        (
            {
                "lb_subset_config": {
                    "subset_selectors": [
                        {"keys": ["a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]}
                    ]
                }
            },
            ".lb_subset_config.subset_selectors[0].fallback_keys_subset",
            "must be some of the keys, not all",
        ),
        (
            {"lb_subset_config": {"subset_selectors": [{"keys": ["a", "b"], "fallback_keys_subset": ["a"]}]}},
            ".lb_subset_config.subset_selectors[0].fallback_keys_subset",
            "is for KEYS_SUBSET alone",
        ),
        (
            {"load_balancing_policy": policies(extension(WEIGHTED, enable_oob_load_report=True))},
            ".load_balancing_policy.policies[0].typed_extension_config.typed_config.enable_oob_load_report",
            "is not implemented by Mizzen",
        ),
    ],
)
def test_what_is_wrong_is_refused(fields: Document, path: str, problem: str) -> None:
    found = refusals(bootstrap([], [cluster(**fields)]))
    assert [path for path, _ in found] == [HERE + path]
    assert found[0][1].startswith(problem)


def test_zones_in_both_spellings() -> None:
    zones = {"routing_enabled": {"value": 49.5}, "min_cluster_size": 3, "fail_traffic_on_panic": True}
    expected = CommonLbConfig(fail_traffic_on_panic=True, zone_aware=ZoneAwareLbConfig(50, 3))
    assert load_cluster(common_lb_config={"zone_aware_lb_config": zones}).common_lb_config == expected
    forced = {**zones, "force_local_zone": {}, "locality_basis": "HEALTHY_HOSTS_WEIGHT"}
    policy = policies(extension("round_robin.v3.RoundRobin", locality_lb_config={"zone_aware_lb_config": forced}))
    assert load_cluster(load_balancing_policy=policy).common_lb_config == CommonLbConfig(
        fail_traffic_on_panic=True, zone_aware=ZoneAwareLbConfig(50, 3, 1, "HEALTHY_HOSTS_WEIGHT")
    )


def test_what_holds_for_every_policy_holds_beside_an_extension() -> None:
    common = {
        "healthy_panic_threshold": {"value": 30.5},
        "close_connections_on_host_set_change": True,
        "override_host_status": {"statuses": ["HEALTHY", "DRAINING"]},
    }
    built = load_cluster(common_lb_config=common, load_balancing_policy=policies(extension(WEIGHTED)))
    assert built.common_lb_config == CommonLbConfig(
        31.0,
        close_connections_on_host_set_change=True,
        override_host_status=frozenset(("HEALTHY", "DRAINING")),
    )


def test_redundant_keys_are_for_the_extension() -> None:
    subset = extension(
        "subset.v3.Subset",
        subset_selectors=[{"keys": ["a"]}],
        allow_redundant_keys=True,
        subset_lb_policy=policies(extension("random.v3.Random")),
    )
    built = load_cluster(load_balancing_policy=policies(subset)).lb_subset_config
    assert built is not None and built.allow_redundant_keys


def test_the_runtime_goes_before_what_is_configured() -> None:
    layer = {"upstream": {"healthy_panic_threshold": 7, "zone_routing": {"enabled": 20, "min_cluster_size": 2}}}
    runtime = {"layers": [{"name": "static", "static_layer": layer}]}
    document = {**bootstrap([], [cluster(), cluster(name="d", common_lb_config={})]), "layered_runtime": runtime}
    built, warnings = load(document)
    assert [each.common_lb_config for each in built.static_resources.clusters] == [
        CommonLbConfig(7.0, zone_aware=ZoneAwareLbConfig(20, 2))
    ] * 2
    assert warnings == []


def test_the_cluster_of_the_proxy_itself() -> None:
    document = {**bootstrap([], [cluster()]), "cluster_manager": {"local_cluster_name": "c"}}
    assert load(document)[0].cluster_manager.local_cluster_name == "c"
    document["cluster_manager"] = {"local_cluster_name": "d"}
    assert refusals(document) == [("cluster_manager.local_cluster_name", "there is no cluster called 'd'")]
