"""From the mesh to Envoy resources for each proxy, made anew only as far as something changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import NamedTuple

from controlplane.model.changes import Changes
from controlplane.model.encoded import Encoded
from controlplane.model.mesh_config import MESH_CONFIG_MAP, MeshConfig
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.registry import Registry
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Service
from controlplane.model.snapshot import Snapshot
from controlplane.pilot import names as names_of
from controlplane.pilot.concern import concerns, means_another
from controlplane.pilot.endpoints import load_assignment
from controlplane.pilot.generators import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    OWN,
    OWN_KINDS,
    PROXYLESS,
    SERVICE_KINDS,
    SHARED,
    SHARED_KINDS,
    TYPES,
    types_of,
)
from controlplane.pilot.listeners import clashes
from controlplane.pilot.memo import Memo
from controlplane.pilot.mesh_view import MeshView
from controlplane.pilot.scope import Generated, Rule, Target
from controlplane.pilot.view import ScopeKey, View, scope_key
from controlplane.pilot.workload import ProxyWorkload, addresses, targets

_ANY_SERVICE = ResourceKey("Service", "", "")
log = logging.getLogger("controlplane.pilot")

_NOTHING: Mapping[str, Encoded] = {}
_PATIENCE = 256  # snapshots, after which scopes and proxies are forgotten that nobody asked for


class Pilot:
    """`Translator` over all resources of a mesh. ``default_mesh`` holds where the mesh's ConfigMap is not there.

    Proxies of one scope share what they see of the mesh, and every cluster, virtual host and load assignment is kept for
    as long as what it was made from is the same, whoever asks for it.
    """

    def __init__(self, default_mesh: MeshConfig | None = None, domain: str = "cluster.local") -> None:
        self._registry = Registry(default_mesh, domain)
        self._memo = Memo()
        self._mesh = MeshView(self._registry.snapshot, self._memo)
        self._clock = _Clock()
        self._scopes: dict[ScopeKey, _ScopeState] = {}
        self._proxies: dict[str, _ProxyState] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The mesh as it is now."""
        return self._registry.snapshot

    def apply(self, changed: Mapping[ResourceKey, Resource | None]) -> Changes:
        before = self._registry.snapshot
        changes = self._registry.apply(changed)
        self._mesh = MeshView(self._registry.snapshot, self._memo, self._mesh)
        self._clock.tick(changes)
        for key, resource in changed.items():
            self._clock.workload_changed(key, before.get(key), resource)
        self._memo.turn()
        for state in self._scopes.values():
            state.stale_endpoints(changes.endpoints)
        if self._clock.now % _PATIENCE == 0:
            oldest = self._clock.now - _PATIENCE
            self._scopes = {key: state for key, state in self._scopes.items() if state.used >= oldest}
            self._proxies = {key: one for key, one in self._proxies.items() if one.used >= oldest}
        return changes

    def scope(self, proxy: Proxy) -> Hashable:
        own = self._proxy(proxy)
        shared = self._scope(own)
        return own.key, tuple(own.made(type_url, shared, self._mesh, self._clock).signature for type_url in OWN)

    def resources(self, proxy: Proxy, type_url: str, names: Collection[str] | None = None) -> Mapping[str, Encoded]:
        own = self._proxy(proxy)
        shared = self._scope(own)
        if proxy.type is ProxyType.PROXYLESS:
            return shared.proxyless(type_url, names)
        if type_url == ENDPOINTS:
            return shared.assignments(self._clock, names)
        if type_url not in SHARED:
            return _NOTHING
        everything = own.merged(type_url, shared, self._mesh, self._clock)
        if names is None:
            return everything
        return {name: everything[name] for name in names if name in everything}

    def affected(self, changes: Changes, proxy: Proxy) -> Collection[str]:
        own = self._proxy(proxy)
        shared = self._scope(own)
        if own.moved_at == self._clock.now:
            return TYPES  # another scope
        types: set[str] = set()
        ours = False
        if any(shared.knows(hostname) or means_another(self._mesh, hostname) for hostname in changes.services):
            types |= types_of(_ANY_SERVICE)
        for key in changes.resources:
            if key.kind in OWN_KINDS or key.kind in SERVICE_KINDS:
                ours = ours or key.namespace == proxy.namespace
            if key in own.seen:
                types |= {CLUSTER, LISTENER}
            if key.kind in SERVICE_KINDS:
                continue
            candidates = types_of(key)
            if key.kind == "VirtualService" and shared.view.sidecar is not None:
                candidates = frozenset(TYPES)  # a Sidecar's egress takes in what its virtual services lead to
            if not candidates <= types:
                if key in shared.seen or concerns(shared.view, self._mesh, key):
                    types |= candidates
        for hostname in changes.endpoints:
            if hostname in shared.view.services:
                types.add(ENDPOINTS)
            ours = ours or any(
                service.namespace == proxy.namespace for service in self._mesh.services.by_hostname.get(hostname, ())
            )
        if ours and own.moved(self._mesh, self._clock):
            types |= {CLUSTER, LISTENER}
        return types

    def affected_names(self, changes: Changes, type_url: str, names: Collection[str]) -> Collection[str]:
        if type_url != ENDPOINTS:
            return names
        if any(ENDPOINTS in types_of(key) and key.kind not in SERVICE_KINDS for key in changes.resources):
            return names
        hosts = changes.endpoints | changes.services
        ends = tuple(f"{separator}{host}" for host in hosts for separator in ("|", "_."))
        return [name for name in names if name.endswith(ends)]

    def causes(self, proxy: Proxy, type_url: str, name: str) -> Collection[ResourceKey]:
        own = self._proxy(proxy)
        shared = self._scope(own)
        if proxy.type is ProxyType.PROXYLESS:
            made_of = PROXYLESS.get(type_url)
            found = made_of[0](shared.view, name) if made_of is not None else None
        elif type_url == ENDPOINTS:
            shared.assignments(self._clock, (name,))
            found = shared.endpoints.get(name)
        elif type_url in SHARED:
            made = own.made(type_url, shared, self._mesh, self._clock)
            found = made.generated.get(name) or shared.made(type_url, self._clock).generated.get(name)
        else:
            found = None
        return found.causes if found is not None else ()

    def left_out(self, proxy: Proxy) -> list[tuple[str, Collection[ResourceKey]]]:
        """What a proxy does not get although its resources ask for it, in words, and those resources: listeners whose address
        another listener has.
        """
        own = self._proxy(proxy)
        workload = ProxyWorkload(proxy, self._scope(own).view, own.targets(self._mesh, self._clock))
        return [(str(clash), clash.causes) for clash in clashes(workload)]

    def _proxy(self, proxy: Proxy) -> _ProxyState:
        state = self._proxies.get(proxy.id)
        if state is None or (state.proxy is not proxy and state.proxy != proxy):
            state = self._proxies[proxy.id] = _ProxyState(proxy, self._mesh)
        state.used = self._clock.now
        told = self._clock.of_workload(proxy)
        if state.labels is not self._mesh.labels or state.told != told:
            state.labels, state.told = self._mesh.labels, told
            key = scope_key(proxy, self._mesh)
            if key != state.key:
                state.moved_at = self._clock.now
                state.key = key
        return state

    def _scope(self, own: _ProxyState) -> _ScopeState:
        state = self._scopes.get(own.key)
        if state is None:
            state = self._scopes[own.key] = _ScopeState(own.key, self._mesh)
        state.used = self._clock.now
        state.follow(self._mesh, self._clock)
        return state


