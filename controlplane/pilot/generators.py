"""Which generators make the resources of which type, and from which kinds of resources.

Adding a kind or a type of resource is a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from controlplane.model.mesh_config import MESH_CONFIG_MAP
from controlplane.model.resource import ResourceKey
from controlplane.pilot import proxyless
from controlplane.pilot.clusters import outbound_clusters
from controlplane.pilot.inbound_clusters import inbound_clusters
from controlplane.pilot.listeners import inbound_listeners, outbound_listeners
from controlplane.pilot.routes import route_configurations
from controlplane.pilot.scope import Generated, Scope, Workload
from controlplane.pilot.secrets import secrets

_PREFIX = "type.googleapis.com/envoy."
CLUSTER = f"{_PREFIX}config.cluster.v3.Cluster"
ENDPOINTS = f"{_PREFIX}config.endpoint.v3.ClusterLoadAssignment"
LISTENER = f"{_PREFIX}config.listener.v3.Listener"
ROUTES = f"{_PREFIX}config.route.v3.RouteConfiguration"
SECRET = f"{_PREFIX}extensions.transport_sockets.tls.v3.Secret"
TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET)

SHARED: Mapping[str, Callable[[Scope], Iterable[Generated]]] = {
    CLUSTER: outbound_clusters,
    LISTENER: outbound_listeners,
    ROUTES: route_configurations,
    SECRET: secrets,
}
"""What all proxies of a scope get alike. Endpoints are made by name."""

OWN: Mapping[str, Callable[[Workload], Iterable[Generated]]] = {CLUSTER: inbound_clusters, LISTENER: inbound_listeners}
"""What is a proxy's own."""

PROXYLESS: Mapping[str, tuple[Callable[[Scope, str], Generated | None], Callable[[Scope], Iterable[str]]]] = {
    CLUSTER: (proxyless.cluster, proxyless.cluster_names),
    ENDPOINTS: (proxyless.endpoints, proxyless.cluster_names),
    LISTENER: (proxyless.listener, proxyless.listener_names),
    ROUTES: (proxyless.route_configuration, proxyless.route_names),
}
"""What gRPC clients without a proxy get: what makes the resource of a name, and the names that there are."""

_EVERYTHING = frozenset(TYPES)
_TYPES_OF_KIND: Mapping[str, frozenset[str]] = {
    "Service": _EVERYTHING - {SECRET},
    "ServiceEntry": _EVERYTHING - {SECRET},
    "DestinationRule": _EVERYTHING,
    "Sidecar": _EVERYTHING,
    "Gateway": _EVERYTHING,
    "VirtualService": frozenset({LISTENER, ROUTES}),
    "Secret": frozenset({SECRET}),
}

OWN_KINDS = frozenset({"WorkloadEntry", "WorkloadGroup", "Pod"})
"""Kinds that say what a proxy's own workload is."""


def types_of(key: ResourceKey) -> frozenset[str]:
    """The types that are made from a resource for all proxies that see it; nothing for kinds that say nothing to them."""
    if key.kind == "ConfigMap":
        return _EVERYTHING if key == MESH_CONFIG_MAP else frozenset()
    return _TYPES_OF_KIND.get(key.kind, frozenset())
