"""Statistics of a cluster: `cluster.<name>.` and what lies below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from ..histogram import Histogram, view_of
from ..stats import (
    CodeCounts,
    Counter,
    Derived,
    Gauge,
    Kind,
    Sample,
    StatGroup,
    stat_group,
)
from .response_codes import by_class, by_code, completed, unknown


def _times(leaf: str, *attributes: str) -> Derived:
    """A histogram that is the sum of others, present once there was a sample."""

    def expand(group: Any) -> Iterator[Sample]:
        view = view_of([getattr(group, attribute) for attribute in attributes])
        if view.cumulative:
            yield Sample(leaf, view)

    return Derived(leaf, Kind.HISTOGRAM, expand)


def _of_codec(leaf: str) -> Derived:
    """A counter of the HTTP/1 codec, there once a connection was. What it counts cannot happen with a host: it is 0."""
    return Derived(
        leaf, Kind.COUNTER, lambda group: (Sample(leaf, 0),) if group.used("upstream_cx_http1_total") else ()
    )


def _of_balancer(leaf: str, attribute: str) -> Derived:
    """A gauge that some balancers alone have: it is there, and counts as used, once one has set it."""

    def expand(group: Any) -> tuple[Sample, ...]:
        value = getattr(group, attribute)
        return () if value < 0 else (Sample(leaf, value, (), True),)

    return Derived(leaf, Kind.GAUGE, expand)


_OF_BALANCERS = {
    "lb_subsets_single_host_per_subset_duplicate": "lb_subsets_single_host_per_subset_duplicate",
    "maglev_max_entries_per_host": "maglev_lb.max_entries_per_host",
    "maglev_min_entries_per_host": "maglev_lb.min_entries_per_host",
    "ring_hash_max_hashes_per_host": "ring_hash_lb.max_hashes_per_host",
    "ring_hash_min_hashes_per_host": "ring_hash_lb.min_hashes_per_host",
    "ring_hash_size": "ring_hash_lb.size",
}


def _response_families() -> tuple[Derived, ...]:
    families: list[Derived] = []
    sources: tuple[tuple[str, Callable[[Any], tuple[CodeCounts, ...]]], ...] = (
        ("", lambda group: (group.external_codes, group.internal_codes)),
        ("external.", lambda group: (group.external_codes,)),
        ("internal.", lambda group: (group.internal_codes,)),
        ("canary.", lambda group: (group.canary_codes,)),
        ("retry.", lambda group: (group.retry_codes,)),
    )
    for words, codes in sources:
        stem = f"{words}upstream_rq"
        families += [by_code(stem, codes), unknown(stem, codes), by_class(stem, codes)]
        families.append(completed(stem, codes, always=not words))
    return tuple(families)


@stat_group
class ClusterStats(StatGroup):
    """`cluster.<name>.`. A response is counted in exactly one of `external_codes` and `internal_codes` (a request from
    inside, `x-envoy-internal`), and its time in one of the two histograms beside them: `upstream_rq_*` is their sum.
    A response that is retried is counted in `retry_codes` only; one from a canary endpoint in `canary_codes` too.
    """

    assignment_stale: Counter
    assignment_timeout_received: Counter
    assignment_use_cached: Counter
    bind_errors: Counter
    lb_healthy_panic: Counter
    lb_local_cluster_not_ok: Counter
    lb_recalculate_zone_structures: Counter
    lb_subsets_created: Counter
    lb_subsets_fallback: Counter
    lb_subsets_fallback_panic: Counter
    lb_subsets_removed: Counter
    lb_subsets_selected: Counter
    lb_zone_cluster_too_small: Counter
    lb_zone_no_capacity_left: Counter
    lb_zone_routing_all_directly: Counter
    lb_zone_routing_cross_zone: Counter
    lb_zone_routing_sampled: Counter
    membership_change: Counter
    original_dst_host_invalid: Counter
    retry_or_shadow_abandoned: Counter
    update_attempt: Counter
    update_empty: Counter
    update_failure: Counter
    update_no_rebuild: Counter
    update_success: Counter
    upstream_cx_close_notify: Counter
    upstream_cx_connect_attempts_exceeded: Counter
    upstream_cx_connect_fail: Counter
    upstream_cx_connect_timeout: Counter
    upstream_cx_connect_with_0_rtt: Counter
    upstream_cx_destroy: Counter
    upstream_cx_destroy_local: Counter
    upstream_cx_destroy_local_with_active_rq: Counter
    upstream_cx_destroy_remote: Counter
    upstream_cx_destroy_remote_with_active_rq: Counter
    upstream_cx_destroy_with_active_rq: Counter
    upstream_cx_http1_total: Counter
    upstream_cx_http2_total: Counter
    upstream_cx_http3_total: Counter
    upstream_cx_idle_timeout: Counter
    upstream_cx_max_duration_reached: Counter
    upstream_cx_max_requests: Counter
    upstream_cx_none_healthy: Counter
    upstream_cx_overflow: Counter
    upstream_cx_pool_overflow: Counter
    upstream_cx_preconnect_skipped: Counter
    upstream_cx_protocol_error: Counter
    upstream_cx_rx_bytes_total: Counter
    upstream_cx_total: Counter
    upstream_cx_tx_bytes_total: Counter
    upstream_flow_control_backed_up_total: Counter
    upstream_flow_control_drained_total: Counter
    upstream_flow_control_paused_reading_total: Counter
    upstream_flow_control_resumed_reading_total: Counter
    upstream_http3_broken: Counter
    upstream_internal_redirect_failed_total: Counter
    upstream_internal_redirect_succeeded_total: Counter
    upstream_rq_0rtt: Counter
    upstream_rq_active_overflow: Counter
    upstream_rq_cancelled: Counter
    upstream_rq_maintenance_mode: Counter
    upstream_rq_max_duration_reached: Counter
    upstream_rq_pending_failure_eject: Counter
    upstream_rq_pending_overflow: Counter
    upstream_rq_pending_total: Counter
    upstream_rq_per_try_idle_timeout: Counter
    upstream_rq_per_try_timeout: Counter
    upstream_rq_retry: Counter
    upstream_rq_retry_backoff_exponential: Counter
    upstream_rq_retry_backoff_ratelimited: Counter
    upstream_rq_retry_limit_exceeded: Counter
    upstream_rq_retry_overflow: Counter
    upstream_rq_retry_success: Counter
    upstream_rq_rx_reset: Counter
    upstream_rq_rx_reset_no_error: Counter
    upstream_rq_timeout: Counter
    upstream_rq_total: Counter
    upstream_rq_tx_reset: Counter
    lb_subsets_active: Gauge
    lb_subsets_single_host_per_subset_duplicate: Gauge
    maglev_max_entries_per_host: Gauge
    maglev_min_entries_per_host: Gauge
    ring_hash_max_hashes_per_host: Gauge
    ring_hash_min_hashes_per_host: Gauge
    ring_hash_size: Gauge
    max_host_weight: Gauge
    membership_degraded: Gauge
    membership_excluded: Gauge
    membership_healthy: Gauge
    membership_total: Gauge
    upstream_cx_active: Gauge
    upstream_cx_rx_bytes_buffered: Gauge
    upstream_cx_tx_bytes_buffered: Gauge
    upstream_queue_overloaded: Gauge
    upstream_rq_active: Gauge
    upstream_rq_pending_active: Gauge
    version: Gauge
    warming_state: Gauge
    upstream_cx_connect_ms: Histogram
    upstream_cx_length_ms: Histogram
    upstream_rq_per_cx: Histogram
    external_upstream_rq_time: Histogram
    internal_upstream_rq_time: Histogram
    canary_upstream_rq_time: Histogram
    transport_socket_total_match_count: Counter
    external_codes: CodeCounts
    internal_codes: CodeCounts
    canary_codes: CodeCounts
    retry_codes: CodeCounts

    LEAVES: ClassVar[Mapping[str, str]] = {
        "transport_socket_total_match_count": "default.total_match_count",
    }
    HIDDEN: ClassVar[frozenset[str]] = frozenset(
        {"external_upstream_rq_time", "internal_upstream_rq_time", "canary_upstream_rq_time", *_OF_BALANCERS}
    )
    INITIAL: ClassVar[Mapping[str, int]] = dict.fromkeys(_OF_BALANCERS, -1)
    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "lb_subsets_active": ("lb_subsets_created",),
        "membership_degraded": ("membership_change",),
        "membership_excluded": ("membership_change",),
        "membership_healthy": ("membership_change",),
        "membership_total": ("membership_change",),
        "upstream_cx_active": ("upstream_cx_total",),
        "upstream_cx_rx_bytes_buffered": ("upstream_cx_rx_bytes_total",),
        "upstream_rq_active": ("upstream_rq_total",),
        "upstream_rq_pending_active": ("upstream_rq_pending_total",),
        "warming_state": (),
    }
    DERIVED: ClassVar[tuple[Derived, ...]] = (
        *_response_families(),
        _of_codec("http1.dropped_headers_with_underscores"),
        _of_codec("http1.metadata_not_supported_error"),
        _of_codec("http1.requests_rejected_with_underscores_in_headers"),
        _of_codec("http1.response_flood"),
        *(_of_balancer(leaf, attribute) for attribute, leaf in _OF_BALANCERS.items()),
        _times("upstream_rq_time", "external_upstream_rq_time", "internal_upstream_rq_time"),
        _times("external.upstream_rq_time", "external_upstream_rq_time"),
        _times("internal.upstream_rq_time", "internal_upstream_rq_time"),
        _times("canary.upstream_rq_time", "canary_upstream_rq_time"),
    )


class _BreakerGauges(StatGroup):
    """Gauges that are read off a circuit breaker at the scrape: nothing is stored for them."""

    __slots__ = ("breaker",)

    def __init__(self, breaker: Any) -> None:
        self.references = 0
        self.were_used = frozenset()
        self.breaker = breaker


def _read_off(name: str) -> property:
    return property(lambda group: int(getattr(group.breaker, name)))


class BreakerStats(_BreakerGauges):
    """`cluster.<name>.circuit_breakers.<priority>.`, 1 while a limit is reached.

    That one was approached is told by the cluster's counters, where the breaker knows them (`counters`).
    """

    __slots__ = ()
    APPROACHED: ClassVar[Mapping[str, str]] = {
        "cx_open": "upstream_cx_total",
        "cx_pool_open": "upstream_cx_http1_total",
        "rq_open": "upstream_rq_total",
        "rq_pending_open": "upstream_rq_pending_total",
        "rq_retry_open": "upstream_rq_retry",
    }
    GAUGES: ClassVar[tuple[str, ...]] = ("cx_open", "cx_pool_open", "rq_open", "rq_pending_open", "rq_retry_open")
    cx_open = _read_off("cx_open")
    cx_pool_open = _read_off("cx_pool_open")
    rq_open = _read_off("rq_open")
    rq_pending_open = _read_off("rq_pending_open")
    rq_retry_open = _read_off("rq_retry_open")

    def used(self, attribute: str) -> bool:
        counters = self.breaker.counters
        return bool(getattr(self, attribute)) or (counters is not None and counters.used(self.APPROACHED[attribute]))


class BreakerRemainingStats(_BreakerGauges):
    """The same, with `track_remaining`: how much of each resource is left."""

    __slots__ = ()
    GAUGES: ClassVar[tuple[str, ...]] = (
        "remaining_cx", "remaining_cx_pools", "remaining_pending", "remaining_retries", "remaining_rq",
    )  # fmt: skip
    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(GAUGES, ())
    remaining_cx = _read_off("remaining_cx")
    remaining_cx_pools = _read_off("remaining_cx_pools")
    remaining_pending = _read_off("remaining_pending")
    remaining_retries = _read_off("remaining_retries")
    remaining_rq = _read_off("remaining_rq")


@stat_group
class OutlierDetectionStats(StatGroup):
    """`cluster.<name>.outlier_detection.`."""

    ejections_consecutive_5xx: Counter
    ejections_detected_consecutive_5xx: Counter
    ejections_detected_consecutive_gateway_failure: Counter
    ejections_detected_consecutive_local_origin_failure: Counter
    ejections_detected_degradation: Counter
    ejections_detected_failure_percentage: Counter
    ejections_detected_local_origin_failure_percentage: Counter
    ejections_detected_local_origin_success_rate: Counter
    ejections_detected_success_rate: Counter
    ejections_enforced_consecutive_5xx: Counter
    ejections_enforced_consecutive_gateway_failure: Counter
    ejections_enforced_consecutive_local_origin_failure: Counter
    ejections_enforced_failure_percentage: Counter
    ejections_enforced_local_origin_failure_percentage: Counter
    ejections_enforced_local_origin_success_rate: Counter
    ejections_enforced_success_rate: Counter
    ejections_enforced_total: Counter
    ejections_overflow: Counter
    ejections_success_rate: Counter
    ejections_total: Counter
    ejections_active: Gauge


@stat_group
class HealthCheckStats(StatGroup):
    """`cluster.<name>.health_check.`."""

    attempt: Counter
    failure: Counter
    network_failure: Counter
    passive_failure: Counter
    success: Counter
    verify_cluster: Counter
    degraded: Gauge
    healthy: Gauge


@stat_group
class TimeoutBudgetStats(StatGroup):
    """`cluster.<name>.` with `track_cluster_stats.timeout_budgets`; percent."""

    upstream_rq_timeout_budget_percent_used: Histogram
    upstream_rq_timeout_budget_per_try_percent_used: Histogram


@stat_group
class RequestResponseSizeStats(StatGroup):
    """`cluster.<name>.` with `track_cluster_stats.request_response_sizes`; bytes and counts."""

    upstream_rq_headers_size: Histogram
    upstream_rq_headers_count: Histogram
    upstream_rq_body_size: Histogram
    upstream_rs_headers_size: Histogram
    upstream_rs_headers_count: Histogram
    upstream_rs_body_size: Histogram


@stat_group
class EndpointStats(StatGroup):
    """One endpoint, for /clusters and per-endpoint statistics."""

    cx_connect_fail: Counter
    cx_total: Counter
    rq_error: Counter
    rq_success: Counter
    rq_timeout: Counter
    rq_total: Counter
    cx_active: Gauge
    rq_active: Gauge
