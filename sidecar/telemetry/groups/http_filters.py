"""Statistics of the HTTP filters, most of them below `http.<stat_prefix>.`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ..histogram import Histogram
from ..stats import Counter, Derived, Gauge, Kind, NameCounts, Sample, StatGroup, stat_group


@stat_group
class FaultStats(StatGroup):
    """`http.<stat_prefix>.fault.`."""

    aborts_injected: Counter
    delays_injected: Counter
    faults_overflow: Counter
    response_rl_injected: Counter
    active_faults: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "active_faults": ("aborts_injected", "delays_injected", "response_rl_injected"),
    }


@stat_group
class RbacStats(StatGroup):
    """Decisions of an RBAC engine that enforces: `http.<stat_prefix>.rbac.[<rules_stat_prefix>.]`."""

    allowed: Counter
    denied: Counter


@stat_group
class RbacShadowStats(StatGroup):
    """Decisions of an RBAC engine that only watches: `http.<stat_prefix>.rbac.[<shadow_rules_stat_prefix>.]`."""

    shadow_allowed: Counter
    shadow_denied: Counter


@stat_group
class JwtAuthnStats(StatGroup):
    """`http.<stat_prefix>.jwt_authn.[<stat_prefix of the filter>.]`."""

    allowed: Counter
    cors_preflight_bypassed: Counter
    denied: Counter
    jwks_fetch_failed: Counter
    jwks_fetch_success: Counter
    jwks_waiting_overflow: Counter
    jwt_cache_hit: Counter
    jwt_cache_miss: Counter


@stat_group
class LocalRateLimitStats(StatGroup):
    """`<stat_prefix>.http_local_rate_limit.`."""

    enabled: Counter
    enforced: Counter
    ok: Counter
    rate_limited: Counter
    shadow_mode: Counter


@stat_group
class CorsStats(StatGroup):
    """`http.<stat_prefix>.cors.`."""

    origin_invalid: Counter
    origin_valid: Counter


@stat_group
class StatefulSessionStats(StatGroup):
    """`http.<stat_prefix>.stateful_session.<stat_prefix>.`."""

    failed_closed: Counter
    failed_open: Counter
    no_session: Counter
    routed: Counter


@stat_group
class HealthCheckFilterStats(StatGroup):
    """`http.<stat_prefix>.health_check.`."""

    cached_response: Counter
    degraded: Counter
    failed: Counter
    failed_cluster_empty: Counter
    failed_cluster_not_found: Counter
    failed_cluster_unhealthy: Counter
    ok: Counter
    request_total: Counter


@stat_group
class CompressorStats(StatGroup):
    """One direction of a compressor: `http.<stat_prefix>.compressor.<library name>.<encoding>.[request.]`."""

    compressed: Counter
    content_length_too_small: Counter
    not_compressed: Counter
    total_compressed_bytes: Counter
    total_uncompressed_bytes: Counter


@stat_group
class CompressorResponseStats(StatGroup):
    """What a compressor counts of responses besides: the same place without `request.`."""

    header_compressor_overshadowed: Counter
    header_compressor_used: Counter
    header_identity: Counter
    header_not_valid: Counter
    header_wildcard: Counter
    no_accept_header: Counter
    not_compressed_etag: Counter


@stat_group
class DecompressorStats(StatGroup):
    """`http.<stat_prefix>.decompressor.<library name>.<encoding>.<request|response>.`."""

    decompressed: Counter
    not_decompressed: Counter
    total_compressed_bytes: Counter
    total_uncompressed_bytes: Counter


@stat_group
class AdaptiveConcurrencyStats(StatGroup):
    """`http.<stat_prefix>.adaptive_concurrency.gradient_controller.`."""

    rq_blocked: Counter
    burst_queue_size: Gauge
    concurrency_limit: Gauge
    gradient: Gauge
    min_rtt_calculation_active: Gauge
    min_rtt_msecs: Gauge
    sample_rtt_msecs: Gauge


@stat_group
class AdmissionControlStats(StatGroup):
    """`http.<stat_prefix>.admission_control.`."""

    rq_failure: Counter
    rq_rejected: Counter
    rq_success: Counter


def _once_counted(leaf: str) -> Derived:
    """A counter that is there once it was counted."""

    def expand(group: Any) -> tuple[Sample, ...]:
        counts: NameCounts = group.counts
        return (Sample(leaf, counts[leaf], (), True),) if leaf in counts else ()

    return Derived(leaf, Kind.COUNTER, expand)


def _once_measured(leaf: str) -> Derived:
    def expand(group: Any) -> Iterator[Sample]:
        view = getattr(group, leaf).view()
        if view.cumulative:
            yield Sample(leaf, view)

    return Derived(leaf, Kind.HISTOGRAM, expand)


@stat_group
class GrpcStats(StatGroup):
    """`cluster.<name>.grpc.[<service>.<method>.]`, or `grpc-web`: `counts` is by leaf name, gRPC's statuses among them."""

    counts: NameCounts
    upstream_rq_time: Histogram

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"upstream_rq_time"})
    DERIVED: ClassVar[tuple[Derived, ...]] = (
        *map(_once_counted, map(str, range(17))),
        *map(_once_counted, ("failure", "request_message_count", "response_message_count", "success", "total")),
        _once_measured("upstream_rq_time"),
    )


@stat_group
class RateLimitStats(StatGroup):
    """`cluster.<name>.ratelimit.[<stat_prefix>.]`: what a rate limit service said; `counts` is by leaf name."""

    counts: NameCounts

    DERIVED: ClassVar[tuple[Derived, ...]] = tuple(
        map(_once_counted, ("error", "failure_mode_allowed", "ok", "over_limit"))
    )


@stat_group
class ExtAuthzStats(StatGroup):
    """`http.<stat_prefix>.ext_authz.[<stat_prefix>.]`: what an authorization service said. What only
    watches is not implemented, and counts nothing."""

    denied: Counter
    disabled: Counter
    error: Counter
    failure_mode_allowed: Counter
    filter_state_name_collision: Counter
    ignored_dynamic_metadata: Counter
    invalid: Counter
    ok: Counter
    omitted_response_headers: Counter
    request_header_limits_reached: Counter
    response_header_limits_reached: Counter
    shadow_denied: Counter
    shadow_error: Counter


@stat_group
class ExtAuthzClusterStats(StatGroup):
    """`cluster.<name>.ext_authz.[<stat_prefix>.]`: the same for the requests to a cluster; `counts` is by leaf name."""

    counts: NameCounts

    DERIVED: ClassVar[tuple[Derived, ...]] = tuple(
        map(_once_counted, ("denied", "error", "failure_mode_allowed", "invalid", "ok"))
    )


@stat_group
class FaultClusterStats(StatGroup):
    """`http.<stat_prefix>.fault.<downstream cluster>.`; `counts` is by leaf name."""

    counts: NameCounts

    DERIVED: ClassVar[tuple[Derived, ...]] = tuple(map(_once_counted, ("aborts_injected", "delays_injected")))


@stat_group
class RbacPolicyStats(StatGroup):
    """`http.<stat_prefix>.rbac.[<prefix>.]policy.<name>.` with `track_per_rule_stats`; `counts` is by leaf name."""

    counts: NameCounts

    DERIVED: ClassVar[tuple[Derived, ...]] = tuple(
        map(_once_counted, ("allowed", "denied", "shadow_allowed", "shadow_denied"))
    )
