"""The filters of a filter chain: `envoy.config.listener.v3.Filter` and the extensions that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from sidecar.config import left_out, network_ext_authz, network_rate_limit
from sidecar.config.access_log import AccessLog, parse_access_logs
from sidecar.config.core_types import TokenBucket, parse_data_source, parse_token_bucket, seconds
from sidecar.config.fields import Node
from sidecar.config.http_connection_manager import HttpConnectionManager, parse_http_connection_manager
from sidecar.config.route_action import parse_lb_metadata

if TYPE_CHECKING:
    from sidecar.config.rbac import Rbac

_SHORTEST_FILL_INTERVAL = 0.05


@dataclass(frozen=True, slots=True)
class ClusterWeight:
    """One choice of a TCP proxy, with its share of the sum of all weights."""

    name: str
    weight: int
    metadata_match: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TcpProxy:
    """Relay bytes to a cluster: `cluster`, unless it is empty; then one of `weighted_clusters` by their weights.

    `metadata_match` is what the `envoy.lb` metadata of a host must hold (a choice's own holds the proxy's too).
    `idle_timeout` is in seconds without a byte either way, `max_downstream_connection_duration` in seconds, 0 for none.
    """

    stat_prefix: str
    cluster: str = ""
    weighted_clusters: tuple[ClusterWeight, ...] = ()
    metadata_match: Mapping[str, Any] = field(default_factory=dict)
    idle_timeout: float = 3600.0
    max_connect_attempts: int = 1
    access_log: tuple[AccessLog, ...] = ()
    max_downstream_connection_duration: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkRbac:
    """Close connections that `rules` do not allow. `shadow_rules` only count and set metadata.

    `delay_deny` is in seconds.
    """

    stat_prefix: str
    rules: Rbac | None = None
    shadow_rules: Rbac | None = None
    shadow_rules_stat_prefix: str = ""
    delay_deny: float = 0.0


@dataclass(frozen=True, slots=True)
class LocalRateLimit:
    """Close connections for which the bucket has no token. Those with the same `share_key` and bucket have one together."""

    stat_prefix: str
    token_bucket: TokenBucket
    runtime_enabled: bool = True
    share_key: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """Close connections above `max_connections`, after `delay` seconds."""

    stat_prefix: str
    max_connections: int
    delay: float = 0.0
    runtime_enabled: bool = True


@dataclass(frozen=True, slots=True)
class SniCluster:
    """Make the TLS server name the cluster of the TCP proxy behind."""


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """Send these bytes and close."""

    response: bytes


NetworkFilterConfig: TypeAlias = (
    HttpConnectionManager
    | TcpProxy
    | NetworkRbac
    | LocalRateLimit
    | network_rate_limit.NetworkRateLimit
    | network_ext_authz.NetworkExtAuthz
    | ConnectionLimit
    | SniCluster
    | DirectResponse
)

TERMINAL = (HttpConnectionManager, TcpProxy, DirectResponse)
"""The filters that end a chain."""


@dataclass(frozen=True, slots=True)
class NetworkFilter:
    """`listener.v3.Filter`: one filter of a chain."""

    name: str
    typed_config: NetworkFilterConfig


def parse_network_filters(nodes: Iterable[Node]) -> tuple[NetworkFilter, ...]:
    """The filters of one chain; the last must be terminal, and no other may be. Refused ones are left out."""
    nodes = left_out.kept(nodes, left_out.NETWORK_FILTERS)
    filters = []
    for position, node in enumerate(nodes):
        extension = node.extension(known=_parsers)
        if extension is None:
            continue
        config = _parsers[extension.type_name](extension)
        last = position == len(nodes) - 1
        if isinstance(config, TERMINAL) and not last:
            node.refuse("is a terminal filter, and others follow it", do="put it last in its filter chain")
        elif last and not isinstance(config, TERMINAL):
            node.refuse(
                "is the last of its filter chain, and not a terminal filter",
                do="end the chain with http_connection_manager, tcp_proxy or direct_response",
            )
        filters.append(NetworkFilter(node.get("name"), config))
    return tuple(filters)


def parse_tcp_proxy(node: Node) -> TcpProxy:
    """`tcp_proxy.v3.TcpProxy`."""
    cluster = ""
    weighted_clusters: tuple[ClusterWeight, ...] = ()
    metadata_match = parse_lb_metadata(node, "metadata_match")
    match node.which("cluster_specifier"):
        case "cluster":
            cluster = node.get("cluster")
            node.context.reference("cluster", cluster, node, "cluster", may_come_later=True)
        case "weighted_clusters":
            weighted = node.child("weighted_clusters")
            choices = () if weighted is None else weighted.children("clusters")
            weighted_clusters = tuple(_cluster_weight(choice, metadata_match) for choice in choices)
    return TcpProxy(
        node.get("stat_prefix"),
        cluster,
        weighted_clusters,
        metadata_match,
        seconds(node, "idle_timeout", 3600.0),
        node.wrapped("max_connect_attempts", 1),
        parse_access_logs(node.children("access_log")),
        seconds(node, "max_downstream_connection_duration", 0.0),
    )


def _cluster_weight(node: Node, inherited: Mapping[str, Any]) -> ClusterWeight:
    name = node.get("name")
    node.context.reference("cluster", name, node, "name", may_come_later=True)
    return ClusterWeight(name, node.get("weight"), {**inherited, **parse_lb_metadata(node, "metadata_match")})


def _parse_rbac_filter(node: Node) -> NetworkRbac:
    node.ignore("enforcement_type", "connections are decided on once, when they are accepted")
    rules, shadow_rules = node.child("rules"), node.child("shadow_rules")
    from sidecar.config.rbac import parse_rbac

    return NetworkRbac(
        node.get("stat_prefix"),
        None if rules is None else parse_rbac(rules),
        None if shadow_rules is None else parse_rbac(shadow_rules),
        node.get("shadow_rules_stat_prefix"),
        seconds(node, "delay_deny", 0.0),
    )


def _parse_local_rate_limit(node: Node) -> LocalRateLimit:
    bucket_node = node.child("token_bucket")
    bucket = TokenBucket(1, 1, 1.0) if bucket_node is None else parse_token_bucket(bucket_node)
    if bucket_node is not None and bucket.fill_interval < _SHORTEST_FILL_INTERVAL:
        bucket_node.refuse("must be at least 0.05s", "fill_interval", "fill more tokens less often")
    enabled = node.runtime_value("runtime_enabled", True)
    return LocalRateLimit(node.get("stat_prefix"), bucket, enabled, node.get("share_key"))


def _parse_connection_limit(node: Node) -> ConnectionLimit:
    return ConnectionLimit(
        node.get("stat_prefix"),
        node.wrapped("max_connections", 0),
        seconds(node, "delay", 0.0),
        node.runtime_value("runtime_enabled", True),
    )


def _parse_direct_response(node: Node) -> DirectResponse:
    response = node.child("response")
    return DirectResponse(b"" if response is None else parse_data_source(response))


_NETWORK = "envoy.extensions.filters.network"

_parsers: dict[str, Callable[[Node], Any]] = {
    f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager": parse_http_connection_manager,
    f"{_NETWORK}.tcp_proxy.v3.TcpProxy": parse_tcp_proxy,
    f"{_NETWORK}.rbac.v3.RBAC": _parse_rbac_filter,
    f"{_NETWORK}.local_ratelimit.v3.LocalRateLimit": _parse_local_rate_limit,
    network_rate_limit.TYPE: network_rate_limit.parse_network_rate_limit,
    network_ext_authz.TYPE: network_ext_authz.parse_network_ext_authz,
    f"{_NETWORK}.connection_limit.v3.ConnectionLimit": _parse_connection_limit,
    f"{_NETWORK}.sni_cluster.v3.SniCluster": lambda _: SniCluster(),
    f"{_NETWORK}.direct_response.v3.Config": _parse_direct_response,
}
