"""Statistics of listeners, their filters, and the network filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..histogram import Histogram
from ..stats import Counter, Derived, Gauge, Kind, Sample, StatGroup, stat_group


def _of_extensions(leaf: str) -> Derived:
    """Filters are never looked for elsewhere, so that none can be missing; the admin's listener does not say so."""

    def expand(group: Any) -> tuple[Sample, ...]:
        return () if group.prefix == "listener.admin." else (Sample(leaf, 0),)

    return Derived(leaf, Kind.COUNTER, expand)


@stat_group
class ListenerStats(StatGroup):
    """`listener.<address or stat_prefix>.`; times in milliseconds."""

    downstream_cx_destroy: Counter
    downstream_cx_overflow: Counter
    downstream_cx_overload_reject: Counter
    downstream_cx_total: Counter
    downstream_cx_transport_socket_connect_timeout: Counter
    downstream_global_cx_overflow: Counter
    downstream_listener_filter_error: Counter
    downstream_listener_filter_remote_close: Counter
    downstream_pre_cx_timeout: Counter
    no_filter_chain_match: Counter
    downstream_cx_active: Gauge
    downstream_pre_cx_active: Gauge
    connections_accepted_per_socket_event: Histogram
    downstream_cx_length_ms: Histogram

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "downstream_cx_active": ("downstream_cx_total",),
        "downstream_pre_cx_active": (
            "downstream_cx_total",
            "downstream_listener_filter_error",
            "downstream_listener_filter_remote_close",
            "downstream_pre_cx_timeout",
            "no_filter_chain_match",
        ),
    }
    DERIVED: ClassVar[tuple[Derived, ...]] = (
        _of_extensions("extension_config_missing"),
        _of_extensions("network_extension_config_missing"),
    )


@stat_group
class WorkerConnectionStats(StatGroup):
    """`listener.<address>.worker_<n>.`, and `listener.admin.main_thread.`."""

    downstream_cx_total: Counter
    downstream_cx_active: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"downstream_cx_active": ("downstream_cx_total",)}


@stat_group
class ListenerManagerStats(StatGroup):
    """`listener_manager.`. There is one worker, and it runs."""

    listener_added: Counter
    listener_create_failure: Counter
    listener_create_success: Counter
    listener_in_place_updated: Counter
    listener_modified: Counter
    listener_removed: Counter
    listener_stopped: Counter
    total_filter_chains_draining: Gauge
    total_listeners_active: Gauge
    total_listeners_draining: Gauge
    total_listeners_warming: Gauge
    workers_pinned: Gauge
    workers_started: Gauge

    INITIAL: ClassVar[Mapping[str, int]] = {"workers_started": 1}
    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"total_listeners_warming": ()}


@stat_group
class TlsInspectorStats(StatGroup):
    """`tls_inspector.`; `bytes_processed` in bytes."""

    alpn_found: Counter
    alpn_not_found: Counter
    client_hello_too_large: Counter
    sni_found: Counter
    sni_not_found: Counter
    tls_found: Counter
    tls_not_found: Counter
    bytes_processed: Histogram


@stat_group
class HttpInspectorStats(StatGroup):
    """`http_inspector.`."""

    http10_found: Counter
    http11_found: Counter
    http2_found: Counter
    http_not_found: Counter
    read_error: Counter


@stat_group
class ProxyProtocolStats(StatGroup):
    """`proxy_proto.`: connections without a header."""

    not_found_allowed: Counter
    not_found_disallowed: Counter


@stat_group
class ProxyProtocolVersionStats(StatGroup):
    """`proxy_proto.versions.v<1|2>.`: headers of one version."""

    disallowed: Counter
    error: Counter
    found: Counter


@stat_group
class ProxyProtocolErrorStats(StatGroup):
    """Without a prefix: Envoy's older counter for the same filter."""

    downstream_cx_proxy_proto_error: Counter
