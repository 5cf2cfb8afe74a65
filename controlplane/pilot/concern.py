"""Whether a change of a resource is anything to the proxies of a scope."""

from __future__ import annotations

from typing import Any

from controlplane.model.conversion import export_to
from controlplane.model.mesh_config import MESH_CONFIG_MAP
from controlplane.model.proxy import ProxyType
from controlplane.model.resource import Resource, ResourceKey
from controlplane.pilot.index import full_name, gateways_of, matches
from controlplane.pilot.mesh_view import MeshView
from controlplane.pilot.security.peer_authentication import PEERS
from controlplane.pilot.view import View


def concerns(view: View, mesh: MeshView, key: ResourceKey) -> bool:
    """Whether the resource, as it is now, says something to the proxies of a scope.

    What it said before its change is for the caller to know. Where it is not clear the answer is yes: then resources are
    compared, and what is the same is not sent.
    """
    resource = mesh.snapshot.get(key)
    if key.kind == PEERS:
        return True  # what it says of the namespace's workloads is a part of what everybody else sends them
    if resource is None:
        return key == MESH_CONFIG_MAP
    if key.kind == "DestinationRule":
        return _rule_concerns(view, mesh, resource)
    if key.kind == "VirtualService":
        return _virtual_service_concerns(view, mesh, resource)
    if key.kind == "Sidecar":
        return view.sidecar is resource
    if key.kind == "Gateway":
        return view.proxy.type is ProxyType.ROUTER and resource in view.gateways
    if key.kind == "EnvoyFilter":
        return resource in view.envoy_filters
    if key.kind == "Telemetry":
        return resource in view.telemetries
    if key.kind == "Secret":
        return key.namespace == view.proxy.namespace
    return True


def means_another(mesh: MeshView, hostname: str) -> bool:
    """Whether a service that comes or goes gives a short name in routes or rules another meaning."""
    short, service, _ = hostname.partition(".svc.")
    mentions = (mesh.virtual_services.mentions, mesh.rules.mentions)
    if service and any(form in hosts for form in (short, f"{short}.svc") for hosts in mentions):
        return True
    return full_name(hostname, mesh.snapshot.domain) in mesh.services.by_hostname


def _exported(resource: Resource, default: Any, namespace: str) -> bool:
    names = export_to(resource.spec.export_to, resource.namespace, tuple(default or ()))
    return "*" in names or namespace in names


def _rule_concerns(view: View, mesh: MeshView, resource: Resource) -> bool:
    if resource.namespace != view.proxy.namespace and not _exported(
        resource, view.mesh.default_destination_rule_export_to, view.proxy.namespace
    ):
        return False
    host = view.resolve(resource.spec.host, resource.namespace)
    if not host.startswith("*"):
        return host in view.services or host in view.destinations
    return any(matches(host, hostname) for hosts in (view.services, view.destinations) for hostname in hosts)


def _virtual_service_concerns(view: View, mesh: MeshView, resource: Resource) -> bool:
    if not resource.spec.hosts:
        return True  # a delegate: it is exported to those who delegate to it, and not to the proxy
    if not _exported(resource, view.mesh.default_virtual_service_export_to, view.proxy.namespace):
        return False
    if view.proxy.type is ProxyType.ROUTER:
        return not gateways_of(resource).isdisjoint(f"{gateway.namespace}/{gateway.name}" for gateway in view.gateways)
    return resource in view.virtual_services("mesh")
