"""What the proxy starts from: `envoy.config.bootstrap.v3.Bootstrap`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar.config import left_out
from sidecar.config.access_log import AccessLog, FileAccessLog, parse_access_logs
from sidecar.config.address import Address, parse_ip_address
from sidecar.config.cluster import Cluster, parse_cluster
from sidecar.config.core_types import (
    NO_LOCALITY,
    Locality,
    SocketOption,
    parse_locality,
    parse_socket_options,
    seconds,
)
from sidecar.config.fields import Node
from sidecar.config.listener import Listener, parse_listener
from sidecar.config.matcher import StringMatcher, parse_string_matcher
from sidecar.config.runtime import Runtime
from sidecar.config.stats import DEFAULT_STATS_CONFIG, StatsConfig, parse_stats_config

if TYPE_CHECKING:
    from sidecar.config.config_source import ApiConfigSource, DynamicResources
    from sidecar.config.overload_manager import OverloadManager
    from sidecar.config.tls_secrets import Secret

_Resource = TypeVar("_Resource")

_RUNTIME_KEYS = re.compile(
    r"overload\.global_downstream_max_connections|envoy\.resource_limits\.listener\..+\.connection_limit"
    r"|re2\.max_program_size\.error_level"
)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """`core.v3.Node`: who this proxy is."""

    id: str = ""
    cluster: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    locality: Locality = NO_LOCALITY


@dataclass(frozen=True, slots=True)
class Admin:
    """The administration interface; without an address there is none. No `allow_paths` allows all paths."""

    address: Address | None = None
    access_log: tuple[AccessLog, ...] = ()
    socket_options: tuple[SocketOption, ...] = ()
    allow_paths: tuple[StringMatcher, ...] = ()


@dataclass(frozen=True, slots=True)
class StaticResources:
    """The listeners, clusters and secrets that stand in the file itself, in its order."""

    listeners: tuple[Listener, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterManager:
    """What holds for all clusters: the file of the events of outlier detection, empty for none; the cluster that the
    proxy itself belongs to, empty if it is not said.
    """

    outlier_event_log_path: str = ""
    local_cluster_name: str = ""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The whole of it.

    `layered_runtime` holds the runtime's keys in dotted form, each with the value that wins. Those that count are
    `overload.global_downstream_max_connections`, `envoy.resource_limits.listener.NAME.connection_limit`, and those that
    have done their work when the rest is built: of fields with a `runtime_key`, and of load balancing (`upstream.*`).
    `stats_flush_interval` is in seconds.
    """

    node: NodeIdentity = NodeIdentity()
    admin: Admin | None = None
    static_resources: StaticResources = StaticResources()
    stats_config: StatsConfig = DEFAULT_STATS_CONFIG
    stats_flush_interval: float = 5.0
    layered_runtime: Mapping[str, Any] = field(default_factory=dict)
    overload_manager: OverloadManager | None = None
    cluster_manager: ClusterManager = ClusterManager()
    dynamic_resources: DynamicResources | None = None
    hds_config: ApiConfigSource | None = None


def parse_bootstrap(node: Node) -> Bootstrap:
    """`Bootstrap`. What is wrong is recorded in the node's context, for `Context.finish` to raise."""
    layers, identity, admin = node.child("layered_runtime"), node.child("node"), node.child("admin")
    static, stats = node.child("static_resources"), node.child("stats_config")
    overload, dynamic = node.child("overload_manager"), node.child("dynamic_resources")
    node.context.has_ads = False
    runtime = node.context.runtime = Runtime({} if layers is None else _parse_runtime(layers))
    cluster_manager = _parse_cluster_manager(node.child("cluster_manager"))
    node.context.local_cluster_name = cluster_manager.local_cluster_name
    dynamic_resources = None if dynamic is None else _parse_dynamic_resources(dynamic)
    hds = node.child("hds_config")
    if dynamic is not None and dynamic.message.ListFields():
        for name in ("id", "cluster"):
            if identity is None or not identity.has(name):
                node.refuse(
                    "is required by management servers",
                    f"node.{name}",
                    f"set it, or pass --service-{'node' if name == 'id' else name}",
                )
    node.ignore("application_log_config", "the sidecar's own log is set on the command line: --log-format")
    node.ignore("deferred_stat_options", "statistics are made with what they are about")
    for extension in left_out.kept(node.children("bootstrap_extensions"), left_out.BOOTSTRAP_EXTENSIONS):
        extension.extension(known=())
    node.context.discovers_clusters = dynamic_resources is not None and dynamic_resources.cds_config is not None
    built = Bootstrap(
        NodeIdentity() if identity is None else _parse_identity(identity),
        None if admin is None else _parse_admin(admin),
        StaticResources() if static is None else _parse_static_resources(static),
        DEFAULT_STATS_CONFIG if stats is None else parse_stats_config(stats),
        seconds(node, "stats_flush_interval", 5.0),
        runtime.values,
        None if overload is None else _parse_overload_manager(overload),
        cluster_manager,
        dynamic_resources,
        None if hds is None else _parse_hds_config(hds),
    )
    for key in sorted(runtime.values.keys() - runtime.used):
        if not _RUNTIME_KEYS.fullmatch(key):
            node.context.warn("layered_runtime", f"the runtime key {key!r} has no effect in Mizzen")
    return built


