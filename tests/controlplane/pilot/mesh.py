"""A mesh from YAML documents, and its proxies, for tests of the translation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from controlplane.model.changes import Changes
from controlplane.model.parsing import parse
from controlplane.model.proxy import NOWHERE, Locality, Proxy, ProxyType
from controlplane.model.resource import Resource, ResourceKey
from controlplane.pilot.generators import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from controlplane.pilot.translator import Pilot

MESSAGES: Mapping[str, Any] = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    ROUTES: route_pb2.RouteConfiguration,
}
_GROUPS = {
    "Service": "v1",
    "Endpoints": "v1",
    "Pod": "v1",
    "ConfigMap": "v1",
    "Secret": "v1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "PeerAuthentication": "security.istio.io/v1",
    "Telemetry": "telemetry.istio.io/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "AuthorizationPolicy": "security.istio.io/v1",
    "RequestAuthentication": "security.istio.io/v1",
}


def resources(text: str) -> list[Resource]:
    """Resources of YAML documents; `apiVersion` may be left out, and `metadata` be a flow mapping or `NAMESPACE/NAME`."""
    found = []
    for document in yaml.safe_load_all(text):
        document.setdefault("apiVersion", _GROUPS.get(document["kind"], "networking.istio.io/v1"))
        if isinstance(document["metadata"], str):
            namespace, _, name = document["metadata"].rpartition("/")
            document["metadata"] = {"name": name, "namespace": namespace or "default"}
        found.append(parse(document))
    return found


def change(pilot: Pilot, text: str = "", gone: Iterable[ResourceKey] = ()) -> Changes:
    """Apply documents, and take resources away."""
    changed: dict[ResourceKey, Resource | None] = (
        {resource.key: resource for resource in resources(text)} if text else {}
    )
    changed.update(dict.fromkeys(gone))
    return pilot.apply(changed)


def mesh(text: str) -> Pilot:
    """A mesh of these documents."""
    pilot = Pilot()
    change(pilot, text)
    return pilot


def proxy(
    name: str = "client-1",
    namespace: str = "default",
    *,
    type: ProxyType = ProxyType.SIDECAR,
    labels: Mapping[str, str] | None = None,
    address: str = "127.0.1.1",
    locality: Locality = NOWHERE,
    **metadata: Any,
) -> Proxy:
    """A proxy; its metadata by keywords."""
    return Proxy(
        id=f"{type}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local",
        type=type,
        namespace=namespace,
        name=name,
        dns_domain=f"{namespace}.svc.cluster.local",
        addresses=(address,),
        labels=labels or {},
        locality=locality,
        metadata=metadata,
    )


def decoded(pilot: Pilot, node: Proxy, type_url: str) -> dict[str, Any]:
    """All resources of a type for a proxy, as messages by their names."""
    return {name: MESSAGES[type_url].FromString(one.value) for name, one in pilot.resources(node, type_url).items()}


def clusters(pilot: Pilot, node: Proxy) -> dict[str, Any]:
    return decoded(pilot, node, CLUSTER)


def assignment(pilot: Pilot, node: Proxy, name: str) -> Any:
    """The ClusterLoadAssignment of a cluster."""
    return MESSAGES[ENDPOINTS].FromString(pilot.resources(node, ENDPOINTS, [name])[name].value)


def addresses(message: Any) -> list[str]:
    """`ADDRESS:PORT` of all endpoints of a load assignment, in order."""
    return [
        f"{one.endpoint.address.socket_address.address}:{one.endpoint.address.socket_address.port_value}"
        for locality in message.endpoints
        for one in locality.lb_endpoints
    ]
