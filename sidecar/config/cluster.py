"""Groups of endpoints and how to connect to them: `envoy.config.cluster.v3.Cluster`."""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from sidecar.config import left_out
from sidecar.config.address import SocketAddress, is_ip
from sidecar.config.circuit_breakers import DEFAULT_CIRCUIT_BREAKERS, CircuitBreakers, parse_circuit_breakers
from sidecar.config.common_lb import DEFAULT_COMMON_LB_CONFIG, CommonLbConfig
from sidecar.config.core_types import (
    Metadata,
    TcpKeepalive,
    has_plain_transport_socket,
    parse_metadata,
    parse_tcp_keepalive,
    seconds,
)
from sidecar.config.dns import DEFAULT_DNS, DnsSettings, parse_dns_cluster, parse_dns_settings
from sidecar.config.endpoint import ClusterLoadAssignment, parse_load_assignment
from sidecar.config.fields import Node
from sidecar.config.http2_protocol_options import HTTP2_DEFAULTS, Http2ProtocolOptions
from sidecar.config.lb_policies import LbConfig
from sidecar.config.load_balancing import LoadBalancing, parse_load_balancing
from sidecar.config.outlier_detection import OutlierDetection, parse_outlier_detection
from sidecar.config.protocol_options import (
    HTTP1_DEFAULTS,
    UPSTREAM_DEFAULTS,
    Http1ProtocolOptions,
    HttpProtocolOptions,
)
from sidecar.config.subset import LbSubsetConfig
from sidecar.config.upstream_protocols import (
    NO_UPSTREAM_HTTP_OPTIONS,
    UpstreamHttpProtocolOptions,
    parse_upstream_protocols,
)

if TYPE_CHECKING:
    from sidecar.config.bind import BindConfig
    from sidecar.config.config_source import ConfigSource
    from sidecar.config.dns_cache import DnsCacheConfig
    from sidecar.config.health_check import HealthCheck
    from sidecar.config.match_predicate import MatchPredicate
    from sidecar.config.tls import UpstreamTlsContext
    from sidecar.config.tls_matches import TransportSocketMatch

_DNS_CLUSTER = "envoy.extensions.clusters.dns.v3.DnsCluster"
_DYNAMIC_FORWARD_PROXY = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
_TYPES = ("STATIC", "STRICT_DNS", "LOGICAL_DNS", "ORIGINAL_DST", "EDS")


