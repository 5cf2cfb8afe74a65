"""The part of the mesh that proxies of one scope see: `Scope` of scope.py, over a snapshot."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from controlplane.model.conversion import endpoint_ports
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.proxy import Locality, Proxy, ProxyType
from controlplane.model.registry import selects
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Endpoint, Port, Service, parse_protocol
from controlplane.model.snapshot import oldest_first
from controlplane.pilot.index import RuleIndex, destinations, matches, overlaps, resolve_host
from controlplane.pilot.memo import Memo, Same
from controlplane.pilot.mesh_view import MeshView
from controlplane.pilot.scope import EgressListener, Rule
from controlplane.pilot.security.peer_authentication import NamespacePeers
from controlplane.pilot.security.policies import NO_POLICIES, Policies
from controlplane.pilot.workload import locality_of, own_ports

SHARED_METADATA = ("INTERCEPTION_MODE", "GENERATOR", "SDS_AGENT", "ISTIO_VERSION", "DNS_CAPTURE", "ROUTER_MODE")
"""What of a node's metadata decides what its scope gets; all else is the proxy's own."""


class ScopeKey(NamedTuple):
    """What decides what a proxy sees of the mesh: proxies with the same get the same listeners, routes and clusters
    outbound. ``labels`` are only those that some resource asks for. ``ports`` are a router's own by their names, and whether
    these are a Pod's.
    """

    type: ProxyType
    namespace: str
    dns_domain: str
    cluster_id: str
    network: str
    locality: Locality
    labels: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    ports: tuple[tuple[tuple[str, int], ...], bool] = ((), False)


def scope_key(proxy: Proxy, mesh: MeshView) -> ScopeKey:
    """The scope of a proxy in a snapshot."""
    ports: tuple[tuple[tuple[str, int], ...], bool] = ((), False)
    if proxy.type is ProxyType.ROUTER:
        labels = tuple(sorted(proxy.labels.items()))
        named, of_pod = own_ports(proxy, mesh.snapshot)
        ports = tuple(sorted(named.items())), of_pod
    else:
        asked = mesh.labels.get("", frozenset()) | mesh.labels.get(proxy.namespace, frozenset())
        if proxy.type is ProxyType.PROXYLESS:  # its own listeners are its scope's
            asked |= mesh.peers.of_namespace(proxy.namespace).labels | mesh.policies.labels(proxy.namespace)
        labels = tuple(sorted((name, proxy.labels[name]) for name in asked if name in proxy.labels))
    metadata = tuple(
        (name, json.dumps(proxy.metadata[name], sort_keys=True))
        for name in (*SHARED_METADATA, *sorted(mesh.metadata.difference(SHARED_METADATA)))
        if name in proxy.metadata
    )
    return ScopeKey(
        proxy.type,
        proxy.namespace,
        proxy.dns_domain,
        proxy.cluster_id,
        proxy.network,
        locality_of(proxy, mesh.snapshot),
        labels,
        metadata,
        ports,
    )


class View:
    """`Scope` over one snapshot."""

    def __init__(self, key: ScopeKey, mesh: MeshView, before: View | None = None) -> None:
        self.key = key
        self._mesh = mesh
        self.proxy = Proxy(
            id="",
            type=key.type,
            namespace=key.namespace,
            name="",
            dns_domain=key.dns_domain,
            labels=dict(key.labels),
            cluster_id=key.cluster_id,
            network=key.network,
            locality=key.locality,
            metadata={name: json.loads(value) for name, value in key.metadata},
        )
        self._rules: dict[str, Rule | None] = {}
        if before is not None and before._mesh.rules is mesh.rules and before._mesh.services is mesh.services:
            self._rules = before._rules
        self._bound: dict[str, Sequence[Resource]] = {}

    def follow(self, mesh: MeshView) -> None:
        """Look at a snapshot in which, for all that this scope sees, only endpoints are different."""
        self._mesh = mesh

    @property
    def mesh(self) -> MeshConfig:
        return self._mesh.snapshot.mesh

    @property
    def memo(self) -> Memo:
        return self._mesh.memo

    @property
    def steady(self) -> Hashable:
        mesh = self._mesh
        return self.key, mesh.services, mesh.sidecars, Same(mesh.snapshot.mesh)

    @property
    def rules(self) -> object:
        return self._mesh.rules

    def rule_hosts_since(self, before: object) -> Collection[str]:
        assert isinstance(before, RuleIndex)
        return self._mesh.rules.differing(before)

    @cached_property
    def sidecar(self) -> Resource | None:
        if self.proxy.type is ProxyType.ROUTER:
            return None
        root = self._mesh.snapshot.root_namespace
        return self._mesh.sidecars.find(self.proxy.namespace, self.proxy.labels, root)

    @cached_property
    def outbound_policy(self) -> str:
        if self.sidecar is not None and self.sidecar.spec.outbound_traffic_policy is not None:
            return str(self.sidecar.spec.outbound_traffic_policy.mode)
        return self.mesh.outbound_traffic_policy.mode

    @cached_property
    def gateways(self) -> Sequence[Resource]:
        if self.proxy.type is not ProxyType.ROUTER:
            return ()
        return [gateway for gateway in self._mesh.gateways if selects(gateway.spec.selector, self.proxy.labels)]

    def gateway_port(self, number: int) -> int:
        named, of_pod = self.key.ports
        serving = [
            service
            for service in self._mesh.services.by_namespace.get(self.proxy.namespace, ())
            if service.selector and service.port(number) is not None and selects(service.selector, self.proxy.labels)
        ]
        for service in sorted(serving, key=lambda one: (one.created, one.hostname)):
            target = endpoint_ports(service, dict(named), of_pod=of_pod).get(number)
            if target:
                return target
        return number

    @cached_property
    def envoy_filters(self) -> Sequence[Resource]:
        snapshot = self._mesh.snapshot
        return [
            resource
            for namespace in dict.fromkeys((snapshot.root_namespace, self.proxy.namespace))
            for resource in oldest_first(snapshot.of_kind("EnvoyFilter", namespace))
            if resource.spec.workload_selector is None
            or selects(resource.spec.workload_selector.labels, self.proxy.labels)
        ]

    @cached_property
    def telemetries(self) -> Sequence[Resource]:
        snapshot = self._mesh.snapshot
        spaces = dict.fromkeys((snapshot.root_namespace, self.proxy.namespace))
        found = [
            resource
            for namespace in spaces
            for resource in oldest_first(snapshot.of_kind("Telemetry", namespace))
            if not resource.spec.targets
        ]
        general = [resource for resource in found if resource.spec.selector is None]
        selecting = [
            resource
            for resource in found
            if resource.spec.selector is not None and selects(resource.spec.selector.match_labels, self.proxy.labels)
        ]
        return [*general, *selecting]

    @cached_property
    def policies(self) -> Policies:
        return NO_POLICIES if self.proxy.type is ProxyType.SIDECAR else self._mesh.policies.of(self.proxy)

    def peers(self, namespace: str) -> NamespacePeers:
        return self._mesh.peers.of_namespace(namespace)

    @cached_property
    def services(self) -> Mapping[str, Service]:
        if self.sidecar is None:
            return self._visible
        found: dict[str, Service] = {}
        for listener in self.egress:
            found.update(listener.services)
        return {host: found[host] for host in self._visible if host in found}

    @cached_property
    def egress(self) -> Sequence[EgressListener]:
        everything = EgressListener(
            None, None, "", "DEFAULT", self._visible, self._mesh.virtual_services.visible(self.proxy.namespace, "mesh")
        )
        if self.sidecar is None or not self.sidecar.spec.egress:
            return (everything,)
        return tuple(self._egress_listener(spec) for spec in self.sidecar.spec.egress)

    @property
    def _visible(self) -> dict[str, Service]:
        return self._mesh.services.visible(self.proxy.namespace)

    def _egress_listener(self, spec: Any) -> EgressListener:
        """Istio's rules for `hosts`: services by namespace and name, VirtualServices by theirs, and what those lead to.

        Source: https://istio.io/latest/docs/reference/config/networking/sidecar/#IstioEgressListener
        """
        home = self.proxy.namespace
        wanted = []
        for host in spec.hosts:
            namespace, _, name = host.partition("/")
            if namespace != "~":
                wanted.append((home if namespace == "." else namespace, name.lower()))
        number = spec.port.number if spec.port is not None else None
        routes = [
            resource
            for resource in self._mesh.virtual_services.visible(home, "mesh")
            if any(
                space in ("*", resource.namespace)
                and any(overlaps(name, self.resolve(host, resource.namespace)) for host in resource.spec.hosts)
                for space, name in wanted
            )
        ]
        services: dict[str, Service] = {}
        for service in self._imported(wanted):
            if number is None or service.port(number) is not None:
                services[service.hostname] = service
        for resource in routes:
            for host in destinations(resource.spec):
                full = self.resolve(host, resource.namespace)
                led_to = self._visible.get(full)
                if led_to is not None and (number is None or led_to.port(number) is not None):
                    services.setdefault(full, led_to)
        port = None
        if spec.port is not None:
            port = Port(number or 0, spec.port.name or "", parse_protocol(spec.port.protocol or ""))
        return EgressListener(spec, port, spec.bind or "", str(spec.capture_mode or "DEFAULT"), services, routes)

    def _imported(self, wanted: Sequence[tuple[str, str]]) -> list[Service]:
        index, home = self._mesh.services, self.proxy.namespace
        found: dict[str, Service] = {}
        for space, name in wanted:
            if not name.startswith("*"):
                candidates = index.by_hostname.get(name, ())
            elif space == "*":
                candidates = [s for hostname, s in self._visible.items() if matches(name, hostname)]
            else:
                candidates = [s for s in index.by_namespace.get(space, ()) if matches(name, s.hostname)]
            for service in candidates:
                if space in ("*", service.namespace) and service.visible_to(home):
                    found.setdefault(service.hostname, service)
        return list(found.values())

    def consulted(self) -> Iterator[ResourceKey]:
        """What routes and clusters of this scope may have been made from: its virtual services, rules that were found, ...

        More than the causes of what was made: a virtual service without a rule that holds hides another, say.
        """
        gateways = [f"{gateway.namespace}/{gateway.name}" for gateway in self.gateways]
        for name in ("mesh", *gateways):
            yield from (resource.key for resource in self.virtual_services(name))
        yield from (resource.key for resource in (*self.envoy_filters, *self.telemetries))
        yield from self.policies.keys
        for rule in self._rules.values():
            if rule is not None:
                yield from (source.key for source in rule.sources)

    def virtual_services(self, gateway: str = "mesh") -> Sequence[Resource]:
        found = self._bound.get(gateway)
        if found is None:
            found = self._mesh.virtual_services.visible(self.proxy.namespace, gateway)
            if gateway == "mesh" and self.sidecar is not None and self.sidecar.spec.egress:
                seen = {resource for listener in self.egress for resource in listener.virtual_services}
                found = [resource for resource in found if resource in seen]
            self._bound[gateway] = found
        return found

    def virtual_service(self, namespace: str, name: str, viewer: str) -> Resource | None:
        return self._mesh.virtual_services.find(namespace, name, viewer)

    @cached_property
    def destinations(self) -> frozenset[str]:
        """The full hosts that visible VirtualServices lead to, whether there are such services or not."""
        return frozenset(
            self.resolve(host, resource.namespace)
            for resource in self._mesh.virtual_services.exported(self.proxy.namespace)
            for host in destinations(resource.spec)
        )

    def destination_rule(self, hostname: str) -> Rule | None:
        try:
            return self._rules[hostname]
        except KeyError:
            service = self._visible.get(hostname)
            rule = self._rules[hostname] = self._mesh.rules.rule(
                hostname,
                service.namespace if service is not None else "",
                self.proxy.namespace,
                self._mesh.snapshot.root_namespace,
                self.proxy.labels,
            )
            return rule

    def service(self, hostname: str) -> Service | None:
        found = self.services.get(hostname)
        if found is not None:
            return found
        _, dot, rest = hostname.partition(".")
        while dot:
            found = self.services.get(f"*.{rest}")
            if found is not None:
                return found
            _, dot, rest = rest.partition(".")
        return self.services.get("*")

    def secret(self, name: str) -> Resource | None:
        return self._mesh.snapshot.get(ResourceKey("Secret", self.proxy.namespace, name))

    def resolve(self, host: str, namespace: str) -> str:
        return resolve_host(host, namespace, self._mesh.snapshot.domain, self._mesh.services.by_hostname)

    def endpoints(self, service: Service) -> Sequence[Endpoint]:
        return self._mesh.snapshot.endpoints.get(service.key, ())
