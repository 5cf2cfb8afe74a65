"""When a cluster takes no more: `envoy.config.cluster.v3.CircuitBreakers`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sidecar.config.fields import Node

UNLIMITED: Final = 0xFFFFFFFFFFFFFFFF
_NOT_GIVEN: Final = -1


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Retries may be `budget_percent` of the active and pending requests, and always `min_retry_concurrency`."""

    budget_percent: float = 20.0
    min_retry_concurrency: int = 3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits of one priority. With a `retry_budget`, `max_retries` has no meaning. `limits_retries`: one of them is given."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    retry_budget: RetryBudget | None = None
    track_remaining: bool = False
    max_connection_pools: int = UNLIMITED
    max_connections_per_host: int = UNLIMITED
    limits_retries: bool = False


@dataclass(frozen=True, slots=True)
class CircuitBreakers:
    """The limits of both priorities."""

    default: Thresholds = Thresholds()
    high: Thresholds = Thresholds()


DEFAULT_CIRCUIT_BREAKERS = CircuitBreakers()


_thresholds = lru_cache(maxsize=64)(Thresholds)
_circuit_breakers = lru_cache(maxsize=64)(CircuitBreakers)
"""Equal ones are one object."""


def parse_circuit_breakers(cluster: Node) -> CircuitBreakers:
    """`Cluster.circuit_breakers`; equal ones are one object. Like Envoy's, the first thresholds for a priority count.

    The runtime's `circuit_breakers.CLUSTER.PRIORITY.*` go before the fields, and hold for a cluster without them too.
    """
    name = cluster.get("name")
    node = cluster.child("circuit_breakers")
    by_priority: dict[str, Node] = {}
    per_host: dict[str, Node] = {}
    if node is not None:
        by_priority = _by_priority(node.children("thresholds"))
        per_host = _by_priority(node.children("per_host_thresholds"))
        for child in per_host.values():
            child.ignore("track_remaining", "what is left is told of the cluster's limits alone")
    if node is None and not any(key.startswith("circuit_breakers.") for key in cluster.context.runtime.values):
        return DEFAULT_CIRCUIT_BREAKERS
    limits = [
        _parse_thresholds(cluster, f"circuit_breakers.{name}.{priority.lower()}.",
                          by_priority.get(priority), per_host.get(priority))
        for priority in ("DEFAULT", "HIGH")
    ]  # fmt: skip
    return _circuit_breakers(*limits)


def _by_priority(nodes: list[Node]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for child in nodes:
        priority = child.enum("priority")
        if priority in found:
            child.refuse(f"another one is for the priority {priority} too", "priority", "keep one of them")
        found.setdefault(priority, child)
    return found


def _parse_thresholds(cluster: Node, key: str, node: Node | None, per_host: Node | None) -> Thresholds:
    runtime = cluster.context.runtime

    def number(name: str, default: int) -> int:
        configured: int = default if node is None else node.wrapped(name, default)
        found = runtime.integer(key + name)
        return configured if found is None else found

    retries = number("max_retries", _NOT_GIVEN)
    budget = _parse_retry_budget(cluster, f"{key}retry_budget.", None if node is None else node.child("retry_budget"))
    return _thresholds(
        number("max_connections", 1024),
        number("max_pending_requests", 1024),
        number("max_requests", 1024),
        3 if retries == _NOT_GIVEN else retries,
        budget,
        node is not None and node.get("track_remaining"),
        number("max_connection_pools", UNLIMITED),
        UNLIMITED if per_host is None else per_host.wrapped("max_connections", UNLIMITED),
        budget is not None or retries != _NOT_GIVEN,
    )


def _parse_retry_budget(cluster: Node, key: str, node: Node | None) -> RetryBudget | None:
    runtime = cluster.context.runtime
    percent, concurrency = runtime.number(f"{key}budget_percent"), runtime.integer(f"{key}min_retry_concurrency")
    if node is None and percent is None and concurrency is None:
        return None
    configured = (20.0, 3)
    if node is not None:
        configured = node.percent("budget_percent", 20.0), node.wrapped("min_retry_concurrency", 3)
    return RetryBudget(
        configured[0] if percent is None else percent, configured[1] if concurrency is None else concurrency
    )
