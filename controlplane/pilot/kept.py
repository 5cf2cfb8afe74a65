"""What was made, for the proxies of a scope and for each proxy alone, and when it has to be made anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from controlplane.model.changes import Changes
from controlplane.model.encoded import Encoded
from controlplane.model.mesh_config import MESH_CONFIG_MAP, MeshConfig
from controlplane.model.proxy import Proxy
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Service
from controlplane.pilot import names as names_of
from controlplane.pilot.endpoints import load_assignment
from controlplane.pilot.generators import (
    CLUSTER,
    ENDPOINTS,
    OWN,
    PROXYLESS,
    SHARED,
    SHARED_KINDS,
    types_of,
)
from controlplane.pilot.mesh_view import MeshView
from controlplane.pilot.scope import Generated, Rule, Target
from controlplane.pilot.view import ScopeKey, View, scope_key
from controlplane.pilot.workload import ProxyWorkload, addresses, targets

log = logging.getLogger("controlplane.pilot")

_NOTHING: Mapping[str, Encoded] = {}


class Clock:
    """When what was changed last, in snapshots."""

    def __init__(self) -> None:
        self.now = 0
        self.structure = 0  # anything but endpoints
        self._types: dict[str, int] = {}
        self._own_types: dict[str, int] = {}
        self._mesh = 0
        self._virtual_services = 0
        self._services: dict[str, int] = {}  # by namespace
        self._workloads: dict[tuple[str, str], int] = {}  # by namespace, and name or address

    def tick(self, changes: Changes) -> None:
        """Another snapshot."""
        self.now += 1
        for key in changes.resources:
            types = types_of(key)
            if types:
                self.structure = self.now
            self._types.update(dict.fromkeys(types, self.now))
            if key.kind not in SHARED_KINDS:
                self._own_types.update(dict.fromkeys(types, self.now))
            if key.kind == "VirtualService":
                self._virtual_services = self.now
            elif key == MESH_CONFIG_MAP:
                self._mesh = self.now

    def workload_changed(self, key: ResourceKey, old: Resource | None, new: Resource | None) -> None:
        """A resource changed that may say what some proxy's workload serves."""
        if key.kind in ("Service", "ServiceEntry", "WorkloadGroup"):
            self._services[key.namespace] = self.now
        elif key.kind in ("WorkloadEntry", "Pod", "Endpoints", "EndpointSlice"):
            self._workloads[key.namespace, key.name] = self.now
            for resource in (old, new):
                for address in addresses(resource) if resource is not None else ():
                    self._workloads[key.namespace, address] = self.now

    def of_workload(self, proxy: Proxy) -> int:
        """When anything changed last that says what a proxy's workload serves."""
        namespace = proxy.namespace
        return max(
            self._services.get(namespace, 0),
            self._mesh,
            *(self._workloads.get((namespace, text), 0) for text in (proxy.name, *proxy.addresses)),
        )

    def of_type(self, type_url: str, *, with_virtual_services: bool) -> int:
        """When anything changed last that a scope's resources of a type are made from."""
        at = self._types.get(type_url, 0)
        return max(at, self._virtual_services) if with_virtual_services else at

    def of_own(self, type_url: str, *, with_virtual_services: bool) -> int:
        """When anything changed last that a proxy's own resources of a type are made from, but for its workload."""
        at = self._own_types.get(type_url, 0)
        return max(at, self._virtual_services) if with_virtual_services else at


class Made:
    """The resources of one type, as they were made at one time."""

    __slots__ = ("encoded", "generated", "signature", "stamp")

    def __init__(self, generated: Iterable[Generated], stamp: object, before: Made | None) -> None:
        self.stamp = stamp
        self.generated: dict[str, Generated] = {}
        old = before.generated if before is not None else {}
        for one in generated:
            name = one.resource.name
            was = old.get(name)
            if was is not None and was.resource is not one.resource and was.resource.version == one.resource.version:
                one = Generated(was.resource, one.causes)  # nothing is sent because a comment changed
            self.generated[name] = one
        self.encoded: Mapping[str, Encoded] = {name: one.resource for name, one in self.generated.items()}
        self.signature = tuple(self.encoded.values())
        if before is not None and before.signature == self.signature:
            self.encoded, self.signature = before.encoded, before.signature


