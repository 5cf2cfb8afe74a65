"""Hosts that requests name, where nothing is captured: wildcards of ServiceEntries that nobody resolves here, and hosts that
are not in the mesh, if the outbound policy lets them.

A connection to the forward proxy has no other address than the proxy's, so the name in each request is looked up, by Envoy's
dynamic forward proxy: clusters, and a filter that only the routes to them switch on.
"""

from __future__ import annotations

from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as forward_proxy_pb2
from envoy.extensions.common.dynamic_forward_proxy.v3 import dns_cache_pb2
from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2

from controlplane.model.proxy import ProxyType
from controlplane.model.service import Resolution, Service
from controlplane.pilot.connection_pool import HTTP_OPTIONS, PLAIN_HTTP, UNLIMITED
from controlplane.pilot.endpoints import is_address
from controlplane.pilot.scope import Scope

ALLOW_ANY = "ALLOW_ANY"
FILTER = "envoy.filters.http.dynamic_forward_proxy"
_CLUSTER = "envoy.clusters.dynamic_forward_proxy"
_CACHE = "outbound"
_MOST_NAMES = 16384  # of all hosts that requests name: each is forgotten five minutes after its last request
_REFRESH_SECONDS = 10  # of names that do not exist; what does has its time to live
_NOT_FOUND = "DF"  # the response flag of what could not be looked up
_NOT_FOUND_SAID = (
    "%LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%): no service of the mesh that this proxy may reach has this name, and it "
    "could not be looked up\n"
)
_MOST_AT_A_TIME = 1024
"""Requests, unless a DestinationRule says otherwise: a name, or an address, may lead back to this proxy."""


def named_by_requests(service: Service, scope: Scope) -> bool:
    """Whether requests alone say which host is meant: a wildcard without addresses, and nothing is captured."""
    proxy = scope.proxy
    return (
        service.resolution is Resolution.NONE
        and service.wildcard
        and not any(map(is_address, service.addresses))
        and proxy.type is ProxyType.SIDECAR
        and not proxy.intercepts
    )


def strangers_pass(scope: Scope) -> bool:
    """Whether hosts that are not in the mesh may be reached from a sidecar, by itself and not through an egress proxy."""
    policy = None if scope.sidecar is None else scope.sidecar.spec.outbound_traffic_policy
    if policy is not None and policy.egress_proxy is not None:
        return False
    return scope.proxy.type is ProxyType.SIDECAR and scope.outbound_policy == ALLOW_ANY


def looks_names_up(scope: Scope) -> bool:
    """Whether the forward proxy of a scope needs the filter."""
    if strangers_pass(scope):
        return True
    key = ("named by requests", scope.steady)
    return scope.memo.get(key, lambda: any(named_by_requests(each, scope) for each in scope.services.values()))


def find_by_requests(cluster: Any, *, verified: bool) -> None:
    """Make the hosts of a cluster those that its requests name. ``verified``: their certificates are for these names."""
    made = forward_proxy_pb2.ClusterConfig(allow_insecure_cluster_options=not verified)
    made.dns_cache_config.CopyFrom(_cache())
    cluster.cluster_type.name = _CLUSTER
    cluster.cluster_type.typed_config.Pack(made, deterministic=True)
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    if not cluster.typed_extension_protocol_options:  # without them such a cluster's server names are those of requests
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(PLAIN_HTTP)
    end_circles(cluster)


def end_circles(cluster: Any) -> None:
    """Bound what is under way to a cluster at a time, unless that is bounded: requests may come to this proxy again, and so on.

    Requests, not connections: for one of these the last request of a circle would wait for ever in Envoy.
    """
    for thresholds in cluster.circuit_breakers.thresholds:
        if thresholds.max_requests.value == UNLIMITED:
            thresholds.max_requests.value = _MOST_AT_A_TIME


def add_filter(manager: Any) -> None:
    """Put the filter in front of the router, switched off; whose name is not found is told what that may mean."""
    config = dynamic_forward_proxy_pb2.FilterConfig()
    config.dns_cache_config.CopyFrom(_cache())
    router = manager.http_filters.pop()
    manager.http_filters.add(name=FILTER, disabled=True).typed_config.Pack(config, deterministic=True)
    manager.http_filters.append(router)
    mapper = manager.local_reply_config.mappers.add()
    mapper.filter.CopyFrom(
        accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=[_NOT_FOUND]))
    )
    mapper.body_format_override.text_format_source.inline_string = _NOT_FOUND_SAID


def switch_on(host: components.VirtualHost | components.Route) -> None:
    """Have names looked up for a route, or all those of a virtual host."""
    config = dynamic_forward_proxy_pb2.PerRouteConfig()
    host.typed_per_filter_config[FILTER].Pack(config, deterministic=True)


def _cache() -> dns_cache_pb2.DnsCacheConfig:
    """The one cache of a proxy: its settings never change, for those who share it must agree."""
    cache = dns_cache_pb2.DnsCacheConfig(name=_CACHE, dns_lookup_family=cluster_pb2.Cluster.V4_PREFERRED)
    cache.max_hosts.value = _MOST_NAMES
    cache.dns_refresh_rate.FromSeconds(_REFRESH_SECONDS)
    return cache
