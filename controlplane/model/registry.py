"""Keeps the snapshot of the mesh as resources change: works out anew what a change touches, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from controlplane.model import conversion
from controlplane.model.changes import Changes
from controlplane.model.mesh_config import MESH_CONFIG_MAP, MeshConfig, mesh_config
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Endpoint, Port, Resolution, Service, ServiceKey, identities
from controlplane.model.snapshot import Snapshot, with_resources

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_SOURCES = ("Service", "ServiceEntry")
_WORKLOADS = ("WorkloadEntry", "Pod")
_LISTS = ("Endpoints", "EndpointSlice")


_K = TypeVar("_K", bound=Hashable)


class _Label(NamedTuple):
    namespace: str
    name: str
    value: str


class Registry:
    """The newest snapshot, and the indices that make the next one cheap.

    ``default_mesh`` is the mesh's configuration where its ConfigMap is not there.
    """

    def __init__(self, default_mesh: MeshConfig | None = None, domain: str = "cluster.local") -> None:
        self._default_mesh = default_mesh or MeshConfig()
        self.snapshot = Snapshot(self._default_mesh, domain=domain)
        self._selectors: dict[ResourceKey, _Label] = {}
        self._hosts: dict[ResourceKey, tuple[ServiceKey, ...]] = {}  # of each Service and ServiceEntry
        self._origins: dict[ServiceKey, set[ResourceKey]] = {}
        self._parts: dict[ServiceKey, tuple[ServiceKey, ...]] = {}  # of services that some namespaces see a part of
        self._selecting: dict[_Label, dict[ServiceKey, int]] = {}  # services by one label of each of their selectors
        self._workloads: dict[_Label, dict[ResourceKey, None]] = {}  # by each of their labels
        self._lists: dict[ServiceKey, dict[ResourceKey, None]] = {}  # Endpoints and EndpointSlices of a service
        self._listing: dict[ResourceKey, dict[ServiceKey, int]] = {}  # services that list a Pod

    def apply(self, changed: Mapping[ResourceKey, Resource | None]) -> Changes:
        """Take the next snapshot. Returns what is different: resources, and services whose endpoints alone are."""
        before = self.snapshot
        resources = with_resources(before.resources, changed)
        mesh = before.mesh
        if MESH_CONFIG_MAP in changed:
            found = changed[MESH_CONFIG_MAP]
            mesh = mesh_config({} if found is None else {MESH_CONFIG_MAP: found}, self._default_mesh)
        after = replace(before, resources=resources, mesh=mesh)
        touched: dict[ServiceKey, None] = {}  # services that are made anew
        stale: dict[ServiceKey, None] = {}  # services whose endpoints are found anew
        told: set[ResourceKey] = set()
        for key, resource in changed.items():
            if key.kind in _SOURCES:
                touched.update(dict.fromkeys(self._source_changed(key, resource, after)))
                told.add(key)
            elif key.kind in _WORKLOADS:
                old = before.get(key)
                stale.update(dict.fromkeys(self._workload_changed(key, old, resource)))
                if _serves_otherwise(old, resource):
                    told.add(key)
            elif key.kind in _LISTS:
                stale.update(dict.fromkeys(self._list_changed(key, before.get(key), resource, after.domain)))
            else:
                told.add(key)
        if mesh is not before.mesh:
            for key in tuple(self._hosts):
                source = after.get(key)
                if source is not None:
                    touched.update(dict.fromkeys(self._source_changed(key, source, after)))
        stale.update(touched)
        stale.update(dict.fromkeys(self._parts_of(stale)))  # those that there are no more, too
        services = self._rebuild(touched, before, after)
        stale.update(dict.fromkeys(self._parts_of(stale)))
        endpoints, moved = self._relist(stale, services, before, after)
        self.snapshot = replace(after, services=services, endpoints=endpoints)
        alone: set[str] = set()
        looked_up: set[str] = set()  # their endpoints are a part of the cluster
        for service_key in moved:
            service = services[service_key]
            if service_key._replace(part="") in touched:
                continue
            if service.resolution in (Resolution.STATIC, Resolution.NONE):
                alone.add(service.hostname)
                if identities(endpoints[service_key]) != identities(before.endpoints.get(service_key, ())):
                    told.update(service.origins)  # clients verify who the endpoints are by what clusters say
                    looked_up.add(service.hostname)
            else:
                told.update(service.origins)
                looked_up.add(service.hostname)
        return Changes(frozenset(told), frozenset(alone), frozenset(key.hostname for key in touched) | looked_up)

    def _source_changed(self, key: ResourceKey, resource: Resource | None, after: Snapshot) -> Iterator[ServiceKey]:
        old = self._hosts.pop(key, ())
        for host in old:
            self._origins[host].discard(key)
        was = self._selectors.pop(key, None)
        if was is not None:
            _uncount(self._selecting, was, old)
        yield from old
        if resource is None:
            return
        hosts = tuple(service.key for service in self._made_from(resource, after))
        self._hosts[key] = hosts
        for host in hosts:
            self._origins.setdefault(host, set()).add(key)
        selector = selector_of(resource)
        if selector:
            label = self._selectors[key] = _Label(key.namespace, *min(selector.items()))
            _count(self._selecting, label, hosts)
        yield from hosts

    def _made_from(self, resource: Resource, snapshot: Snapshot) -> Iterable[Service]:
        default = snapshot.mesh.default_service_export_to
        if resource.key.kind == "Service":
            return (conversion.kubernetes_service(resource, snapshot.domain, default),)
        return conversion.service_entry(resource, default)

    def _rebuild(
        self, touched: Mapping[ServiceKey, None], before: Snapshot, after: Snapshot
    ) -> Mapping[ServiceKey, Service]:
        if not touched:
            return before.services
        services = dict(before.services)
        for key in touched:
            found = [resource for origin in self._origins.get(key, ()) if (resource := after.get(origin)) is not None]
            made = [
                service
                for resource in sorted(found, key=lambda r: (r.key.kind != "Service", r.metadata.created, r.name))
                for service in self._made_from(resource, after)
                if service.key == key
            ]
            for part in self._parts.pop(key, ()):
                services.pop(part, None)
            if not made:
                services.pop(key, None)
                self._origins.pop(key, None)
                continue
            joined, *parts = _as_seen(made)
            services[key] = joined
            if parts:
                services.update((part.key, part) for part in parts)
                self._parts[key] = tuple(part.key for part in parts)
        return services

    def _parts_of(self, keys: Iterable[ServiceKey]) -> list[ServiceKey]:
        return [part for key in keys for part in self._parts.get(key, ())] if self._parts else []

    def _workload_changed(self, key: ResourceKey, old: Resource | None, new: Resource | None) -> Iterator[ServiceKey]:
        for resource in (old, new):
            if resource is None:
                continue
            for name, value in workload_labels(resource).items():
                label = _Label(key.namespace, name, value)
                index = self._workloads.setdefault(label, {})
                if resource is new:
                    index[key] = None
                else:
                    index.pop(key, None)
                yield from self._selecting.get(label, ())
        yield from self._listing.get(key, ())  # listed endpoints take their labels from the Pod

    def _list_changed(
        self, key: ResourceKey, old: Resource | None, new: Resource | None, domain: str
    ) -> Iterator[ServiceKey]:
        for resource in (old, new):
            if resource is None:
                continue
            service = _listed_service(resource, domain)
            pods = [ResourceKey("Pod", key.namespace, name) for name in conversion.listed_pods(resource.document)]
            lists = self._lists.setdefault(service, {})
            if resource is new:
                lists[key] = None
                for pod in pods:
                    _count(self._listing, pod, (service,))
            else:
                lists.pop(key, None)
                for pod in pods:
                    _uncount(self._listing, pod, (service,))
            yield service

    def _selected(self, namespace: str, selector: Mapping[str, str]) -> list[ResourceKey]:
        smallest: Mapping[ResourceKey, None] | None = None
        for label, value in selector.items():
            found = self._workloads.get(_Label(namespace, label, value))
            if not found:
                return []
            if smallest is None or len(found) < len(smallest):
                smallest = found
        return sorted(smallest or ())

    def _relist(
        self,
        stale: Mapping[ServiceKey, None],
        services: Mapping[ServiceKey, Service],
        before: Snapshot,
        after: Snapshot,
    ) -> tuple[Mapping[ServiceKey, Sequence[Endpoint]], list[ServiceKey]]:
        if not stale:
            return before.endpoints, []
        endpoints = dict(before.endpoints)
        moved = []
        for key in stale:
            service = services.get(key)
            if service is None:
                endpoints.pop(key, None)
                continue
            found = tuple(self._endpoints(service, after))
            if key not in endpoints or endpoints[key] != found:
                endpoints[key] = found
                moved.append(key)
        return endpoints, moved

    def _endpoints(self, service: Service, snapshot: Snapshot) -> Iterator[Endpoint]:
        for origin in service.origins:
            resource = snapshot.get(origin)
            if resource is None:
                continue
            if origin.kind == "ServiceEntry":
                # Endpoints have the ports of their own entry, not those of others of the same host.
                alone = len(service.origins) == 1
                entries = (service,) if alone else self._made_from(resource, snapshot)
                for entry in entries:
                    if entry.hostname == service.hostname:
                        yield from self._of_service_entry(entry, resource, snapshot)
            else:
                yield from self._of_service(service, snapshot)

    def _of_service_entry(self, service: Service, resource: Resource, snapshot: Snapshot) -> Iterator[Endpoint]:
        for entry in resource.spec.endpoints:
            endpoint = conversion.workload_entry(service, entry, resource, entry.labels or {})
            if endpoint is not None:
                yield endpoint
        selector = selector_of(resource)
        if selector:
            yield from self._of_workloads(service, selector, snapshot, pods=True)

    def _of_service(self, service: Service, snapshot: Snapshot) -> Iterator[Endpoint]:
        pods = snapshot.resources.get("Pod", {}).get(service.namespace, {})
        listings = sorted(self._lists.get(service.key._replace(part=""), ()))
        if any(key.kind == "EndpointSlice" for key in listings):  # they say what Endpoints says, and more
            listings = [key for key in listings if key.kind == "EndpointSlice"]
        seen: set[tuple[str, int, int]] = set()
        for key in listings:
            listing = snapshot.get(key)
            for endpoint in conversion.listed(service, listing, pods) if listing is not None else ():
                # An address may be listed several times, with other ports each time.
                ports = {
                    number: own for number, own in endpoint.ports.items() if (endpoint.address, number, own) not in seen
                }
                if ports:
                    seen.update((endpoint.address, number, own) for number, own in ports.items())
                    yield endpoint if len(ports) == len(endpoint.ports) else replace(endpoint, ports=ports)
        if service.selector:
            yield from self._of_workloads(service, service.selector, snapshot, pods=not listings)

    def _of_workloads(
        self, service: Service, selector: Mapping[str, str], snapshot: Snapshot, pods: bool
    ) -> Iterator[Endpoint]:
        for key in self._selected(service.namespace, selector):
            resource = snapshot.get(key)
            if resource is None:
                continue
            labels = workload_labels(resource)
            if not selects(selector, labels):
                continue
            if key.kind == "WorkloadEntry":
                endpoint = conversion.workload_entry(service, resource.spec, resource, labels)
            else:
                endpoint = conversion.pod(service, resource) if pods else None
            if endpoint is not None:
                yield endpoint


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether all labels of a selector are there."""
    return all(labels.get(label) == value for label, value in selector.items())


