"""How a cluster chooses an endpoint: `lb_policy` with its configuration, and `load_balancing_policy` extensions.

Both ways of saying it give the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from sidecar.config.extensions import type_name_of
from sidecar.config.fields import Node
from sidecar.config.subset import LbSubsetConfig, parse_lb_subset_config

_EXTENSIONS = "envoy.extensions.load_balancing_policies"
_SUBSET = f"{_EXTENSIONS}.subset.v3.Subset"
_WRR_LOCALITY = f"{_EXTENSIONS}.wrr_locality.v3.WrrLocality"


@dataclass(frozen=True, slots=True)
class LeastRequestLbConfig:
    """`choice_count` random endpoints are compared. `active_request_bias` is the power of the requests in a weight."""

    choice_count: int = 2
    active_request_bias: float = 1.0


@dataclass(frozen=True, slots=True)
class RingHashLbConfig:
    """Sizes in entries of the ring; `hash_function` is XX_HASH or MURMUR_HASH_2."""

    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8388608
    hash_function: str = "XX_HASH"


@dataclass(frozen=True, slots=True)
class MaglevLbConfig:
    """`table_size` is a prime number of entries."""

    table_size: int = 65537


@dataclass(frozen=True, slots=True)
class OriginalDstLbConfig:
    """Whether a request header may name the endpoint, and a port that takes the place of the original one."""

    use_http_header: bool = False
    http_header_name: bytes = b"x-envoy-original-dst-host"
    upstream_port_override: int | None = None


LbConfig: TypeAlias = LeastRequestLbConfig | RingHashLbConfig | MaglevLbConfig | OriginalDstLbConfig


@dataclass(frozen=True, slots=True)
class CommonLbConfig:
    """What is common to the policies.

    Below `healthy_panic_threshold` percent of healthy endpoints all of them are used. `locality_weighted_lb_config`
    says whether localities are chosen by their weights. `hash_balance_factor` (percent of the mean load) bounds the
    load of an endpoint when hashing; 0 does not. `fail_traffic_on_panic`: in panic no endpoint is used.
    """

    healthy_panic_threshold: float = 50.0
    locality_weighted_lb_config: bool = False
    use_hostname_for_hashing: bool = False
    hash_balance_factor: int = 0
    fail_traffic_on_panic: bool = False


DEFAULT_COMMON_LB_CONFIG = CommonLbConfig()


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    """`lb_policy` is ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, MAGLEV or CLUSTER_PROVIDED.

    `lb_config` is the policy's own, with its defaults: None for ROUND_ROBIN and RANDOM.
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
    config = _config_parsers[policy](own) if policy in _config_parsers else None
    common = node.child("common_lb_config")
    subsets = node.child("lb_subset_config")
    parsed_common = DEFAULT_COMMON_LB_CONFIG if common is None else _parse_common(common)
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


def _parse_common(node: Node) -> CommonLbConfig:
    weighted = node.child("locality_weighted_lb_config")
    hashing = node.child("consistent_hashing_lb_config")
    zones = node.child("zone_aware_lb_config")
    return _common(
        node.percent("healthy_panic_threshold", 50.0),
        weighted is not None,
        False if hashing is None else hashing.get("use_hostname_for_hashing"),
        0 if hashing is None else hashing.wrapped("hash_balance_factor", 0),
        False if zones is None else zones.get("fail_traffic_on_panic"),
    )


@lru_cache(maxsize=64)
def _common(panic: float, weighted: bool, by_hostname: bool, factor: int, fail: bool) -> CommonLbConfig:
    return CommonLbConfig(panic, weighted, by_hostname, factor, fail)


def _check_locality_aware(node: Node, subsets: LbSubsetConfig, common: CommonLbConfig) -> None:
    if subsets.locality_weight_aware and not common.locality_weighted_lb_config:
        node.refuse(
            "needs common_lb_config.locality_weighted_lb_config", "locality_weight_aware", "set that, or not this"
        )


def _least_request(node: Node | None) -> LbConfig:
    if node is None:
        return LeastRequestLbConfig()
    return LeastRequestLbConfig(node.wrapped("choice_count", 2), node.runtime_value("active_request_bias", 1.0))


def _ring_hash(node: Node | None) -> LbConfig:
    if node is None:
        return RingHashLbConfig()
    smallest, largest = node.wrapped("minimum_ring_size", 1024), node.wrapped("maximum_ring_size", 8388608)
    if smallest > largest:
        node.refuse(
            f"minimum_ring_size ({smallest}) is above maximum_ring_size ({largest})",
            do="raise the one or lower the other",
        )
    function = node.enum("hash_function")
    return RingHashLbConfig(smallest, largest, "XX_HASH" if function == "DEFAULT_HASH" else function)


