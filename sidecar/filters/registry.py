"""From the configuration of an HTTP filter to the object that streams call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.config.filters.fault import HTTPFault
from sidecar.config.filters.local_ratelimit import LocalRateLimit
from sidecar.config.filters.rbac import HttpRbac
from sidecar.config.filters.user_filter import UserFilter
from sidecar.config.http_filters import FilterConfig, PerRouteConfig
from sidecar.core.http_filter import HttpFilter
from sidecar.filters.context import FilterContext
from sidecar.filters.fault import make_fault
from sidecar.filters.local_ratelimit import make_local_rate_limit
from sidecar.filters.rbac import make_rbac, make_route_rbac
from sidecar.filters.user import make_user_filter

_MAKERS: Mapping[type, Callable[[Any, str, FilterContext], HttpFilter]] = {
    HTTPFault: make_fault,
    HttpRbac: make_rbac,
    LocalRateLimit: make_local_rate_limit,
    UserFilter: make_user_filter,
}


def make_filter(config: FilterConfig, name: str, context: FilterContext) -> HttpFilter:
    """The chain's own instance of a filter. Raises ValueError for a format or a user's filter that is wrong."""
    return _MAKERS[type(config)](config, name, context)


def make_route_filter(
    base: HttpFilter,
    base_config: FilterConfig,
    per_route_config: PerRouteConfig,
    context: FilterContext,
    levels: Sequence[PerRouteConfig] = (),
) -> HttpFilter:
    """What takes the place of ``base`` on a route that has a configuration of its own for it.

    ``per_route_config`` is the most specific one; ``levels`` are those of all levels, from the route configuration to
    the route, for filters that merge them. The same configurations give the same object, so that routes which share
    them share rate limits too.
    """
    levels = tuple(levels) or (per_route_config,)
    key = (id(base), *map(id, levels))
    known = context.route_filters.get(key)
    if known is None:
        made = _make_route_filter(base, base_config, per_route_config, context, levels)
        known = context.route_filters[key] = ((base, levels), made)
    return known[1]


def _make_route_filter(
    base: HttpFilter,
    base_config: FilterConfig,
    config: PerRouteConfig,
    context: FilterContext,
    levels: Sequence[PerRouteConfig],
) -> HttpFilter:
    match config:
        case HttpRbac():
            return make_route_rbac(base, config)  # type: ignore[arg-type]
        case HTTPFault() | LocalRateLimit() | UserFilter():
            return make_filter(config, base.name, context)
        case _:
            raise TypeError(f"{type(config).__name__} is no configuration for a route")
