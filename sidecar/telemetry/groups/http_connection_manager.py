"""Statistics of HTTP connection managers: `http.<stat_prefix>.`, the codec's, and those per listener and route."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ..histogram import Histogram
from ..stats import (
    CodeCounts,
    CodeSources,
    Counter,
    Derived,
    Gauge,
    Kind,
    Sample,
    StatGroup,
    stat_group,
)
from ..store import StatsStore
from ..tags import http_connection_manager, listener_http
from .response_codes import by_class, by_code, completed


def _of_http1(group: Any) -> tuple[Sample, ...]:
    """Requests that did not come by HTTP/2: counted as all, less the others."""
    return (Sample("downstream_rq_http1_total", group.downstream_rq_total - group.downstream_rq_http2_total),)


@stat_group
class HttpConnectionManagerStats(StatGroup):
    """`http.<stat_prefix>.`. Its responses are counted in `ListenerHttpStats.codes`, which `listener_codes` collects;
    `codes` is for those that come from no listener.
    """

    downstream_cx_delayed_close_timeout: Counter
    downstream_cx_destroy: Counter
    downstream_cx_destroy_active_rq: Counter
    downstream_cx_destroy_local: Counter
    downstream_cx_destroy_local_active_rq: Counter
    downstream_cx_destroy_remote: Counter
    downstream_cx_destroy_remote_active_rq: Counter
    downstream_cx_drain_close: Counter
    downstream_cx_http1_total: Counter
    downstream_cx_http2_total: Counter
    downstream_cx_http3_total: Counter
    downstream_cx_idle_timeout: Counter
    downstream_cx_max_duration_reached: Counter
    downstream_cx_max_requests_reached: Counter
    downstream_cx_overload_disable_keepalive: Counter
    downstream_cx_protocol_error: Counter
    downstream_cx_rx_bytes_total: Counter
    downstream_cx_ssl_total: Counter
    downstream_cx_total: Counter
    downstream_cx_tx_bytes_total: Counter
    downstream_cx_upgrades_total: Counter
    downstream_flow_control_paused_reading_total: Counter
    downstream_flow_control_resumed_reading_total: Counter
    downstream_rq_failed_path_normalization: Counter
    downstream_rq_header_timeout: Counter
    downstream_rq_http2_total: Counter
    downstream_rq_http3_total: Counter
    downstream_rq_idle_timeout: Counter
    downstream_rq_max_duration_reached: Counter
    downstream_rq_non_relative_path: Counter
    downstream_rq_overload_close: Counter
    downstream_rq_redirected_with_normalized_path: Counter
    downstream_rq_rejected_via_ip_detection: Counter
    downstream_rq_response_before_rq_complete: Counter
    downstream_rq_rx_reset: Counter
    downstream_rq_timeout: Counter
    downstream_rq_too_large: Counter
    downstream_rq_too_many_premature_resets: Counter
    downstream_rq_total: Counter
    downstream_rq_tx_reset: Counter
    downstream_rq_ws_on_non_ws_route: Counter
    rs_too_large: Counter
    tracing_client_enabled: Counter
    tracing_health_check: Counter
    tracing_not_traceable: Counter
    tracing_random_sampling: Counter
    tracing_service_forced: Counter
    downstream_cx_active: Gauge
    downstream_cx_http1_active: Gauge
    downstream_cx_http1_soft_drain: Gauge
    downstream_cx_http2_active: Gauge
    downstream_cx_http3_active: Gauge
    downstream_cx_rx_bytes_buffered: Gauge
    downstream_cx_ssl_active: Gauge
    downstream_cx_tx_bytes_buffered: Gauge
    downstream_cx_upgrades_active: Gauge
    downstream_rq_active: Gauge
    downstream_cx_length_ms: Histogram
    downstream_rq_time: Histogram
    codes: CodeCounts
    listener_codes: CodeSources

    LEAVES: ClassVar[Mapping[str, str]] = {
        f"tracing_{leaf}": f"tracing.{leaf}"
        for leaf in ("client_enabled", "health_check", "not_traceable", "random_sampling", "service_forced")
    }
    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "downstream_cx_active": ("downstream_cx_total",),
        "downstream_cx_http1_active": ("downstream_cx_http1_total",),
        "downstream_cx_http2_active": ("downstream_cx_http2_total",),
        "downstream_cx_http3_active": ("downstream_cx_http3_total",),
        "downstream_cx_rx_bytes_buffered": ("downstream_cx_rx_bytes_total",),
        "downstream_cx_ssl_active": ("downstream_cx_ssl_total",),
        "downstream_cx_upgrades_active": ("downstream_cx_upgrades_total",),
        "downstream_rq_active": ("downstream_rq_total",),
    }
    DERIVED: ClassVar[tuple[Derived, ...]] = (
        Derived("downstream_rq_http1_total", Kind.COUNTER, _of_http1),
        by_class("downstream_rq", lambda group: (group.codes, *group.listener_codes), always=True),
        completed("downstream_rq", lambda group: (group.codes, *group.listener_codes)),
    )


@stat_group
class ListenerHttpStats(StatGroup):
    """`listener.<address>.http.<stat_prefix>.`. A response is counted here once, for the connection manager too."""

    codes: CodeCounts

    DERIVED: ClassVar[tuple[Derived, ...]] = (
        by_class("downstream_rq", lambda group: (group.codes,), always=True),
        completed("downstream_rq", lambda group: (group.codes,)),
    )


def connection_manager_stats(
    store: StatsStore, listener: str, stat_prefix: str
) -> tuple[HttpConnectionManagerStats, ListenerHttpStats]:
    """The statistics of a connection manager behind a listener (its `stat_prefix`, or its address), in `store`.

    Both are shared with others of the same name, and each is given back with `store.remove`. What their codecs have in
    common is there from now on.
    """
    store.shared(Http1CodecStats, "http1.")
    manager = store.shared(HttpConnectionManagerStats, *http_connection_manager(stat_prefix))
    of_listener = store.shared(ListenerHttpStats, *listener_http(listener, stat_prefix))
    if not any(codes is of_listener.codes for codes in manager.listener_codes):
        manager.listener_codes.append(of_listener.codes)
    return manager, of_listener


@stat_group
class RouterStats(StatGroup):
    """The router filter, at `http.<stat_prefix>.`."""

    no_cluster: Counter
    no_route: Counter
    passthrough_internal_redirect_bad_location: Counter
    passthrough_internal_redirect_no_route: Counter
    passthrough_internal_redirect_predicate: Counter
    passthrough_internal_redirect_too_many_redirects: Counter
    passthrough_internal_redirect_unsafe_scheme: Counter
    rq_direct_response: Counter
    rq_overload_local_reply: Counter
    rq_redirect: Counter
    rq_reset_after_downstream_response_started: Counter
    rq_total: Counter


@stat_group
class Http1CodecStats(StatGroup):
    """The HTTP/1 codec of all connection managers: `http1.`."""

    dropped_headers_with_underscores: Counter
    metadata_not_supported_error: Counter
    requests_rejected_with_underscores_in_headers: Counter
    response_flood: Counter


def _upstream_time(group: Any) -> Iterator[Sample]:
    view = group.upstream_rq_time.view()
    if view.cumulative:
        yield Sample("upstream_rq_time", view)


@stat_group
class RouteStats(StatGroup):
    """`vhost.<virtual host>.route.<stat_prefix>.`, and virtual clusters likewise."""

    upstream_rq_retry: Counter
    upstream_rq_retry_limit_exceeded: Counter
    upstream_rq_retry_overflow: Counter
    upstream_rq_retry_success: Counter
    upstream_rq_timeout: Counter
    upstream_rq_total: Counter
    upstream_rq_time: Histogram
    codes: CodeCounts

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"upstream_rq_time"})
    DERIVED: ClassVar[tuple[Derived, ...]] = (
        by_code("upstream_rq", lambda group: (group.codes,)),
        by_class("upstream_rq", lambda group: (group.codes,)),
        completed("upstream_rq", lambda group: (group.codes,), always=False),
        Derived("upstream_rq_time", Kind.HISTOGRAM, _upstream_time),
    )
