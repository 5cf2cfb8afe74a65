"""When a cluster takes no more, and when an endpoint is left out: circuit breakers and outlier detection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sidecar.config.core_types import seconds
from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Retries may be `budget_percent` of the active and pending requests, and always `min_retry_concurrency`."""

    budget_percent: float = 20.0
    min_retry_concurrency: int = 3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits of one priority. With a `retry_budget`, `max_retries` has no meaning."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    retry_budget: RetryBudget | None = None
    track_remaining: bool = False


@dataclass(frozen=True, slots=True)
class CircuitBreakers:
    """The limits of both priorities."""

    default: Thresholds = Thresholds()
    high: Thresholds = Thresholds()


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """Which endpoints are ejected, for how long (seconds) and in how many cases of a hundred."""

    consecutive_5xx: int = 5
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_percent: int = 10
    enforcing_consecutive_5xx: int = 100
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    max_ejection_time: float = 300.0
    max_ejection_time_jitter: float = 0.0
    always_eject_one_host: bool = False


DEFAULT_CIRCUIT_BREAKERS = CircuitBreakers()
_by_rate = (
    "enforcing_success_rate",
    "enforcing_local_origin_success_rate",
    "enforcing_failure_percentage",
    "enforcing_failure_percentage_local_origin",
)


@lru_cache(maxsize=64)
def _thresholds(
    max_connections: int,
    max_pending_requests: int,
    max_requests: int,
    max_retries: int,
    retry_budget: RetryBudget | None,
    track_remaining: bool,
) -> Thresholds:
    return Thresholds(max_connections, max_pending_requests, max_requests, max_retries, retry_budget, track_remaining)


@lru_cache(maxsize=64)
def _circuit_breakers(default: Thresholds, high: Thresholds) -> CircuitBreakers:
    return CircuitBreakers(default, high)


def parse_circuit_breakers(node: Node) -> CircuitBreakers:
    """`CircuitBreakers`; equal ones are one object. Like Envoy's, the first thresholds for a priority count."""
    by_priority: dict[str, Thresholds] = {}
    for child in node.children("thresholds"):
        priority = child.enum("priority")
        thresholds = _parse_thresholds(child)
        if priority in by_priority:
            child.refuse(f"another one is for the priority {priority} too", "priority", "keep one of them")
        by_priority.setdefault(priority, thresholds)
    default = Thresholds()
    return _circuit_breakers(by_priority.get("DEFAULT", default), by_priority.get("HIGH", default))


def _parse_thresholds(node: Node) -> Thresholds:
    budget = node.child("retry_budget")
    return _thresholds(
        node.wrapped("max_connections", 1024),
        node.wrapped("max_pending_requests", 1024),
        node.wrapped("max_requests", 1024),
        node.wrapped("max_retries", 3),
        None
        if budget is None
        else RetryBudget(budget.percent("budget_percent", 20.0), budget.wrapped("min_retry_concurrency", 3)),
        node.get("track_remaining"),
    )


def parse_outlier_detection(node: Node) -> OutlierDetection:
    """`OutlierDetection` by consecutive errors; ejection by rates may be configured only to be off."""
    for name in _by_rate:
        if node.wrapped(name, 0):
            node.refuse("is not implemented by Mizzen", name, "set it to 0")
    base = seconds(node, "base_ejection_time", 30.0)
    longest = seconds(node, "max_ejection_time", max(300.0, base))
    if longest < base:
        node.refuse("is shorter than base_ejection_time", "max_ejection_time", "make it at least as long")
    return OutlierDetection(
        node.wrapped("consecutive_5xx", 5),
        seconds(node, "interval", 10.0),
        base,
        node.wrapped("max_ejection_percent", 10),
        node.wrapped("enforcing_consecutive_5xx", 100),
        node.wrapped("consecutive_gateway_failure", 5),
        node.wrapped("enforcing_consecutive_gateway_failure", 0),
        node.get("split_external_local_origin_errors"),
        node.wrapped("consecutive_local_origin_failure", 5),
        node.wrapped("enforcing_consecutive_local_origin_failure", 100),
        longest,
        seconds(node, "max_ejection_time_jitter", 0.0),
        node.wrapped("always_eject_one_host", False),
    )
