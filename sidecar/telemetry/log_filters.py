"""Which entries go into a log: Envoy's access-log filters, compiled to conditions on a stream.

Source: `envoy.config.accesslog.v3.AccessLogFilter` and its reference.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from random import Random
from typing import TypeAlias

from sidecar.config.access_log import (
    AccessLogFilter,
    AndFilter,
    DurationFilter,
    GrpcStatusFilter,
    HeaderFilter,
    LogTypeFilter,
    MetadataFilter,
    NotHealthCheckFilter,
    OrFilter,
    ResponseFlagFilter,
    RuntimeFilter,
    StatusCodeFilter,
)
from sidecar.config.matcher import MetadataMatcher
from sidecar.core.matching import compile_header
from sidecar.core.metadata_match import compile_value, metadata_value
from sidecar.core.response_flags import BY_SHORT_NAME
from sidecar.core.stream_info import StreamInfo

from .format_code import NO_REQUEST, NO_RESPONSE
from .operators.http import status_for_grpc

Condition: TypeAlias = Callable[[StreamInfo], bool]

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "GE": operator.ge,
    "LE": operator.le,
}
_UNKNOWN = 2


def compile_filter(filter: AccessLogFilter, random: Random, access_log_type: str = "NotSet") -> Condition:
    """Whether an entry of this type is logged. `random` decides where a filter takes a share of all requests."""
    match filter:
        case StatusCodeFilter(op, value):
            compare = _COMPARISONS[op]
            return lambda stream: compare(stream.response_code, value)
        case DurationFilter(op, value):
            compare = _COMPARISONS[op]
            return lambda stream: stream.end != 0.0 and compare(int((stream.end - stream.start) * 1000), value)
        case NotHealthCheckFilter():
            return lambda stream: not stream.response_code_details.startswith("health_check_")
        case RuntimeFilter(percent_sampled, use_independent_randomness):
            return _compile_share(*percent_sampled, use_independent_randomness, random)
        case AndFilter(filters):
            every = tuple(compile_filter(inner, random, access_log_type) for inner in filters)
            return lambda stream: all(holds(stream) for holds in every)
        case OrFilter(filters):
            some = tuple(compile_filter(inner, random, access_log_type) for inner in filters)
            return lambda stream: any(holds(stream) for holds in some)
        case HeaderFilter(header):
            matches = compile_header(header)
            return lambda stream: matches(stream.request or NO_REQUEST)
        case ResponseFlagFilter(flags):
            bits = sum(BY_SHORT_NAME[name] for name in flags) if flags else -1
            return lambda stream: stream.response_flags & bits != 0
        case GrpcStatusFilter(statuses, exclude):
            return _compile_grpc_status(statuses, exclude)
        case MetadataFilter(matcher, match_if_key_not_found):
            if matcher is None:
                return lambda stream: match_if_key_not_found
            return _compile_metadata(matcher, match_if_key_not_found)
        case LogTypeFilter(types, exclude):
            wanted = (access_log_type in types) != exclude
            return lambda stream: wanted
        case _:
            return lambda stream: False  # only what is traced, and nothing is


def _compile_share(numerator: int, denominator: int, independent: bool, random: Random) -> Condition:
    def sampled(stream: StreamInfo) -> bool:
        if not independent:
            try:
                identifier = stream.request_id or (stream.request or NO_REQUEST).index.get(b"x-request-id", b"")
                return int(identifier[:8], 16) % denominator < numerator
            except ValueError:
                pass  # no UUID: as Envoy, decide by chance
        return random.randrange(denominator) < numerator

    return sampled


def _compile_metadata(matcher: MetadataMatcher, when_missing: bool) -> Condition:
    *parents, last = (matcher.filter, *matcher.path)
    keys = tuple(parents)
    test, invert = compile_value(matcher.value), matcher.invert

    def matches(stream: StreamInfo) -> bool:
        parent = metadata_value(stream.dynamic_metadata, keys)
        if not isinstance(parent, Mapping) or last not in parent:
            return when_missing
        return test(parent[last]) != invert

    return matches


def _compile_grpc_status(statuses: frozenset[int], exclude: bool) -> Condition:
    def matches(stream: StreamInfo) -> bool:
        status = status_for_grpc(stream.response or NO_RESPONSE, stream.response_trailers, stream.response_code)
        return ((_UNKNOWN if status is None else status) in statuses) != exclude

    return matches
