"""From the mesh to Envoy resources for each proxy, made anew only as far as something changed."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping

from controlplane.model.changes import Changes
from controlplane.model.encoded import Encoded
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.registry import Registry
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.snapshot import Snapshot
from controlplane.pilot import proxyless
from controlplane.pilot.concern import concerns, means_another
from controlplane.pilot.generators import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    OWN,
    OWN_KINDS,
    PROXYLESS,
    SERVICE_KINDS,
    SHARED,
    TYPES,
    types_of,
)
from controlplane.pilot.kept import Clock, ProxyState, ScopeState
from controlplane.pilot.listeners import Clash, Closed, NotSeen, clashes, closed, not_seen
from controlplane.pilot.memo import Memo
from controlplane.pilot.mesh_view import MeshView
from controlplane.pilot.security.policies import POLICY_KINDS
from controlplane.pilot.view import ScopeKey, scope_key
from controlplane.pilot.workload import ProxyWorkload

_ANY_SERVICE = ResourceKey("Service", "", "")
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
        self._clock = Clock()
        self._scopes: dict[ScopeKey, ScopeState] = {}
        self._proxies: dict[str, ProxyState] = {}

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
            if key.kind in POLICY_KINDS:
                policy = self._mesh.snapshot.get(key)
                known = key in own.seen or key in shared.seen
                if known or (policy is not None and self._mesh.policies.concerns(policy, proxy)):
                    types |= types_of(key)
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
        another listener has, ports that nobody gets into, and ports where policies on requests do not see any.
        """
        own = self._proxy(proxy)
        if proxy.type is ProxyType.PROXYLESS:
            return list(proxyless.left_out(self._scope(own).view))
        served = own.targets(self._mesh, self._clock)
        workload = ProxyWorkload(proxy, self._scope(own).view, served, self._mesh.policies.of(proxy))
        lacking: list[Clash | Closed | NotSeen] = [*clashes(workload), *closed(workload), *not_seen(workload)]
        return [(str(one), one.causes) for one in lacking]

    def _proxy(self, proxy: Proxy) -> ProxyState:
        state = self._proxies.get(proxy.id)
        if state is None or (state.proxy is not proxy and state.proxy != proxy):
            state = self._proxies[proxy.id] = ProxyState(proxy, self._mesh)
        state.used = self._clock.now
        told = self._clock.of_workload(proxy)
        mesh = self._mesh
        same = state.labels is mesh.labels and state.peers is mesh.peers and state.policies is mesh.policies
        if not same or state.told != told:
            state.labels, state.peers, state.policies, state.told = mesh.labels, mesh.peers, mesh.policies, told
            key = scope_key(proxy, self._mesh)
            if key != state.key:
                state.moved_at = self._clock.now
                state.key = key
        return state

    def _scope(self, own: ProxyState) -> ScopeState:
        state = self._scopes.get(own.key)
        if state is None:
            state = self._scopes[own.key] = ScopeState(own.key, self._mesh)
        state.used = self._clock.now
        state.follow(self._mesh, self._clock)
        return state