def workload_labels(resource: Resource) -> Mapping[str, str]:
    """The labels of a Pod or a WorkloadEntry: a WorkloadEntry has them in its spec, and those of its metadata count too."""
    if resource.key.kind == "WorkloadEntry":
        return {**resource.metadata.labels, **(resource.spec.labels or {})}
    return resource.metadata.labels


def selector_of(resource: Resource) -> Mapping[str, str]:
    """The labels by which a Service or a ServiceEntry chooses workloads; empty if it does not."""
    spec = resource.spec
    if resource.key.kind == "Service":
        return spec.selector or {}
    return (spec.workload_selector.labels or {}) if spec.workload_selector else {}


def _as_seen(made: Sequence[Service]) -> list[Service]:
    """Services of one hostname in one namespace, as other namespaces see them: each resource is visible by its own `exportTo`.

    First all of them together, for those who see them all; then the parts that others see.
    """
    everybody = _joined(made)
    if all(service.export_to == everybody.export_to for service in made):
        return [everybody]
    named = frozenset(name for service in made for name in service.export_to) - {"*"}
    general = tuple(service for service in made if "*" in service.export_to)
    seen: dict[tuple[Service, ...], set[str]] = {general: {"*"}, tuple(made): set()}
    for name in sorted(named):
        mine = tuple(service for service in made if service.visible_to(name))
        if mine != general:  # else it is one of all others
            seen.setdefault(mine, set()).add(name)
    seen.pop((), None)
    others = frozenset(name for names in seen.values() for name in names) - {"*"}
    found = [_seen_by(everybody, seen.pop(tuple(made)), others)]
    for mine, names in seen.items():
        part = ",".join(origin.name for service in mine for origin in service.origins)
        found.append(_seen_by(replace(_joined(mine), part=part), names, others))
    return found


