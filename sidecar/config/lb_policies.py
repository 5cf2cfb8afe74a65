"""The policies that choose an endpoint, each with its own configuration: the same from either spelling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class SlowStartConfig:
    """An endpoint that is new gets less for `window` seconds: time in it / window, to the power of 1 / `aggression`,
    and at least `min_weight_percent` percent.
    """

    window: float
    aggression: float = 1.0
    min_weight_percent: float = 10.0


@dataclass(frozen=True, slots=True)
class RoundRobinLbConfig:
    """What ROUND_ROBIN has to be told; without slow start there is no such object."""

    slow_start: SlowStartConfig


@dataclass(frozen=True, slots=True)
class LeastRequestLbConfig:
    """`choice_count` random endpoints are compared. `active_request_bias` is the power of the requests in a weight.

    `selection_method` is N_CHOICES, or FULL_SCAN to compare all.
    """

    choice_count: int = 2
    active_request_bias: float = 1.0
    selection_method: str = "N_CHOICES"
    slow_start: SlowStartConfig | None = None


@dataclass(frozen=True, slots=True)
class ClientSideWeightedRoundRobin:
    """Weights from the load that endpoints report (ORCA) with their responses. Periods are in seconds.

    A weight counts when `blackout_period` has passed since the first report, until `weight_expiration_period` after the
    last; weights are taken over each `weight_update_period`. `error_utilization_penalty` times the rate of errors is
    added to the utilization, which is taken from `metric_names_for_computing_utilization` first.
    """

    blackout_period: float = 10.0
    weight_expiration_period: float = 180.0
    weight_update_period: float = 1.0
    error_utilization_penalty: float = 1.0
    metric_names_for_computing_utilization: tuple[str, ...] = ()
    slow_start: SlowStartConfig | None = None


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


LbConfig: TypeAlias = (
    RoundRobinLbConfig
    | LeastRequestLbConfig
    | ClientSideWeightedRoundRobin
    | RingHashLbConfig
    | MaglevLbConfig
    | OriginalDstLbConfig
)


def parse_slow_start(node: Node) -> SlowStartConfig | None:
    """The `slow_start_config` of a policy; None where its window is empty."""
    own = node.child("slow_start_config")
    if own is None:
        return None
    aggression = own.runtime_value("aggression", 1.0)
    window = own.duration("slow_start_window", 0.0)
    config = SlowStartConfig(
        int((window or 0.0) * 1000) / 1000,
        aggression if aggression > 0.0 else 1.0,
        own.percent("min_weight_percent", 10.0),
    )
    return config if config.window > 0 else None


def _round_robin(node: Node | None) -> LbConfig | None:
    slow_start = None if node is None else parse_slow_start(node)
    return None if slow_start is None else RoundRobinLbConfig(slow_start)


def _least_request(node: Node | None) -> LbConfig:
    if node is None:
        return LeastRequestLbConfig()
    return LeastRequestLbConfig(
        node.wrapped("choice_count", 2),
        node.runtime_value("active_request_bias", 1.0),
        node.enum("selection_method") if node.knows("selection_method") else "N_CHOICES",
        parse_slow_start(node),
    )


def _client_side_weighted(node: Node | None) -> LbConfig:
    if node is None:
        return ClientSideWeightedRoundRobin()
    if node.wrapped("enable_oob_load_report", False):
        node.refuse(
            "is not implemented by Mizzen: load reports come with responses", "enable_oob_load_report", "remove it"
        )
    node.ignore("oob_reporting_period", "load reports come with responses")
    return ClientSideWeightedRoundRobin(
        node.duration("blackout_period", 10.0) or 0.0,
        node.duration("weight_expiration_period", 180.0) or 0.0,
        max(0.1, node.duration("weight_update_period", 1.0) or 0.0),
        node.wrapped("error_utilization_penalty", 1.0),
        node.get("metric_names_for_computing_utilization"),
        parse_slow_start(node),
    )


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


_parsers: dict[str, Callable[[Node | None], LbConfig | None]] = {
    "ROUND_ROBIN": _round_robin,
    "LEAST_REQUEST": _least_request,
    "CLIENT_SIDE_WEIGHTED_ROUND_ROBIN": _client_side_weighted,
    "RING_HASH": _ring_hash,
    "MAGLEV": _maglev,
    "CLUSTER_PROVIDED": _original_dst,
}


def parse_policy_config(policy: str, node: Node | None) -> LbConfig | None:
    """The configuration of the policy of this name, with its defaults; None where it needs none."""
    parse = _parsers.get(policy)
    return None if parse is None else parse(node)
