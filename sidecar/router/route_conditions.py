"""The conditions of a route beside its path: share of requests, headers, query parameters, gRPC.

Source: Envoy's ``RouteMatch`` reference.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config.route_match import RouteMatch
from sidecar.core.grpc import is_grpc
from sidecar.core.head import RequestHead
from sidecar.core.matching import compile_headers, compile_query_parameter

Condition = Callable[[RequestHead, int], bool]
"""From the request and one random number for it, the same for all routes that are tried, to whether all holds."""


def wants_grpc(match: RouteMatch) -> bool:
    """Whether the route is for gRPC requests only."""
    return match.grpc


def compile_conditions(match: RouteMatch) -> Condition | None:
    """All conditions but that on the path, the cheap ones first; None when there are none."""
    conditions: list[Condition] = []
    if match.runtime_fraction is not None and match.runtime_fraction[0] < match.runtime_fraction[1]:
        conditions.append(_compile_fraction(*match.runtime_fraction))
    if wants_grpc(match):
        conditions.append(lambda request, roll: is_grpc(request))
    headers = compile_headers(match.headers)
    if headers is not None:
        test = headers
        conditions.append(lambda request, roll: test(request))
    conditions += [_compile_parameter(compile_query_parameter(parameter)) for parameter in match.query_parameters]
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    every = tuple(conditions)

    def all_hold(request: RequestHead, roll: int) -> bool:
        for condition in every:
            if not condition(request, roll):
                return False
        return True

    return all_hold


def _compile_fraction(numerator: int, denominator: int) -> Condition:
    return lambda request, roll: roll % denominator < numerator


def _compile_parameter(test: Callable[[RequestHead], bool]) -> Condition:
    return lambda request, roll: test(request)