def _made_or_last(generate: Callable[[], Iterable[Generated]], stamp: object, before: Made | None) -> Made:
    """What a generator makes. If it fails, which is a fault of the generator and not of the resources, proxies keep what they
    have, and everything else goes on; it is tried again at the next change. Without anything to keep the fault is raised.
    """
    try:
        return Made(generate(), stamp, before)
    except Exception:
        if before is None:
            raise
        log.exception("translation failed, proxies keep what they have")
        before.stamp = stamp
        return before


def _peers(view: View, service: Service | None) -> object:
    return view.peers(service.namespace) if service is not None else None


class _Host(NamedTuple):
    """What the load assignments of one host were made from, besides endpoints, and their names."""

    service: Service | None
    rule: Rule | None
    mesh: MeshConfig
    peers: object
    names: set[str]


class ScopeState:
    """What was made for the proxies of one scope."""

    def __init__(self, key: ScopeKey, mesh: MeshView) -> None:
        self.key = key
        self.view = View(key, mesh)
        self.mesh = mesh
        self.structure = -1
        self.used = 0
        self.seen: set[ResourceKey] = set()
        self._services: Mapping[str, Service] = {}
        self._hosts: set[str] = set()  # of all services that were ever visible
        self.endpoints: dict[str, Generated] = {}
        self._no_endpoints: set[str] = set()
        self._by_host: dict[str, _Host] = {}
        self._endpoints_at: object = None
        self._made: dict[str, Made] = {}

    def follow(self, mesh: MeshView, clock: Clock) -> None:
        """Look at the newest snapshot; from the beginning only if something else than endpoints changed."""
        if mesh is self.mesh and self.structure == clock.structure:
            return
        if self.structure != clock.structure:
            self.view = View(self.key, mesh, self.view)
            self.structure = clock.structure
            if self.view.sidecar is not None:
                self.seen.add(self.view.sidecar.key)
            self.seen.update(gateway.key for gateway in self.view.gateways)
            if self.view.services is not self._services:
                self._services = self.view.services
                self._hosts.update(self._services)
        else:
            self.view.follow(mesh)
        self.mesh = mesh

    def knows(self, hostname: str) -> bool:
        """Whether a service of that host is, or was, visible."""
        return hostname in self._hosts

    def made(self, type_url: str, clock: Clock) -> Made:
        stamp = clock.of_type(type_url, with_virtual_services=self.view.sidecar is not None)
        found = self._made.get(type_url)
        if found is None or found.stamp != stamp:
            found = self._made[type_url] = _made_or_last(lambda: SHARED[type_url](self.view), stamp, found)
            self.seen.update(key for one in found.generated.values() for key in one.causes)
            self.seen.update(self.view.consulted())
        return found

    def proxyless(self, type_url: str, wanted: Collection[str] | None) -> Mapping[str, Encoded]:
        """Resources of a type for gRPC clients without a proxy."""
        if type_url not in PROXYLESS:
            return _NOTHING
        generate, every_name = PROXYLESS[type_url]
        found: dict[str, Encoded] = {}
        for name in every_name(self.view) if wanted is None else wanted:
            one = generate(self.view, name)
            if one is not None:
                self.seen.update(one.causes)
                found[name] = one.resource
        self.seen.update(self.view.consulted())
        return found

    def stale_endpoints(self, hostnames: Collection[str]) -> None:
        """The endpoints of these services changed."""
        for hostname in hostnames:
            self._forget(hostname)

    def _forget(self, hostname: str) -> None:
        host = self._by_host.pop(hostname, None)
        for name in host.names if host is not None else ():
            del self.endpoints[name]

    def assignments(self, clock: Clock, wanted: Collection[str] | None) -> Mapping[str, Encoded]:
        stamp = clock.of_type(ENDPOINTS, with_virtual_services=self.view.sidecar is not None)
        if self._endpoints_at != stamp:
            self._endpoints_at = stamp
            self._no_endpoints.clear()
            view = self.view
            stale = [
                hostname
                for hostname, host in self._by_host.items()
                if view.services.get(hostname) is not host.service
                or view.destination_rule(hostname) is not host.rule
                or view.mesh is not host.mesh
                or _peers(view, host.service) is not host.peers
            ]
            for hostname in stale:
                self._forget(hostname)
        if wanted is None:
            wanted = self.made(CLUSTER, clock).generated
        found: dict[str, Encoded] = {}
        for name in wanted:
            one = self.endpoints.get(name)
            if one is None:
                one = self._assignment(name)
                if one is None:
                    continue
            found[name] = one.resource
        return found

    def _assignment(self, name: str) -> Generated | None:
        if name in self._no_endpoints:
            return None
        made = load_assignment(self.view, name)
        parts = names_of.parse_cluster(name)
        if made is None or parts is None:
            self._no_endpoints.add(name)
            return None
        self.endpoints[name] = made
        host = self._by_host.get(parts.hostname)
        if host is None:
            view = self.view
            service, rule = view.services.get(parts.hostname), view.destination_rule(parts.hostname)
            host = self._by_host[parts.hostname] = _Host(service, rule, view.mesh, _peers(view, service), set())
        host.names.add(name)
        return made