def _seen_by(service: Service, names: Collection[str], others: frozenset[str]) -> Service:
    return replace(service, export_to=frozenset(names), hidden_from=others if "*" in names else frozenset())


def _joined(made: Sequence[Service]) -> Service:
    """Services of one hostname in one namespace: the leading one, with the ports that only others have."""
    first = made[0]
    same = [service for service in made[1:] if service.resolution == first.resolution]
    if not same:
        return first
    ports: dict[int, Port] = {port.number: port for port in first.ports}
    for service in same:
        for port in service.ports:
            ports.setdefault(port.number, port)
    return replace(
        first,
        ports=tuple(ports.values()),
        origins=(*first.origins, *(origin for service in same for origin in service.origins)),
        addresses=tuple(dict.fromkeys(address for service in made for address in service.addresses)),
    )


def _serves_otherwise(old: Resource | None, new: Resource | None) -> bool:
    """Whether a workload's proxy may have other services or ports than before: not if only its health is different."""
    if old is None or new is None:
        return True
    return old.spec != new.spec or old.metadata.labels != new.metadata.labels


def _listed_service(listing: Resource, domain: str) -> ServiceKey:
    name = listing.name
    if listing.key.kind == "EndpointSlice":
        name = listing.metadata.labels.get(SERVICE_NAME_LABEL, "")
    return ServiceKey(listing.namespace, f"{name}.{listing.namespace}.svc.{domain}")


def _count(index: dict[_K, dict[ServiceKey, int]], key: _K, services: Iterable[ServiceKey]) -> None:
    counts = index.setdefault(key, {})
    for service in services:
        counts[service] = counts.get(service, 0) + 1


def _uncount(index: dict[_K, dict[ServiceKey, int]], key: _K, services: Iterable[ServiceKey]) -> None:
    counts = index[key]
    for service in services:
        counts[service] -= 1
        if not counts[service]:
            del counts[service]
    if not counts:
        del index[key]
