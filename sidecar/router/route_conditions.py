"""The conditions of a route beside its path: share of requests, headers, query parameters, gRPC, dynamic metadata.

Source: Envoy's ``RouteMatch`` reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sidecar.config.matcher import MetadataMatcher
from sidecar.config.route_match import RouteMatch
from sidecar.core.grpc import is_grpc
from sidecar.core.head import RequestHead
from sidecar.core.matching import compile_headers, compile_query_parameter, path_only
from sidecar.core.metadata_match import compile_metadata
from sidecar.router.path_match import PREFIX, classify

Condition = Callable[[RequestHead, int, Any], bool]
"""From the request, one random number for it, the same for all routes that are tried, and its stream, whose
``dynamic_metadata`` is asked for, to whether all holds."""


def wants_grpc(match: RouteMatch) -> bool:
    """Whether the route is for gRPC requests only."""
    return match.grpc


def compile_conditions(match: RouteMatch) -> Condition | None:
    """All conditions but that on the path, the cheap ones first; None when there are none."""
    conditions: list[Condition] = []
    if match.runtime_fraction is not None and match.runtime_fraction[0] < match.runtime_fraction[1]:
        conditions.append(_compile_fraction(*match.runtime_fraction))
    if wants_grpc(match):
        conditions.append(lambda request, roll, stream: is_grpc(request))
    headers = compile_headers(match.headers)
    if headers is not None:
        test = headers
        conditions.append(lambda request, roll, stream: test(request))
    conditions += [_compile_parameter(compile_query_parameter(parameter)) for parameter in match.query_parameters]
    conditions += map(_compile_metadata, match.dynamic_metadata)
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    every = tuple(conditions)

    def all_hold(request: RequestHead, roll: int, stream: Any) -> bool:
        for condition in every:
            if not condition(request, roll, stream):
                return False
        return True

    return all_hold


def compile_request_match(match: RouteMatch) -> Callable[[RequestHead], bool]:
    """A route's whole match, but for its share of requests and for metadata, as a condition for others than the router."""
    kind, path_matches = classify(match, ignore_parameters=False)
    rest = compile_conditions(replace(match, runtime_fraction=None, dynamic_metadata=()))
    if rest is None:
        if kind == PREFIX and match.path == b"/":
            return lambda request: request.path[:1] == b"/"
        return lambda request: path_matches(request, path_only(request.path))
    holds = rest
    return lambda request: path_matches(request, path_only(request.path)) and holds(request, 0, None)


def _compile_fraction(numerator: int, denominator: int) -> Condition:
    return lambda request, roll, stream: roll % denominator < numerator


def _compile_parameter(test: Callable[[RequestHead], bool]) -> Condition:
    return lambda request, roll, stream: test(request)


def _compile_metadata(matcher: MetadataMatcher) -> Condition:
    test = compile_metadata(matcher)
    return lambda request, roll, stream: test(stream.dynamic_metadata)
