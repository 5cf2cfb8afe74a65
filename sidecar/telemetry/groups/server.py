"""Statistics of the process: server, managers, runtime, DNS, files, event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sidecar.core.process_memory import process_memory

from ..histogram import Histogram
from ..stats import Counter, Derived, Gauge, Kind, Sample, StatGroup, TextReadout, stat_group

NO_CERTIFICATE = 0xFFFFFFFF
"""What Envoy says of `days_until_first_cert_expiring` while there is no certificate."""


def _of_memory(leaf: str, attribute: str) -> Derived:
    """A gauge of the memory that the process has at the scrape."""

    def expand(group: Any) -> tuple[Sample, ...]:
        return (Sample(leaf, getattr(process_memory(), attribute)),)

    return Derived(leaf, Kind.GAUGE, expand)


@stat_group
class ServerStats(StatGroup):
    """`server.`; memory in bytes, times as named."""

    debug_assertion_failures: Counter
    dropped_stat_flushes: Counter
    dynamic_unknown_fields: Counter
    envoy_bug_failures: Counter
    envoy_notifications: Counter
    static_unknown_fields: Counter
    wip_protos: Counter
    concurrency: Gauge
    days_until_first_cert_expiring: Gauge
    hot_restart_epoch: Gauge
    hot_restart_generation: Gauge
    live: Gauge
    parent_connections: Gauge
    seconds_until_first_ocsp_response_expiring: Gauge
    state: Gauge
    stats_recent_lookups: Gauge
    total_connections: Gauge
    uptime: Gauge
    version: Gauge
    initialization_time_ms: Histogram

    INITIAL: ClassVar[Mapping[str, int]] = {
        "days_until_first_cert_expiring": NO_CERTIFICATE,
        "hot_restart_generation": 1,
    }
    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        (
            "dynamic_unknown_fields",
            "hot_restart_epoch",
            "parent_connections",
            "state",
            "static_unknown_fields",
            "total_connections",
            "wip_protos",
        ),
        (),
    )
    DERIVED: ClassVar[tuple[Derived, ...]] = (
        _of_memory("memory_allocated", "anonymous"),
        _of_memory("memory_heap_size", "data"),
        _of_memory("memory_physical_size", "resident"),
    )


@stat_group
class DispatcherStats(StatGroup):
    """`server.dispatcher.`: the event loop, microseconds. `poll_delay_us` is how late the loop came to a timer;
    `loop_lag_ms`, which Envoy has not, is the longest such delay of the last flush interval, in milliseconds.
    """

    loop_lag_ms: Gauge
    loop_duration_us: Histogram
    poll_delay_us: Histogram


@stat_group
class ClusterManagerStats(StatGroup):
    """`cluster_manager.`."""

    cluster_added: Counter
    cluster_modified: Counter
    cluster_removed: Counter
    cluster_updated: Counter
    cluster_updated_via_merge: Counter
    update_merge_cancelled: Counter
    update_out_of_merge_window: Counter
    active_clusters: Gauge
    warming_clusters: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"warming_clusters": ()}


@stat_group
class RuntimeStats(StatGroup):
    """`runtime.`."""

    deprecated_feature_use: Counter
    load_error: Counter
    load_success: Counter
    override_dir_exists: Counter
    override_dir_not_exists: Counter
    admin_overrides_active: Gauge
    deprecated_feature_seen_since_process_start: Gauge
    num_keys: Gauge
    num_layers: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"num_keys": (), "num_layers": ()}


@stat_group
class FilesystemStats(StatGroup):
    """`filesystem.`: files of access logs; bytes buffered."""

    flushed_by_timer: Counter
    reopen_failed: Counter
    write_buffered: Counter
    write_completed: Counter
    write_failed: Counter
    write_total_buffered: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"write_total_buffered": ("write_buffered",)}


@stat_group
class DnsStats(StatGroup):
    """`dns.cares.`."""

    get_addr_failure: Counter
    not_found: Counter
    reinits: Counter
    resolve_total: Counter
    timeouts: Counter
    pending_resolutions: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"pending_resolutions": ("resolve_total",)}


@stat_group
class SubscriptionStats(StatGroup):
    """An xDS subscription: `cluster_manager.cds.`, `listener_manager.lds.`; `update_duration` in milliseconds."""

    init_fetch_timeout: Counter
    update_attempt: Counter
    update_failure: Counter
    update_rejected: Counter
    update_success: Counter
    update_time: Gauge
    version: Gauge
    version_text: TextReadout
    update_duration: Histogram


@stat_group
class ClusterSubscriptionStats(StatGroup):
    """`cluster_manager.cds.`; times in milliseconds."""

    config_reload: Counter
    init_fetch_timeout: Counter
    update_attempt: Counter
    update_failure: Counter
    update_rejected: Counter
    update_success: Counter
    config_reload_time_ms: Gauge
    update_time: Gauge
    version: Gauge
    version_text: TextReadout
    update_duration: Histogram


@stat_group
class RouteSubscriptionStats(StatGroup):
    """`http.<stat_prefix>.rds.<route_config_name>.`; times in milliseconds."""

    config_reload: Counter
    init_fetch_timeout: Counter
    update_attempt: Counter
    update_empty: Counter
    update_failure: Counter
    update_rejected: Counter
    update_success: Counter
    config_reload_time_ms: Gauge
    update_time: Gauge
    version: Gauge
    version_text: TextReadout
    update_duration: Histogram


@stat_group
class SecretSubscriptionStats(StatGroup):
    """`sds.<name>.`; times in milliseconds."""

    init_fetch_timeout: Counter
    key_rotation_failed: Counter
    update_attempt: Counter
    update_failure: Counter
    update_rejected: Counter
    update_success: Counter
    update_time: Gauge
    version: Gauge
    version_text: TextReadout
    update_duration: Histogram


@stat_group
class ExtensionSubscriptionStats(StatGroup):
    """`extension_config_discovery.http_filter.<name>.`; times in milliseconds."""

    config_conflict: Counter
    config_fail: Counter
    config_reload: Counter
    init_fetch_timeout: Counter
    update_attempt: Counter
    update_failure: Counter
    update_rejected: Counter
    update_success: Counter
    update_time: Gauge
    version: Gauge
    version_text: TextReadout
    update_duration: Histogram


@stat_group
class EndpointSubscriptionStats(StatGroup):
    """`cluster.<name>.` of an EDS cluster: what `ClusterStats` has not of its subscription."""

    init_fetch_timeout: Counter
    update_rejected: Counter
    update_time: Gauge
    version_text: TextReadout
    update_duration: Histogram


@stat_group
class ControlPlaneStats(StatGroup):
    """`control_plane.`: the stream to a management server; `pending_requests` wait for it or for its rate limit."""

    rate_limit_enforced: Counter
    connected_state: Gauge
    pending_requests: Gauge
    identifier: TextReadout

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"connected_state": (), "pending_requests": ()}


@stat_group
class HealthDiscoveryStats(StatGroup):
    """`hds_delegate.`: health checks that a server asks for. `requests` are the server's, `responses` our reports."""

    errors: Counter
    requests: Counter
    responses: Counter
    updates: Counter


@stat_group
class WatchdogStats(StatGroup):
    """`server.main_thread.`, `server.worker_<n>.`: how often the loop was late."""

    watchdog_mega_miss: Counter
    watchdog_miss: Counter
