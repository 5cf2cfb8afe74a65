"""/server_info, /memory and /init_dump: the process.

Source: `envoy.admin.v3.ServerInfo`, `Memory` and `UnreadyTargetsDumps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.admin.clusters import locality_json
from sidecar.admin.context import AdminContext, ClustersView
from sidecar.admin.dynamic_dumps import DiscoveredView
from sidecar.admin.json_text import json_chunks
from sidecar.admin.page import JSON, Page
from sidecar.core.hot_restart import HOT_RESTART_VERSION
from sidecar.core.process_memory import process_memory

_DISABLED: Final = "disabled"
"""What Envoy says under `--disable-hot-restart`."""

_DEFAULT_OPTIONS: Final[Mapping[str, Any]] = {
    "base_id": "0",
    "concurrency": 1,
    "config_path": "",
    "config_yaml": "",
    "allow_unknown_static_fields": False,
    "admin_address_path": "",
    "local_address_ip_version": "v4",
    "log_level": "info",
    "component_log_level": "",
    "log_format": "",
    "log_path": "",
    "service_cluster": "",
    "service_node": "",
    "service_zone": "",
    "file_flush_interval": "10s",
    "drain_time": "600s",
    "parent_shutdown_time": "900s",
    "mode": "Serve",
    "disable_hot_restart": True,
    "enable_mutex_tracing": False,
    "restart_epoch": 0,
    "cpuset_threads": False,
    "reject_unknown_dynamic_fields": False,
    "log_format_escaped": False,
    "disabled_extensions": [],
    "ignore_unknown_dynamic_fields": False,
    "use_dynamic_base_id": False,
    "base_id_path": "",
    "drain_strategy": "Gradual",
    "enable_fine_grain_logging": False,
    "socket_path": "@envoy_domain_socket",
    "socket_mode": 0,
    "enable_core_dump": False,
    "stats_tag": [],
    "skip_hot_restart_on_no_parent": False,
    "skip_hot_restart_parent_stats": False,
    "skip_deprecated_logs": False,
    "file_flush_min_size": 0,
    "log_stacktrace_single_entry": False,
}


def server_info_page(context: AdminContext) -> Page:
    """`ServerInfo`, with Envoy's keys in Envoy's order; options that are not Envoy's are left out."""
    uptime = f"{max(0, int(context.wall_clock() - context.started_at))}s"
    given = context.options
    info = {
        "version": context.version,
        "state": context.server_state(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": hot_restart_version(context),
        "command_line_options": {name: given.get(name, default) for name, default in _DEFAULT_OPTIONS.items()},
        "node": _node(context),
        "hot_restart_initializing": False,
    }
    return Page(200, JSON, json_chunks(info))


def hot_restart_version(context: AdminContext) -> str:
    """/hot_restart_version: processes of the same one can take over from each other."""
    return _DISABLED if context.options.get("disable_hot_restart", True) else str(HOT_RESTART_VERSION)


def _node(context: AdminContext) -> dict[str, Any]:
    node = context.node
    shown: dict[str, Any] = {"id": node.id, "cluster": node.cluster}
    if node.metadata:
        shown["metadata"] = node.metadata
    if locality_json(node.locality):
        locality = node.locality
        shown["locality"] = {"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone}
    return {
        **shown,
        "user_agent_name": "mizzen",
        "extensions": [],
        "client_features": [],
        "listening_addresses": [],
        "dynamic_parameters": {},
    }


def memory_page() -> Page:
    """`Memory`, in bytes as strings. There is no page heap and no thread cache here, so those are 0."""
    used = process_memory()
    memory = {
        "allocated": str(used.anonymous),
        "heap_size": str(used.data),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": str(used.resident),
    }
    return Page(200, JSON, json_chunks(memory))


def init_dump_page(clusters: ClustersView, discovered: DiscoveredView | None) -> Page:
    """`UnreadyTargetsDumps`: the clusters that have not found their first hosts, and what listeners wait for; empty when nobody
    waits.
    """
    dumps = []
    targets = [f"Cluster {name}" for name in clusters.warming]
    if targets:
        dumps.append({"name": "ClusterManager", "target_names": targets})
    for name, missing in () if discovered is None else discovered.unready_listeners():
        found = [f"shared target {target}" for target in missing]
        dumps.append({"name": f"init manager Listener-local-init-manager {name}", "target_names": found})
    return Page(200, JSON, json_chunks({"unready_targets_dumps": dumps} if dumps else {}))