def _parse_identity(node: Node) -> NodeIdentity:
    return NodeIdentity(
        node.get("id"), node.get("cluster"), node.struct("metadata") or {}, parse_locality(node.child("locality"))
    )


def _parse_admin(node: Node) -> Admin:
    address = node.child("address")
    access_log = parse_access_logs(node.children("access_log"))
    path = node.get("access_log_path")
    if path:
        access_log = (*access_log, AccessLog(FileAccessLog(path)))
    node.ignore("profile_path", "profiles are not written")
    node.ignore("ignore_global_conn_limit", "no limit holds for the administration interface")
    return Admin(
        None if address is None else parse_ip_address(address, "the administration interface's address"),
        access_log,
        parse_socket_options(node.children("socket_options")),
        tuple(map(parse_string_matcher, node.children("allow_paths"))),
    )


def _parse_static_resources(node: Node) -> StaticResources:
    secrets = _parse_secrets(node.children("secrets"))
    return StaticResources(
        _parse_each(node.children("listeners"), parse_listener),
        _parse_each(node.children("clusters"), parse_cluster),
        secrets,
    )


def _parse_overload_manager(node: Node) -> OverloadManager:
    from sidecar.config.overload_parsing import parse_overload_manager  # only for those who configure it

    return parse_overload_manager(node)


def _parse_dynamic_resources(node: Node) -> DynamicResources:
    from sidecar.config.config_source import parse_dynamic_resources  # only for those who configure it

    return parse_dynamic_resources(node)


def _parse_hds_config(node: Node) -> ApiConfigSource:
    from sidecar.config.config_source import parse_hds_config  # only for those who configure it

    return parse_hds_config(node)


def _parse_secrets(nodes: list[Node]) -> tuple[Secret, ...]:
    if not nodes:
        return ()
    from sidecar.config.tls_secrets import parse_static_secret  # only for those who use it

    return _parse_each(nodes, parse_static_secret)


def _parse_cluster_manager(node: Node | None) -> ClusterManager:
    if node is None:
        return ClusterManager()
    node.ignore("enable_deferred_cluster_creation", "clusters are made when they come")
    outliers, local_cluster_name = node.child("outlier_detection"), node.get("local_cluster_name")
    if local_cluster_name:
        node.context.reference("cluster", local_cluster_name, node, "local_cluster_name")
    return ClusterManager("" if outliers is None else outliers.get("event_log_path"), local_cluster_name)


def _parse_each(nodes: list[Node], parse: Callable[[Node], _Resource]) -> tuple[_Resource, ...]:
    resources = []
    for node in nodes:
        resources.append(parse(node))
        node.settle()  # of a thousand clusters, the nodes of one are alive at a time
    return tuple(resources)


def _parse_runtime(node: Node) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    names: set[str] = set()
    for layer in node.children("layers"):
        name = layer.get("name")
        if name in names:
            layer.refuse(f"another layer is called {name!r} too", "name", "give each its own name")
        names.add(name)
        if layer.which("layer_specifier") == "static_layer":
            _flatten("", layer.struct("static_layer") or {}, flat)
        else:
            layer.ignore("admin_layer", "the runtime cannot be changed over the administration interface")
    return flat


def _flatten(prefix: str, struct: dict[str, Any], flat: dict[str, Any]) -> None:
    for key, value in struct.items():
        # A FractionalPercent is a value of its own.
        if isinstance(value, dict) and not value.keys() & {"numerator", "denominator"}:
            _flatten(f"{prefix}{key}.", value, flat)
        else:
            flat[prefix + key] = value
