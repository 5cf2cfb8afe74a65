"""One proxy with what is its own: `Workload` of scope.py, over a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.model.conversion import endpoint_ports, labelled_locality, locality
from controlplane.model.proxy import NOWHERE, Locality, Proxy, ProxyType
from controlplane.model.registration import ENDPOINTS_METADATA, entry_of, group_of, served_ports
from controlplane.model.registry import selector_of, selects, workload_labels
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Endpoint, Service
from controlplane.model.snapshot import Snapshot
from controlplane.pilot.mesh_view import MeshView
from controlplane.pilot.scope import Scope, Target
from controlplane.pilot.security.policies import Policies


class ProxyWorkload:
    """`Workload` over one snapshot."""

    def __init__(self, proxy: Proxy, scope: Scope, targets: Sequence[Target], policies: Policies) -> None:
        self.proxy = proxy
        self.scope = scope
        self.targets = targets
        self.policies = policies

    @property
    def address(self) -> str:
        return self.proxy.addresses[0] if self.proxy.addresses else ""

    def application(self, number: int) -> str:
        told = self.proxy.metadata.get(ENDPOINTS_METADATA)
        if isinstance(told, Mapping) and str(number) in told:
            return str(told[str(number)])
        return f"127.0.0.1:{number}"


def targets(proxy: Proxy, mesh: MeshView) -> tuple[Target, ...]:
    """The ports of services that a proxy's workload serves.

    A workload is behind a service whose selector its labels match, or that lists its address. Two services of one
    hostname are both served. Ports are those of its WorkloadEntry (or of the WorkloadGroup that it registers with), by
    their names; else the service's targets.
    """
    if proxy.type is not ProxyType.SIDECAR:
        return ()
    snapshot = mesh.snapshot
    named, of_pod = own_ports(proxy, snapshot)
    found: list[Target] = []
    for service in mesh.services.by_namespace.get(proxy.namespace, ()):
        if service.part:
            continue  # all of it is there, too
        ports = _served(service, proxy, named, snapshot, of_pod=of_pod)
        found += [Target(service, port, ports[port.number]) for port in service.ports if port.number in ports]
    return tuple(sorted(found, key=lambda target: target.number))


def _served(
    service: Service, proxy: Proxy, named: Mapping[str, int], snapshot: Snapshot, *, of_pod: bool
) -> Mapping[int, int]:
    for origin in service.origins:
        resource = snapshot.get(origin)
        selector = selector_of(resource) if resource is not None else {}
        if selector and selects(selector, proxy.labels):
            return endpoint_ports(service, named, of_pod=of_pod)
    found: dict[int, int] = {}
    if not service.selector:
        for endpoint in snapshot.endpoints.get(service.key, ()):
            if endpoint.address in proxy.addresses and _is(endpoint, proxy):
                found = {**endpoint.ports, **found}
    return found


def _is(endpoint: Endpoint, proxy: Proxy) -> bool:
    """Whether a listed endpoint of the proxy's address is its workload: workloads of one machine share loopback, so that
    there the node has to say that it serves the port. A Pod is it by its name.
    """
    if endpoint.workload is not None and endpoint.workload.kind == "Pod":
        return endpoint.workload.name == proxy.name
    if not endpoint.address.startswith("127."):
        return True
    told = proxy.metadata.get(ENDPOINTS_METADATA)
    return isinstance(told, Mapping) and any(str(number) in told for number in endpoint.ports.values())


def locality_of(proxy: Proxy, snapshot: Snapshot) -> Locality:
    """Where a proxy runs: what its node says, else its labels, else what its WorkloadEntry, its WorkloadGroup or its Pod says."""
    if proxy.locality != NOWHERE:
        return proxy.locality
    told = labelled_locality(proxy.labels)
    if told != NOWHERE:
        return told
    group = snapshot.get(ResourceKey("WorkloadGroup", proxy.namespace, group_of(proxy)))
    for spec in (group.spec.template if group is not None else None, _spec(_own_entry(proxy, snapshot))):
        if spec is not None and spec.locality:
            return locality(spec.locality)
    pod = snapshot.get(ResourceKey("Pod", proxy.namespace, proxy.name))
    return labelled_locality(pod.metadata.labels) if pod is not None else NOWHERE


def _spec(resource: Resource | None) -> Any:
    return resource.spec if resource is not None else None


def own_ports(proxy: Proxy, snapshot: Snapshot) -> tuple[Mapping[str, int], bool]:
    """The ports of a proxy's workload by their names, and whether these are a Pod's (where they name targets alone)."""
    group = group_of(proxy)
    if group:
        resource = snapshot.get(ResourceKey("WorkloadGroup", proxy.namespace, group))
        if resource is not None:
            return dict(served_ports(resource.spec.template.ports or {}, proxy)), False
    pod = snapshot.get(ResourceKey("Pod", proxy.namespace, proxy.name))
    if pod is not None:
        ports = [port for container in pod.spec.containers for port in container.ports if port.name]
        return {port.name: port.container_port for port in ports}, True
    entry = _own_entry(proxy, snapshot)
    return dict(entry.spec.ports or {}) if entry is not None else {}, False


def _own_entry(proxy: Proxy, snapshot: Snapshot) -> Resource | None:
    """The WorkloadEntry that stands for a proxy: the one it has registered, else of its name, else of its address and labels."""
    named = snapshot.get(entry_of(proxy)) or snapshot.get(ResourceKey("WorkloadEntry", proxy.namespace, proxy.name))
    if named is not None:
        return named
    for resource in snapshot.of_kind("WorkloadEntry", proxy.namespace):
        if resource.spec.address in proxy.addresses and selects(workload_labels(resource), proxy.labels):
            return resource
    return None


def addresses(resource: Resource) -> Iterator[str]:
    """The addresses of workloads that a WorkloadEntry, a Pod, Endpoints or an EndpointSlice tells."""
    kind, document = resource.key.kind, resource.document
    if kind == "WorkloadEntry":
        yield resource.spec.address or ""
    elif kind == "Pod":
        yield (document.get("status") or {}).get("podIP") or ""
    elif kind == "Endpoints":
        for subset in document.get("subsets") or ():
            for address in (*(subset.get("addresses") or ()), *(subset.get("notReadyAddresses") or ())):
                yield address.get("ip", "")
    else:
        for endpoint in document.get("endpoints") or ():
            yield from endpoint.get("addresses") or ()
