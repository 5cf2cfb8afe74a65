"""How many connections may be open: of one listener, and of all together.

Source: Envoy's runtime keys `envoy.resource_limits.listener.<name>.connection_limit` and
`overload.global_downstream_max_connections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

_GLOBAL_KEY = "overload.global_downstream_max_connections"


class ConnectionLimit:
    """``active`` connections now, of at most ``maximum``; ``inf`` is no limit."""

    __slots__ = ("maximum", "active")

    def __init__(self, maximum: float = inf) -> None:
        self.maximum = maximum
        self.active = 0

    def __repr__(self) -> str:
        return f"<ConnectionLimit {self.active} of {self.maximum}>"


def global_limit(runtime: Mapping[str, Any]) -> ConnectionLimit:
    """The limit of all listeners together; one object for all of them."""
    return ConnectionLimit(_limit(runtime, _GLOBAL_KEY))


def listener_limit(runtime: Mapping[str, Any], name: str) -> ConnectionLimit:
    """The limit of the listener called ``name``."""
    return ConnectionLimit(_limit(runtime, f"envoy.resource_limits.listener.{name}.connection_limit"))


def _limit(runtime: Mapping[str, Any], key: str) -> float:
    value = runtime.get(key)
    return inf if value is None else int(value)
