"""What of a request rate limits count: actions compiled to functions that give a descriptor's entries.

Source: Envoy's ``route.v3.RateLimit.Action`` reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from sidecar.config.rate_limit import (
    DestinationCluster,
    GenericKey,
    HeaderValueMatch,
    MaskedRemoteAddress,
    MetadataAction,
    QueryParameters,
    QueryParameterValueMatch,
    RateLimit,
    RateLimitAction,
    RemoteAddress,
    RequestHeaders,
    SourceCluster,
    VirtualHostRateLimits,
)
from sidecar.core.matching import compile_headers, compile_query_parameter, query_parameter
from sidecar.core.metadata_match import metadata_value
from sidecar.core.rate_limits import Descriptor, Entry, Limit
from sidecar.filters.fraction import compile_fraction

Populate = Callable[[Any], list[Descriptor]]
"""The descriptors of a request, from its stream."""

CompileFormat = Callable[[str], Callable[[Any], bytes]]

SKIP = b""
"""What an action gives that adds no entry but keeps the descriptor."""

_NO_HITS = -1
_MOST_HITS = 1_000_000_000
_UNITS = frozenset({"SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"})

_Action = Callable[[Any], Entry | bytes | None]
_Rule = Callable[[Any], Descriptor | None]


def no_descriptors(stream: Any) -> list[Descriptor]:
    """Of requests that no rate limit is for."""
    return []


def compile_rate_limits(rate_limits: Iterable[RateLimit], node_cluster: str, compile_format: CompileFormat) -> Populate:
    """All of them as one function. A rate limit of which an action yields nothing gives no descriptor."""
    rules = tuple(_compile_rate_limit(limit, node_cluster, compile_format) for limit in rate_limits)
    if not rules:
        return no_descriptors
    return lambda stream: [found for rule in rules if (found := rule(stream)) is not None]


def limits_of_route(route: Any, stage: int, of_virtual_host: VirtualHostRateLimits) -> list[RateLimit]:
    """The rate limits of this stage that a route and its virtual host have, and that count together."""
    if route.include_vh_rate_limits:
        of_virtual_host = "INCLUDE"
    limits = list(route.rate_limits)
    if of_virtual_host == "INCLUDE" or (of_virtual_host == "OVERRIDE" and not limits):
        limits += route.vh_rate_limits
    return [limit for limit in limits if limit.stage == stage]


def _compile_rate_limit(config: RateLimit, node_cluster: str, compile_format: CompileFormat) -> _Rule:
    actions = tuple(_compile_action(action, node_cluster) for action in config.actions)
    hits = config.hits_addend
    count = compile_format(config.hits_format) if config.hits_format else None
    enabled = None if config.enabled is None else compile_fraction(config.enabled)
    where = config.limit

    def descriptor(stream: Any) -> Descriptor | None:
        if enabled is not None and not enabled(stream.random):
            return None
        entries: list[Entry] = []
        for action in actions:
            entry = action(stream)
            if entry is None:
                return None
            if entry is not SKIP:
                entries.append(cast(Entry, entry))
        limit = _limit(metadata_value(stream.dynamic_metadata, where)) if where else None
        counted = hits if count is None else _hits(count(stream))
        if counted == _NO_HITS:
            return None
        limit = _limit(metadata_value(stream.dynamic_metadata, where)) if where else None
        return Descriptor(tuple(entries), counted, limit)

    return descriptor


def _hits(text: bytes) -> int:
    """The whole part of a number; what is none, or out of bounds, leaves the descriptor out."""
    try:
        number = float(text)
    except ValueError:
        return _NO_HITS
    return int(number) if 0 <= number <= _MOST_HITS and b"_" not in text else _NO_HITS


def _limit(value: Any) -> Limit | None:
    """A limit from the dynamic metadata; what is none stands for the service's own."""
    if not isinstance(value, dict):
        return None
    requests, unit = value.get("requests_per_unit"), value.get("unit")
    if isinstance(requests, bool) or not isinstance(requests, int | float) or unit not in _UNITS:
        return None
    return int(requests), unit


