"""Statistics of the network filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..stats import Counter, Gauge, StatGroup, stat_group


@stat_group
class TcpProxyStats(StatGroup):
    """`tcp.<stat_prefix>.`."""

    downstream_cx_drain_close: Counter
    downstream_cx_no_route: Counter
    downstream_cx_overload_close: Counter
    downstream_cx_rx_bytes_total: Counter
    downstream_cx_total: Counter
    downstream_cx_tx_bytes_total: Counter
    downstream_flow_control_paused_reading_total: Counter
    downstream_flow_control_resumed_reading_total: Counter
    early_data_received_count_total: Counter
    idle_timeout: Counter
    max_downstream_connection_duration: Counter
    route_delayed_total: Counter
    upstream_flush_total: Counter
    downstream_cx_rx_bytes_buffered: Gauge
    downstream_cx_tx_bytes_buffered: Gauge
    upstream_flush_active: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "downstream_cx_rx_bytes_buffered": ("downstream_cx_rx_bytes_total",),
        "upstream_flush_active": ("upstream_flush_total",),
    }


@stat_group
class NetworkRbacStats(StatGroup):
    """`<stat_prefix>.rbac.`."""

    allowed: Counter
    denied: Counter


@stat_group
class NetworkRbacShadowStats(StatGroup):
    """`<stat_prefix>.rbac.[<shadow_rules_stat_prefix>.]`."""

    shadow_allowed: Counter
    shadow_denied: Counter


@stat_group
class NetworkLocalRateLimitStats(StatGroup):
    """`local_rate_limit.<stat_prefix>.`."""

    rate_limited: Counter


@stat_group
class NetworkRateLimitStats(StatGroup):
    """`ratelimit.<stat_prefix>.`."""

    cx_closed: Counter
    error: Counter
    failure_mode_allowed: Counter
    ok: Counter
    over_limit: Counter
    total: Counter
    active: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"active": ("total",)}


@stat_group
class NetworkExtAuthzStats(StatGroup):
    """`ext_authz.<stat_prefix>.`."""

    cx_closed: Counter
    denied: Counter
    disabled: Counter
    error: Counter
    failure_mode_allowed: Counter
    ok: Counter
    total: Counter
    active: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"active": ("total",)}


@stat_group
class ConnectionLimitStats(StatGroup):
    """`connection_limit.<stat_prefix>.`."""

    limited_connections: Counter
    active_connections: Gauge