@dataclass(frozen=True, slots=True)
class EdsClusterConfig:
    """Where the endpoints of an EDS cluster come from, and the name by which they are asked for."""

    eds_config: ConfigSource
    service_name: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster.

    `type` is STATIC, STRICT_DNS, LOGICAL_DNS, ORIGINAL_DST, EDS or DYNAMIC_FORWARD_PROXY. `alt_stat_name` is the name in
    statistics (the cluster's own when not configured). Durations are in seconds. `dns` is only used by the DNS types,
    `dns_cache` by DYNAMIC_FORWARD_PROXY, whose hosts are those that requests name, `cleanup_interval` by
    ORIGINAL_DST. `lb_policy`, `lb_config` and what follows them are those of `LoadBalancing`. `transport_socket` None is
    the plain one, and `transport_socket_matches` go before it. `upstream_protocol` is http1, http2, downstream (what the
    client speaks) or auto (what ALPN agrees on). `upstream_bind_config` None leaves it to the system where connections come from.
    `proxy_protocol` is V1, V2 or empty: the version of the PROXY header that goes before `transport_socket`.
    """

    name: str
    alt_stat_name: str
    type: str
    load_assignment: ClusterLoadAssignment
    connect_timeout: float = 5.0
    per_connection_buffer_limit_bytes: int = 1048576
    lb_policy: str = "ROUND_ROBIN"
    lb_config: LbConfig | None = None
    common_lb_config: CommonLbConfig = DEFAULT_COMMON_LB_CONFIG
    lb_subset_config: LbSubsetConfig | None = None
    circuit_breakers: CircuitBreakers = DEFAULT_CIRCUIT_BREAKERS
    outlier_detection: OutlierDetection | None = None
    common_http_protocol_options: HttpProtocolOptions = UPSTREAM_DEFAULTS
    http_protocol_options: Http1ProtocolOptions = HTTP1_DEFAULTS
    dns: DnsSettings = DEFAULT_DNS
    cleanup_interval: float = 5.0
    tcp_keepalive: TcpKeepalive | None = None
    metadata: Metadata = field(default_factory=dict)
    transport_socket: UpstreamTlsContext | None = None
    upstream_protocol: str = "http1"
    http2_options: Http2ProtocolOptions = HTTP2_DEFAULTS
    upstream_http_options: UpstreamHttpProtocolOptions = NO_UPSTREAM_HTTP_OPTIONS
    transport_socket_matches: tuple[TransportSocketMatch, ...] = ()
    health_check: HealthCheck | None = None
    close_connections_on_host_health_failure: bool = False
    ignore_health_on_host_removal: bool = False
    wait_for_warm_on_init: bool = True
    error_matcher: MatchPredicate | None = None
    eds_cluster_config: EdsClusterConfig | None = None
    upstream_bind_config: BindConfig | None = None
    dns_cache: DnsCacheConfig | None = None
    proxy_protocol: str = ""


def parse_cluster(node: Node) -> Cluster:
    """`Cluster`."""
    name = intern(node.get("name"))
    node.context.declare("cluster", name, node)
    cluster_type, dns, dns_cache, insecure = _parse_type(node)
    assignment = node.child("load_assignment")
    load_assignment = ClusterLoadAssignment(name) if assignment is None else parse_load_assignment(assignment)
    load_balancing = parse_load_balancing(node)
    _check_type(node, cluster_type, load_assignment, load_balancing)
    connection = node.child("upstream_connection_options")
    transport_socket = _parse_transport_socket(node)
    http = parse_upstream_protocols(node, transport_socket, by_requests=dns_cache is not None)
    if dns_cache is not None and not insecure:
        _check_verified(node, http.upstream_http_options)
    outliers = node.child("outlier_detection")
    for filter in left_out.kept(node.children("filters"), left_out.UPSTREAM_FILTERS):
        filter.refuse("is a filter of upstream connections, which Mizzen has not got", do="remove it")
        filter.disregard()
    return Cluster(
        name,
        node.get("alt_stat_name") or name,
        cluster_type,
        load_assignment,
        seconds(node, "connect_timeout", 5.0),
        node.wrapped("per_connection_buffer_limit_bytes", 1048576),
        load_balancing.lb_policy,
        load_balancing.lb_config,
        load_balancing.common_lb_config,
        load_balancing.lb_subset_config,
        parse_circuit_breakers(node),
        None if outliers is None else parse_outlier_detection(outliers),
        http.common_http_protocol_options,
        http.http_protocol_options,
        dns,
        seconds(node, "cleanup_interval", 5.0),
        None if connection is None else parse_tcp_keepalive(connection.child("tcp_keepalive")),
        parse_metadata(node.child("metadata")),
        transport_socket,
        http.upstream_protocol,
        http.http2_options,
        http.upstream_http_options,
        _parse_transport_socket_matches(node),
        _parse_health_check(node, http.upstream_protocol),
        node.get("close_connections_on_host_health_failure"),
        node.get("ignore_health_on_host_removal"),
        node.wrapped("wait_for_warm_on_init", True),
        http.error_matcher,
        _parse_eds(node, name, cluster_type),
        _parse_bind_config(node),
        dns_cache,
        _parse_proxy_protocol(node),
    )


def _parse_bind_config(node: Node) -> BindConfig | None:
    if not node.has("upstream_bind_config"):
        return None
    from sidecar.config.bind import parse_bind_config  # only for those who use it

    bind = node.child("upstream_bind_config")
    return None if bind is None else parse_bind_config(bind)


def _parse_eds(node: Node, name: str, cluster_type: str) -> EdsClusterConfig | None:
    config = node.child("eds_cluster_config")
    if cluster_type != "EDS":
        if config is not None:
            config.settle()
            node.refuse("is for EDS alone", "eds_cluster_config", "remove it, or make the type EDS")
        return None
    source = None if config is None else config.child("eds_config")
    if config is None or source is None:
        node.refuse("is required for EDS", "eds_cluster_config.eds_config", "say where endpoints come from")
        return None
    from sidecar.config.config_source import parse_config_source  # only for those who use it

    return EdsClusterConfig(parse_config_source(source), intern(config.get("service_name")) or name)


def _parse_transport_socket(node: Node) -> UpstreamTlsContext | None:
    if has_plain_transport_socket(node):
        return None
    from sidecar.config.tls import parse_upstream_transport_socket  # only for those who use it

    return parse_upstream_transport_socket(node)


def _parse_proxy_protocol(node: Node) -> str:
    if has_plain_transport_socket(node):
        return ""
    from sidecar.config.tls import parse_upstream_proxy_protocol  # only for those who use it

    return parse_upstream_proxy_protocol(node)


def _parse_transport_socket_matches(node: Node) -> tuple[TransportSocketMatch, ...]:
    if not node.has("transport_socket_matches"):
        return ()
    from sidecar.config.tls_matches import parse_transport_socket_matches  # only for those who use it

    return parse_transport_socket_matches(node)


def _parse_health_check(node: Node, upstream_protocol: str) -> HealthCheck | None:
    if not node.has("health_checks"):
        return None
    from sidecar.config.health_check import parse_health_checks  # only for those who use it

    return parse_health_checks(node, upstream_protocol)


class _Type(NamedTuple):
    """How hosts are found. `insecure`: hosts that requests name need not prove that the names are theirs."""

    name: str
    dns: DnsSettings = DEFAULT_DNS
    dns_cache: DnsCacheConfig | None = None
    insecure: bool = False


def _parse_type(node: Node) -> _Type:
    if node.which("cluster_discovery_type") == "cluster_type":
        custom = node.child("cluster_type")
        extension = None if custom is None else custom.extension(known=(_DNS_CLUSTER, _DYNAMIC_FORWARD_PROXY))
        if extension is None:
            return _Type("STATIC")
        if extension.type_name == _DYNAMIC_FORWARD_PROXY:
            return _parse_dynamic_forward_proxy(extension)
        return _Type(*parse_dns_cluster(extension))
    cluster_type = node.enum("type")
    if cluster_type not in _TYPES:
        node.refuse(f"{cluster_type} is not implemented by Mizzen", "type", f"use {', '.join(_TYPES)}")
    return _Type(cluster_type, parse_dns_settings(node))


def _parse_dynamic_forward_proxy(node: Node) -> _Type:
    from sidecar.config.dns_cache import parse_dns_cache_config  # only for those who use it

    cache = node.child("dns_cache_config")
    insecure = node.get("allow_insecure_cluster_options")
    if cache is None:
        node.refuse("is required: sub-clusters are not implemented by Mizzen", "dns_cache_config", "name a cache")
        return _Type("STATIC")
    config = parse_dns_cache_config(cache)
    return _Type("DYNAMIC_FORWARD_PROXY", config.dns, config, insecure)


def _check_verified(node: Node, options: UpstreamHttpProtocolOptions) -> None:
    """As in Envoy, whether the cluster uses TLS or not."""
    if not (options.auto_sni and options.auto_san_validation):
        node.refuse(
            "must have auto_sni and auto_san_validation, for requests name the hosts",
            "cluster_type.typed_config",
            "set both in upstream_http_protocol_options, or allow_insecure_cluster_options here",
        )


def _check_type(node: Node, cluster_type: str, assignment: ClusterLoadAssignment, balancing: LoadBalancing) -> None:
    provided = balancing.lb_policy == "CLUSTER_PROVIDED"
    if cluster_type in ("ORIGINAL_DST", "EDS", "DYNAMIC_FORWARD_PROXY") and node.has("load_assignment"):
        node.refuse(f"has no meaning for {cluster_type}", "load_assignment", "remove it")
    if cluster_type in ("ORIGINAL_DST", "DYNAMIC_FORWARD_PROXY"):
        if not provided:
            node.refuse(f"must be CLUSTER_PROVIDED for {cluster_type}", "lb_policy", "set it to CLUSTER_PROVIDED")
    elif provided:
        node.refuse(
            "CLUSTER_PROVIDED is for ORIGINAL_DST and dynamic forward proxies alone", "lb_policy", "name another policy"
        )
    common = node.child("common_lb_config")
    hashing = None if common is None else common.child("consistent_hashing_lb_config")
    if hashing is not None and hashing.get("use_hostname_for_hashing") and node.enum("type") != "STRICT_DNS":
        hashing.refuse(
            "is for STRICT_DNS alone", "use_hostname_for_hashing", "remove it, or set it in a load_balancing_policy"
        )
    if cluster_type == "LOGICAL_DNS":
        if len(assignment.endpoints) != 1 or len(assignment.endpoints[0].lb_endpoints) != 1:
            node.refuse("must have one locality with one endpoint for LOGICAL_DNS", "load_assignment", "keep one")
    elif cluster_type == "STATIC":
        for group_position, group in enumerate(assignment.endpoints):
            for position, endpoint in enumerate(group.lb_endpoints):
                address = endpoint.address
                if isinstance(address, SocketAddress) and not is_ip(address.address):
                    node.refuse(
                        f"{address.address!r} is no IP address",
                        f"load_assignment.endpoints[{group_position}].lb_endpoints[{position}]"
                        ".endpoint.address.socket_address.address",
                        "write an IP address, or make the type STRICT_DNS or LOGICAL_DNS",
                    )