class _Clock:
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

    def of_own(self, type_url: str) -> int:
        """When anything changed last that a proxy's own resources of a type are made from, but for its workload."""
        return self._own_types.get(type_url, 0)


class _Made:
    """The resources of one type, as they were made at one time."""

    __slots__ = ("encoded", "generated", "signature", "stamp")

    def __init__(self, generated: Iterable[Generated], stamp: object, before: _Made | None) -> None:
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


def _made_or_last(generate: Callable[[], Iterable[Generated]], stamp: object, before: _Made | None) -> _Made:
    """What a generator makes. If it fails, which is a fault of the generator and not of the resources, proxies keep what they
    have, and everything else goes on; it is tried again at the next change. Without anything to keep the fault is raised.
    """
    try:
        return _Made(generate(), stamp, before)
    except Exception:
        if before is None:
            raise
        log.exception("translation failed, proxies keep what they have")
        before.stamp = stamp
        return before


class _Host(NamedTuple):
    """What the load assignments of one host were made from, besides endpoints, and their names."""

    service: Service | None
    rule: Rule | None
    mesh: MeshConfig
    names: set[str]


class _ScopeState:
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
        self._made: dict[str, _Made] = {}

    def follow(self, mesh: MeshView, clock: _Clock) -> None:
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

    def made(self, type_url: str, clock: _Clock) -> _Made:
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

    def assignments(self, clock: _Clock, wanted: Collection[str] | None) -> Mapping[str, Encoded]:
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
            host = self._by_host[parts.hostname] = _Host(service, rule, view.mesh, set())
        host.names.add(name)
        return made


