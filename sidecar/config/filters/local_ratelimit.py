"""Rate limits that this proxy keeps by itself: `extensions.filters.http.local_ratelimit.v3.LocalRateLimit`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.core_types import (
    Fraction,
    HeaderValueOption,
    TokenBucket,
    parse_header_value_option,
    parse_token_bucket,
)
from sidecar.config.fields import Node
from sidecar.config.rate_limit import RateLimit, VirtualHostRateLimits, parse_vh_rate_limits
from sidecar.config.rate_limit import parse_local_rate_limit as parse_own_rate_limit

TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"

_SHORTEST_FILL_INTERVAL = 0.05
_TOO_MANY_REQUESTS = 429
_DYNAMIC_DESCRIPTORS = 20

_NEVER: Fraction = (0, 100)


@dataclass(frozen=True, slots=True)
class LocalRateLimitDescriptor:
    """A bucket of its own for requests that yield these (key, value) entries; an empty value is any, each apart."""

    entries: tuple[tuple[str, str], ...]
    token_bucket: TokenBucket


@dataclass(frozen=True, slots=True)
class LocalRateLimit:
    """Requests for which no token is left get `status`, with `response_headers_to_add`.

    `filter_enabled` is the share of requests that are counted, `filter_enforced` the share of those that are refused;
    the others that are over the limit pass with `request_headers_to_add_when_not_enforced`. `token_bucket` None: only
    the descriptors limit. `always_consume_default_token_bucket`: a request that fits a descriptor takes from the
    default bucket too. `rate_limited_as_resource_exhausted`: gRPC calls that are refused get that status in place of
    UNAVAILABLE. At most `max_dynamic_descriptors` buckets are kept for each descriptor with an empty value.

    Without `rate_limits` those of the route and its virtual host hold that have this `stage`, as `vh_rate_limits` says.
    What the buckets hold is for all hosts of `local_cluster` together, unless that is empty.
    """

    stat_prefix: str
    status: int = _TOO_MANY_REQUESTS
    token_bucket: TokenBucket | None = None
    filter_enabled: Fraction = _NEVER
    filter_enforced: Fraction = _NEVER
    request_headers_to_add_when_not_enforced: tuple[HeaderValueOption, ...] = ()
    response_headers_to_add: tuple[HeaderValueOption, ...] = ()
    descriptors: tuple[LocalRateLimitDescriptor, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    local_rate_limit_per_downstream_connection: bool = False
    enable_x_ratelimit_headers: bool = False
    always_consume_default_token_bucket: bool = True
    max_dynamic_descriptors: int = _DYNAMIC_DESCRIPTORS
    rate_limited_as_resource_exhausted: bool = False
    stage: int = 0
    vh_rate_limits: VirtualHostRateLimits = "OVERRIDE"
    local_cluster: str = ""


def parse_local_rate_limit(node: Node) -> LocalRateLimit:
    """`LocalRateLimit`, in the filter chain and on routes alike."""
    bucket = node.child("token_bucket")
    return LocalRateLimit(
        stat_prefix=node.get("stat_prefix"),
        status=_parse_status(node.child("status")),
        token_bucket=None if bucket is None else _parse_bucket(bucket),
        filter_enabled=node.runtime_fraction("filter_enabled") or _NEVER,
        filter_enforced=node.runtime_fraction("filter_enforced") or _NEVER,
        request_headers_to_add_when_not_enforced=tuple(
            map(parse_header_value_option, node.children("request_headers_to_add_when_not_enforced"))
        ),
        response_headers_to_add=tuple(map(parse_header_value_option, node.children("response_headers_to_add"))),
        descriptors=_parse_descriptors(node),
        rate_limits=tuple(map(parse_own_rate_limit, node.children("rate_limits"))),
        local_rate_limit_per_downstream_connection=node.get("local_rate_limit_per_downstream_connection"),
        enable_x_ratelimit_headers=node.enum("enable_x_ratelimit_headers") != "OFF",
        always_consume_default_token_bucket=node.wrapped("always_consume_default_token_bucket", True),
        max_dynamic_descriptors=node.wrapped("max_dynamic_descriptors", _DYNAMIC_DESCRIPTORS),
        rate_limited_as_resource_exhausted=node.get("rate_limited_as_resource_exhausted"),
        stage=node.get("stage"),
        vh_rate_limits=parse_vh_rate_limits(node),
        local_cluster=_parse_local_cluster(node),
    )


def _parse_local_cluster(node: Node) -> str:
    if node.child("local_cluster_rate_limit") is None:
        return ""
    name = node.context.local_cluster_name
    if not name:
        node.refuse(
            "is for the hosts of the local cluster, and none is named",
            "local_cluster_rate_limit",
            "set cluster_manager.local_cluster_name",
        )
    return name


def _parse_status(node: Node | None) -> int:
    code = 0 if node is None else int(node.get("code"))
    return code if code >= 400 else _TOO_MANY_REQUESTS


def _parse_bucket(node: Node) -> TokenBucket:
    bucket = parse_token_bucket(node)
    if bucket.fill_interval < _SHORTEST_FILL_INTERVAL:
        node.refuse("is shorter than 50 ms", "fill_interval", "make it longer, with more tokens_per_fill")
    return bucket


def _parse_descriptors(node: Node) -> tuple[LocalRateLimitDescriptor, ...]:
    descriptors: dict[tuple[tuple[str, str], ...], LocalRateLimitDescriptor] = {}
    for child in node.children("descriptors"):
        entries = tuple((entry.get("key"), entry.get("value")) for entry in child.children("entries"))
        if entries in descriptors:
            child.refuse("another descriptor has the same entries", "entries", "remove one of them")
        bucket = child.child("token_bucket")
        if bucket is not None:
            descriptors[entries] = LocalRateLimitDescriptor(entries, _parse_bucket(bucket))
    return tuple(descriptors.values())