def _compile_action(action: RateLimitAction, node_cluster: str) -> _Action:
    match action:
        case SourceCluster():
            source = (b"source_cluster", node_cluster.encode())
            return lambda stream: source
        case GenericKey():
            generic = (action.descriptor_key.encode(), action.descriptor_value.encode())
            return lambda stream: generic
        case DestinationCluster():
            return _destination_cluster
        case RemoteAddress():
            return _remote_address
        case MaskedRemoteAddress():
            return _masked_remote_address(action)
        case RequestHeaders():
            return _request_headers(action)
        case QueryParameters():
            return _query_parameters(action)
        case HeaderValueMatch():
            return _header_value_match(action)
        case QueryParameterValueMatch():
            return _query_parameter_value_match(action)
        case MetadataAction():
            return _metadata(action)


def cluster_of(stream: Any) -> str:
    """The cluster that a request goes to, empty where it goes to none."""
    route = stream.route
    return "" if route is None else route.cluster_name or stream.cluster_name


def _destination_cluster(stream: Any) -> Entry | None:
    name = cluster_of(stream)
    return (b"destination_cluster", name.encode()) if name else None


def _remote_address(stream: Any) -> Entry | None:
    ip = stream.remote_address.ip
    return None if ip is None else (b"remote_address", ip.encode())


def _masked_remote_address(action: MaskedRemoteAddress) -> _Action:
    bits = {4: action.v4_prefix_mask_len, 6: action.v6_prefix_mask_len}

    def entry(stream: Any) -> Entry | None:
        parsed = stream.remote_address.parsed
        if parsed is None:
            return None
        network = ip_network((parsed, bits[parsed.version]), strict=False)
        return b"masked_remote_address", str(network).encode()

    return entry


def _request_headers(action: RequestHeaders) -> _Action:
    name, key = action.header_name, action.descriptor_key.encode()
    absent = SKIP if action.skip_if_absent else None
    plain = name[:1] != b":" and name != b"host"

    def entry(stream: Any) -> Entry | bytes | None:
        request = stream.request
        if plain:
            values = request.get_all(name)
            return (key, values[0]) if values else absent
        value = request.lookup(name)
        return absent if value is None else (key, value)

    return entry


def _query_parameters(action: QueryParameters) -> _Action:
    name, key = action.query_parameter_name, action.descriptor_key.encode()
    absent = SKIP if action.skip_if_absent else None

    def entry(stream: Any) -> Entry | bytes | None:
        value = query_parameter(stream.request.path, name)
        return absent if value is None else (key, unquote_to_bytes(value))

    return entry


def _header_value_match(action: HeaderValueMatch) -> _Action:
    matches = compile_headers(action.headers)
    found = (action.descriptor_key.encode(), action.descriptor_value.encode())
    expected = action.expect_match
    return lambda stream: found if (matches is None or matches(stream.request)) == expected else None


def _query_parameter_value_match(action: QueryParameterValueMatch) -> _Action:
    tests = tuple(map(compile_query_parameter, action.query_parameters))
    found = (action.descriptor_key.encode(), action.descriptor_value.encode())
    expected = action.expect_match
    return lambda stream: found if all(test(stream.request) for test in tests) == expected else None


def _metadata(action: MetadataAction) -> _Action:
    keys, key = (action.key, *action.path), action.descriptor_key.encode()
    absent = SKIP if action.skip_if_absent else None
    dynamic = action.source == "DYNAMIC"

    def entry(stream: Any) -> Entry | bytes | None:
        route = stream.route
        metadata = stream.dynamic_metadata if dynamic else None if route is None else route.metadata
        value = metadata_value(metadata, keys)
        text = value if isinstance(value, str) and value else action.default_value
        return (key, text.encode()) if text else absent

    return entry
