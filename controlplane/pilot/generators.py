"""Which generators make the resources of which type, and from which kinds of resources.

Adding a kind or a type of resource is a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from controlplane.model.mesh_config import MESH_CONFIG_MAP
from controlplane.model.resource import ResourceKey
from controlplane.pilot import proxyless
from controlplane.pilot.clusters import outbound_clusters
from controlplane.pilot.envoy_filter import extension_configs, patched_clusters, patched_listeners, patched_routes
from controlplane.pilot.inbound_clusters import inbound_clusters
from controlplane.pilot.listeners import inbound_listeners, outbound_listeners
from controlplane.pilot.routes import route_configurations
from controlplane.pilot.scope import Generated, Scope, Workload
from controlplane.pilot.secrets import secrets
from controlplane.pilot.security.key_sets import key_clusters
from controlplane.pilot.security.peer_authentication import PEERS

_PREFIX = "type.googleapis.com/envoy."
CLUSTER = f"{_PREFIX}config.cluster.v3.Cluster"
ENDPOINTS = f"{_PREFIX}config.endpoint.v3.ClusterLoadAssignment"
LISTENER = f"{_PREFIX}config.listener.v3.Listener"
ROUTES = f"{_PREFIX}config.route.v3.RouteConfiguration"
EXTENSION_CONFIG = f"{_PREFIX}config.core.v3.TypedExtensionConfig"
SECRET = f"{_PREFIX}extensions.transport_sockets.tls.v3.Secret"
TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, EXTENSION_CONFIG)

SHARED: Mapping[str, Callable[[Scope], Iterable[Generated]]] = {
    CLUSTER: lambda scope: patched_clusters(scope, (*outbound_clusters(scope), *key_clusters(scope, scope.policies))),
    LISTENER: lambda scope: patched_listeners(scope, outbound_listeners(scope)),
    ROUTES: lambda scope: patched_routes(scope, route_configurations(scope)),
    SECRET: secrets,
    EXTENSION_CONFIG: extension_configs,
}
"""What all proxies of a scope get alike. Endpoints are made by name."""

OWN: Mapping[str, Callable[[Workload], Iterable[Generated]]] = {
    CLUSTER: lambda workload: patched_clusters(
        workload.scope, (*inbound_clusters(workload), *key_clusters(workload.scope, workload.policies)), own=True
    ),
    LISTENER: lambda workload: patched_listeners(workload.scope, inbound_listeners(workload), own=True),
}
"""What is a proxy's own."""

PROXYLESS: Mapping[str, tuple[Callable[[Scope, str], Generated | None], Callable[[Scope], Iterable[str]]]] = {
    CLUSTER: (proxyless.cluster, proxyless.cluster_names),
    ENDPOINTS: (proxyless.endpoints, proxyless.cluster_names),
    LISTENER: (proxyless.listener, proxyless.listener_names),
    ROUTES: (proxyless.route_configuration, proxyless.route_names),
}
"""What gRPC clients without a proxy get: what makes the resource of a name, and the names that there are."""

_EVERYTHING = frozenset(TYPES) - {EXTENSION_CONFIG}
_TYPES_OF_KIND: Mapping[str, frozenset[str]] = {
    "Service": _EVERYTHING,
    "ServiceEntry": _EVERYTHING,
    "DestinationRule": _EVERYTHING,
    "Sidecar": _EVERYTHING,
    "Gateway": _EVERYTHING,
    "VirtualService": frozenset({LISTENER, ROUTES}),
    "Secret": frozenset({SECRET}),
    "Telemetry": frozenset({LISTENER}),
    PEERS: frozenset({CLUSTER, ENDPOINTS, LISTENER}),
    "AuthorizationPolicy": frozenset({LISTENER}),
    "RequestAuthentication": frozenset({CLUSTER, LISTENER}),
    "EnvoyFilter": frozenset({CLUSTER, LISTENER, ROUTES, EXTENSION_CONFIG}),
}

OWN_KINDS = frozenset({"WorkloadEntry", "WorkloadGroup", "Pod"})
"""Kinds that say what a proxy's own workload is."""

SERVICE_KINDS = frozenset({"Service", "ServiceEntry"})
"""Kinds that services are made from: which of these are different changes tell by their hostnames."""

SHARED_KINDS = frozenset({"VirtualService", "Gateway", "Secret"})
"""Kinds that say nothing about what is a proxy's own."""


def types_of(key: ResourceKey) -> frozenset[str]:
    """The types that are made from a resource for all proxies that see it; nothing for kinds that say nothing to them."""
    if key.kind == "ConfigMap":
        return _EVERYTHING if key == MESH_CONFIG_MAP else frozenset()
    return _TYPES_OF_KIND.get(key.kind, frozenset())