class ProxyState:
    """What was made for one proxy alone."""

    key: ScopeKey

    def __init__(self, proxy: Proxy, mesh: MeshView) -> None:
        self.proxy = proxy
        self.key = scope_key(proxy, mesh)
        self.moved_at = -1
        self.labels: object = mesh.labels
        self.peers: object = mesh.peers
        self.policies: object = mesh.policies
        self.told = -1  # when the workload changed of which the key tells
        self.used = 0
        self._targets: tuple[Target, ...] = ()
        self._targets_at = -1
        self._made: dict[str, Made] = {}
        self.seen: set[ResourceKey] = set()
        self._merged: dict[str, tuple[object, object, Mapping[str, Encoded]]] = {}

    def targets(self, mesh: MeshView, clock: Clock) -> tuple[Target, ...]:
        at = clock.of_workload(self.proxy)
        if self._targets_at != at:
            self._targets_at = at
            found = targets(self.proxy, mesh)
            if found != self._targets:
                self._targets = found
        return self._targets

    def moved(self, mesh: MeshView, clock: Clock) -> bool:
        """Whether the workload serves other ports or services than its resources were made for."""
        found = self.targets(mesh, clock)
        return any(made.stamp[2] is not found for made in self._made.values())  # type: ignore[index]

    def made(self, type_url: str, shared: ScopeState, mesh: MeshView, clock: Clock) -> Made:
        found = self._made.get(type_url)
        served = self.targets(mesh, clock)
        # Of the services that a Sidecar lets in by virtual services some may be asked about requests, or have keys.
        changed = clock.of_own(type_url, with_virtual_services=shared.view.sidecar is not None)
        stamp = (changed, self.key, served)
        before = found.stamp if found is not None else None
        if found is None or before[0] != stamp[0] or before[1] != stamp[1] or before[2] is not served:  # type: ignore[index]
            policies = mesh.policies.of(self.proxy)
            workload = ProxyWorkload(self.proxy, shared.view, served, policies)
            generate = OWN.get(type_url)
            found = self._made[type_url] = _made_or_last(
                lambda: generate(workload) if generate is not None else (), stamp, found
            )
            self.seen.update(key for one in found.generated.values() for key in one.causes)
            self.seen.update(policies.keys)
        return found

    def merged(self, type_url: str, shared: ScopeState, mesh: MeshView, clock: Clock) -> Mapping[str, Encoded]:
        """The scope's resources and the proxy's own."""
        common = shared.made(type_url, clock).encoded
        own = self.made(type_url, shared, mesh, clock).encoded
        if not own:
            return common
        kept = self._merged.get(type_url)
        if kept is None or kept[0] is not common or kept[1] is not own:
            kept = self._merged[type_url] = (common, own, {**common, **own})
        return kept[2]
