"""How a cluster chooses an endpoint: `lb_policy` with its configuration, and `load_balancing_policy` extensions.

Both ways of saying it give the same objects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sidecar.config.common_lb import (
    DEFAULT_COMMON_LB_CONFIG,
    CommonLbConfig,
    by_locality,
    parse_common_lb_config,
    shared,
)
from sidecar.config.extensions import type_name_of
from sidecar.config.fields import Node
from sidecar.config.lb_policies import LbConfig, parse_policy_config
from sidecar.config.subset import LbSubsetConfig, parse_lb_subset_config

_EXTENSIONS = "envoy.extensions.load_balancing_policies"
_SUBSET = f"{_EXTENSIONS}.subset.v3.Subset"
_WRR_LOCALITY = f"{_EXTENSIONS}.wrr_locality.v3.WrrLocality"


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    """`lb_policy` is ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, MAGLEV, CLUSTER_PROVIDED or
    CLIENT_SIDE_WEIGHTED_ROUND_ROBIN.

    `lb_config` is the policy's own, with its defaults: None for RANDOM, and for ROUND_ROBIN without slow start.
    """

    lb_policy: str = "ROUND_ROBIN"
    lb_config: LbConfig | None = None
    common_lb_config: CommonLbConfig = DEFAULT_COMMON_LB_CONFIG
    lb_subset_config: LbSubsetConfig | None = None


DEFAULT_LOAD_BALANCING = LoadBalancing()

_legacy_fields = {
    "LEAST_REQUEST": "least_request_lb_config",
    "RING_HASH": "ring_hash_lb_config",
    "MAGLEV": "maglev_lb_config",
    "CLUSTER_PROVIDED": "original_dst_lb_config",
    "ROUND_ROBIN": "round_robin_lb_config",
}


def parse_load_balancing(node: Node) -> LoadBalancing:
    """The fields of a `Cluster` that choose endpoints; equal ones without subsets are one object."""
    if node.has("load_balancing_policy"):
        return _parse_extensions(node)
    policy = node.enum("lb_policy")
    if policy == "LOAD_BALANCING_POLICY_CONFIG":
        node.refuse("needs load_balancing_policy", "lb_policy", "set load_balancing_policy, or name a policy here")
    field = _legacy_fields.get(policy)
    given = node.which("lb_config")
    if given is not None and given != field:
        node.ignore(given, f"lb_policy is {policy}")
    own = None if field is None else node.child(field)
    config = parse_policy_config(policy, own)
    common = node.child("common_lb_config")
    subsets = node.child("lb_subset_config")
    parsed_common = parse_common_lb_config(common, node.context.runtime)
    if subsets is not None and policy == "CLUSTER_PROVIDED":
        node.refuse("cannot go with CLUSTER_PROVIDED", "lb_subset_config", "remove it")
    parsed_subsets = None if subsets is None else parse_lb_subset_config(subsets)
    if subsets is not None and parsed_subsets is not None:
        _check_locality_aware(subsets, parsed_subsets, parsed_common)
    return _load_balancing(policy, config, parsed_common, parsed_subsets)


def _load_balancing(
    policy: str, config: LbConfig | None, common: CommonLbConfig, subsets: LbSubsetConfig | None
) -> LoadBalancing:
    if subsets is None:
        return _shared(policy, config, common)
    return LoadBalancing(policy, config, common, subsets)


@lru_cache(maxsize=64)
def _shared(policy: str, config: LbConfig | None, common: CommonLbConfig) -> LoadBalancing:
    return LoadBalancing(policy, config, common)


def _check_locality_aware(node: Node, subsets: LbSubsetConfig, common: CommonLbConfig) -> None:
    if subsets.locality_weight_aware and not common.locality_weighted_lb_config:
        node.refuse(
            "needs common_lb_config.locality_weighted_lb_config", "locality_weight_aware", "set that, or not this"
        )


_extension_policies = {
    f"{_EXTENSIONS}.round_robin.v3.RoundRobin": "ROUND_ROBIN",
    f"{_EXTENSIONS}.least_request.v3.LeastRequest": "LEAST_REQUEST",
    f"{_EXTENSIONS}.random.v3.Random": "RANDOM",
    f"{_EXTENSIONS}.ring_hash.v3.RingHash": "RING_HASH",
    f"{_EXTENSIONS}.maglev.v3.Maglev": "MAGLEV",
    f"{_EXTENSIONS}.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin": (
        "CLIENT_SIDE_WEIGHTED_ROUND_ROBIN"
    ),
}
_KNOWN = (*_extension_policies, _SUBSET, _WRR_LOCALITY)


def _parse_extensions(node: Node) -> LoadBalancing:
    """`load_balancing_policy`, of which the first policy that is implemented counts; `lb_policy` then does not."""
    node.get("lb_policy")
    subsets, common = node.child("lb_subset_config"), node.child("common_lb_config")
    if subsets is not None:
        parse_lb_subset_config(subsets)
        node.refuse("cannot go with load_balancing_policy", "lb_subset_config", "use the subset policy extension")
    own = parse_common_lb_config(common, node.context.runtime)
    if common is not None:
        for name in ("locality_weighted_lb_config", "consistent_hashing_lb_config", "zone_aware_lb_config"):
            if common.has(name):
                common.refuse("cannot go with load_balancing_policy", name, "set it in the policy's own configuration")
    policies = node.child("load_balancing_policy")
    return DEFAULT_LOAD_BALANCING if policies is None else _parse_policies(policies, own)


def _parse_policies(node: Node, common: CommonLbConfig) -> LoadBalancing:
    candidates = node.children("policies")
    if not candidates:
        node.refuse("names no policy", "policies", "name one")
        return DEFAULT_LOAD_BALANCING
    chosen = next((candidate for candidate in candidates if _type_of(candidate) in _KNOWN), candidates[0])
    for candidate in candidates:
        if candidate is not chosen:
            candidate.ignore("typed_extension_config", "the first policy that Mizzen implements is used")
    typed = chosen.child("typed_extension_config")
    extension = None if typed is None else typed.extension(known=_KNOWN)
    return DEFAULT_LOAD_BALANCING if extension is None else _parse_policy(extension, common)


def _type_of(candidate: Node) -> str:
    message: Any = candidate.message
    return type_name_of(message.typed_extension_config.typed_config.type_url)


def _parse_policy(node: Node, common: CommonLbConfig) -> LoadBalancing:
    if node.type_name == _SUBSET:
        inner = node.child("subset_lb_policy")
        nested = DEFAULT_LOAD_BALANCING if inner is None else _parse_policies(inner, common)
        subsets = parse_lb_subset_config(node)
        if subsets is not None:
            _check_locality_aware(node, subsets, nested.common_lb_config)
        return _load_balancing(nested.lb_policy, nested.lb_config, nested.common_lb_config, subsets)
    if node.type_name == _WRR_LOCALITY:
        inner = node.child("endpoint_picking_policy")
        nested = DEFAULT_LOAD_BALANCING if inner is None else _parse_policies(inner, common)
        weighted = replace(common, locality_weighted_lb_config=True)
        return _load_balancing(nested.lb_policy, nested.lb_config, shared(weighted), nested.lb_subset_config)
    policy = _extension_policies[node.type_name]
    config = parse_policy_config(policy, node)
    if policy in ("RING_HASH", "MAGLEV"):
        hashing = node.child("consistent_hashing_lb_config")
        common = replace(
            common,
            locality_weighted_lb_config=node.child("locality_weighted_lb_config") is not None,
            use_hostname_for_hashing=hashing.get("use_hostname_for_hashing") if hashing is not None else False,
            hash_balance_factor=hashing.wrapped("hash_balance_factor", 0) if hashing is not None else 0,
        )
    elif node.knows("locality_lb_config"):
        common = by_locality(common, node.child("locality_lb_config"), node.context.runtime)
    return _load_balancing(policy, config, shared(common), None)