def _maglev(node: Node | None) -> LbConfig:
    if node is None:
        return MaglevLbConfig()
    size = node.wrapped("table_size", 65537)
    if not _is_prime(size):
        node.refuse(f"{size} is no prime number", "table_size", "write one: 65537, say")
    return MaglevLbConfig(size)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _original_dst(node: Node | None) -> LbConfig:
    if node is None:
        return OriginalDstLbConfig()
    use_http_header, name = node.get("use_http_header"), node.get("http_header_name")
    if name and not use_http_header:
        node.refuse("has no effect without use_http_header", "http_header_name", "set use_http_header to true")
    return OriginalDstLbConfig(
        use_http_header,
        name.lower().encode() or b"x-envoy-original-dst-host",
        node.wrapped("upstream_port_override", None),
    )


_config_parsers: dict[str, Callable[[Node | None], LbConfig]] = {
    "LEAST_REQUEST": _least_request,
    "RING_HASH": _ring_hash,
    "MAGLEV": _maglev,
    "CLUSTER_PROVIDED": _original_dst,
}

_extension_policies = {
    f"{_EXTENSIONS}.round_robin.v3.RoundRobin": "ROUND_ROBIN",
    f"{_EXTENSIONS}.least_request.v3.LeastRequest": "LEAST_REQUEST",
    f"{_EXTENSIONS}.random.v3.Random": "RANDOM",
    f"{_EXTENSIONS}.ring_hash.v3.RingHash": "RING_HASH",
    f"{_EXTENSIONS}.maglev.v3.Maglev": "MAGLEV",
}
_KNOWN = (*_extension_policies, _SUBSET, _WRR_LOCALITY)


def _parse_extensions(node: Node) -> LoadBalancing:
    """`load_balancing_policy`, of which the first policy that is implemented counts; `lb_policy` then does not."""
    node.get("lb_policy")
    subsets, common = node.child("lb_subset_config"), node.child("common_lb_config")
    if subsets is not None:
        parse_lb_subset_config(subsets)
        node.refuse("cannot go with load_balancing_policy", "lb_subset_config", "use the subset policy extension")
    panic = DEFAULT_COMMON_LB_CONFIG.healthy_panic_threshold
    if common is not None:
        panic = _parse_common(common).healthy_panic_threshold
        for name in ("locality_weighted_lb_config", "consistent_hashing_lb_config", "zone_aware_lb_config"):
            if common.has(name):
                common.refuse("cannot go with load_balancing_policy", name, "set it in the policy's own configuration")
    policies = node.child("load_balancing_policy")
    return DEFAULT_LOAD_BALANCING if policies is None else _parse_policies(policies, panic)


def _parse_policies(node: Node, panic: float) -> LoadBalancing:
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
    return DEFAULT_LOAD_BALANCING if extension is None else _parse_policy(extension, panic)


def _type_of(candidate: Node) -> str:
    message: Any = candidate.message
    return type_name_of(message.typed_extension_config.typed_config.type_url)


def _parse_policy(node: Node, panic: float) -> LoadBalancing:
    if node.type_name == _SUBSET:
        inner = node.child("subset_lb_policy")
        nested = DEFAULT_LOAD_BALANCING if inner is None else _parse_policies(inner, panic)
        subsets = parse_lb_subset_config(node)
        if subsets is not None:
            _check_locality_aware(node, subsets, nested.common_lb_config)
        return _load_balancing(nested.lb_policy, nested.lb_config, nested.common_lb_config, subsets)
    if node.type_name == _WRR_LOCALITY:
        inner = node.child("endpoint_picking_policy")
        nested = DEFAULT_LOAD_BALANCING if inner is None else _parse_policies(inner, panic)
        return _load_balancing(
            nested.lb_policy, nested.lb_config, _common(panic, True, False, 0, False), nested.lb_subset_config
        )
    policy = _extension_policies[node.type_name]
    config = _config_parsers[policy](node) if policy in _config_parsers else None
    if policy in ("RING_HASH", "MAGLEV"):
        weighted = node.child("locality_weighted_lb_config")
        hashing = node.child("consistent_hashing_lb_config")
        by_hostname = hashing.get("use_hostname_for_hashing") if hashing is not None else False
        factor = hashing.wrapped("hash_balance_factor", 0) if hashing is not None else 0
    else:
        locality = node.child("locality_lb_config")
        weighted = None if locality is None else locality.child("locality_weighted_lb_config")
        by_hostname, factor = False, 0
    return _load_balancing(policy, config, _common(panic, weighted is not None, by_hostname, factor, False), None)