class _ProxyState:
    """What was made for one proxy alone."""

    key: ScopeKey

    def __init__(self, proxy: Proxy, mesh: MeshView) -> None:
        self.proxy = proxy
        self.key = scope_key(proxy, mesh)
        self.moved_at = -1
        self.labels: object = mesh.labels
        self.told = -1  # when the workload changed of which the key tells
        self.used = 0
        self._targets: tuple[Target, ...] = ()
        self._targets_at = -1
        self._made: dict[str, _Made] = {}
        self.seen: set[ResourceKey] = set()
        self._merged: dict[str, tuple[object, object, Mapping[str, Encoded]]] = {}

    def targets(self, mesh: MeshView, clock: _Clock) -> tuple[Target, ...]:
        at = clock.of_workload(self.proxy)
        if self._targets_at != at:
            self._targets_at = at
            found = targets(self.proxy, mesh)
            if found != self._targets:
                self._targets = found
        return self._targets

    def moved(self, mesh: MeshView, clock: _Clock) -> bool:
        """Whether the workload serves other ports or services than its resources were made for."""
        found = self.targets(mesh, clock)
        return any(made.stamp[2] is not found for made in self._made.values())  # type: ignore[index]

    def made(self, type_url: str, shared: _ScopeState, mesh: MeshView, clock: _Clock) -> _Made:
        found = self._made.get(type_url)
        served = self.targets(mesh, clock)
        stamp = (clock.of_own(type_url), self.key, served)
        before = found.stamp if found is not None else None
        if found is None or before[0] != stamp[0] or before[1] != stamp[1] or before[2] is not served:  # type: ignore[index]
            workload = ProxyWorkload(self.proxy, shared.view, served)
            generate = OWN.get(type_url)
            found = self._made[type_url] = _made_or_last(
                lambda: generate(workload) if generate is not None else (), stamp, found
            )
            self.seen.update(key for one in found.generated.values() for key in one.causes)
        return found

    def merged(self, type_url: str, shared: _ScopeState, mesh: MeshView, clock: _Clock) -> Mapping[str, Encoded]:
        """The scope's resources and the proxy's own."""
        common = shared.made(type_url, clock).encoded
        own = self.made(type_url, shared, mesh, clock).encoded
        if not own:
            return common
        kept = self._merged.get(type_url)
        if kept is None or kept[0] is not common or kept[1] is not own:
            kept = self._merged[type_url] = (common, own, {**common, **own})
        return kept[2]
