"""The mesh in the order in which generators look things up: by namespace, by host, by gateway, by who may see it.

Each index is made from the resources of one kind, and stays as long as they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from controlplane.model.conversion import export_to
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.registry import selects
from controlplane.model.resource import Resource
from controlplane.model.service import Service, ServiceKey
from controlplane.model.snapshot import ByName, oldest_first
from controlplane.pilot.memo import Memo
from controlplane.pilot.scope import Rule

Spaces = Mapping[str, ByName]


def resolve_host(host: str, namespace: str, domain: str, services: Mapping[str, Any]) -> str:
    """The full hostname for a host as a resource of ``namespace`` says it; ``services`` has all that are known."""
    host = host.lower()
    if host.startswith("*"):
        return host
    if "." not in host:
        return f"{host}.{namespace}.svc.{domain}"
    if host in services:
        return host
    full = full_name(host, domain)
    return full if full in services else host


def full_name(host: str, domain: str) -> str:
    """What `NAME.NAMESPACE` and `NAME.NAMESPACE.svc` may stand for; "" for hosts of another form."""
    name, _, rest = host.partition(".")
    space, _, tail = rest.partition(".")
    return f"{name}.{space}.svc.{domain}" if space and tail in ("", "svc") else ""


def matches(pattern: str, host: str) -> bool:
    """Whether a pattern (`*`, `*.domain`, or a name) covers a host; a host may be a wildcard itself."""
    if pattern == host or pattern == "*":
        return True
    return pattern.startswith("*") and host.endswith(pattern[1:])


def overlaps(one: str, other: str) -> bool:
    """Whether two hosts, each of them a name or a wildcard, have a name in common."""
    return matches(one, other) or matches(other, one)


class ServiceIndex:
    """Services by namespace and by hostname, and those that each namespace sees."""

    def __init__(self, services: Mapping[ServiceKey, Service]) -> None:
        self.services = services
        self.by_hostname: dict[str, list[Service]] = {}
        self.by_namespace: dict[str, list[Service]] = {}
        ordered = sorted(services.values(), key=lambda service: (service.created, service.hostname, service.namespace))
        for service in ordered:
            self.by_hostname.setdefault(service.hostname, []).append(service)
            self.by_namespace.setdefault(service.namespace, []).append(service)
        self._visible: dict[str, dict[str, Service]] = {}

    def visible(self, namespace: str) -> dict[str, Service]:
        """The services that proxies of a namespace may see, by hostname."""
        found = self._visible.get(namespace)
        if found is None:
            found = self._visible[namespace] = {}
            for hostname, candidates in self.by_hostname.items():
                service = preferred(candidates, namespace)
                if service is not None:
                    found[hostname] = service
        return found


def preferred(candidates: Sequence[Service], namespace: str) -> Service | None:
    """Of services of one hostname the one that a namespace gets: its own, else Kubernetes', else the oldest visible."""
    best: Service | None = None
    for service in candidates:
        if not service.visible_to(namespace):
            continue
        if service.namespace == namespace:
            return service
        if best is None or (best.origins[0].kind != "Service" and service.origins[0].kind == "Service"):
            best = service
    return best


class VirtualServiceIndex:
    """VirtualServices, the oldest first, by namespace that sees them and gateway that they are bound to."""

    def __init__(self, spaces: Spaces, default_export: Sequence[str]) -> None:
        self.spaces = spaces
        self._default = tuple(default_export)
        self._all = oldest_first(resource for names in spaces.values() for resource in names.values())
        self._exports = [export_to(r.spec.export_to, r.namespace, self._default) for r in self._all]
        self._gateways = [gateways_of(resource) for resource in self._all]
        self._visible: dict[tuple[str, str], list[Resource]] = {}
        hosts = (host for resource in self._all for host in (*resource.spec.hosts, *destinations(resource.spec)))
        self.mentions = frozenset(host.lower() for host in hosts if full_name(host, ""))
        """Hosts that may be short for a service's: what they mean changes when such a service comes or goes."""

    def visible(self, namespace: str, gateway: str) -> list[Resource]:
        """Those with hosts: what has none is a delegate."""
        found = self._visible.get((namespace, gateway))
        if found is None:
            found = self._visible[namespace, gateway] = [
                resource
                for resource, exports, gateways in zip(self._all, self._exports, self._gateways, strict=True)
                if resource.spec.hosts and gateway in gateways and ("*" in exports or namespace in exports)
            ]
        return found

    def exported(self, namespace: str) -> Iterator[Resource]:
        """All that a namespace sees, and all delegates: those are exported to who delegates to them."""
        for resource, exports in zip(self._all, self._exports, strict=True):
            if "*" in exports or namespace in exports or not resource.spec.hosts:
                yield resource

    def find(self, namespace: str, name: str, viewer: str) -> Resource | None:
        """One by its name, if it is exported to a namespace."""
        resource = self.spaces.get(namespace, {}).get(name)
        if resource is None:
            return None
        exports = export_to(resource.spec.export_to, namespace, self._default)
        return resource if "*" in exports or viewer in exports else None


def gateways_of(resource: Resource) -> frozenset[str]:
    """The gateways that a VirtualService is bound to: `mesh`, or `NAMESPACE/NAME`."""
    names = resource.spec.gateways or ("mesh",)
    return frozenset(
        name if name == "mesh" or "/" in name else f"{resource.namespace}/{name.partition('.')[0]}" for name in names
    )


def destinations(spec: Any) -> list[str]:
    """The hosts that a VirtualService sends traffic to, mirrors among them, as they are written."""
    hosts = []
    for route in spec.http or ():
        hosts += [found.destination.host for found in route.route or ()]
        hosts += [found.destination.host for found in route.mirrors or () if found.destination is not None]
        if route.mirror is not None:
            hosts.append(route.mirror.host)
    for routes in (spec.tls, spec.tcp):
        for route in routes or ():
            hosts += [found.destination.host for found in route.route or ()]
    return hosts


class RuleIndex:
    """DestinationRules by namespace and host, merged where several are for one host."""

    def __init__(
        self,
        spaces: Spaces,
        default_export: Sequence[str],
        domain: str,
        hostnames: Mapping[str, Any],
        before: RuleIndex | None = None,
    ) -> None:
        self._default = tuple(default_export)
        self.mentions: set[str] = set()
        self.hosts: dict[Resource, str] = {}
        self._exact: dict[tuple[str, str], list[Resource]] = {}
        self._wild: dict[str, dict[str, list[Resource]]] = {}
        for namespace, names in spaces.items():
            for resource in oldest_first(names.values()):
                host = resolve_host(resource.spec.host, namespace, domain, hostnames)
                self.hosts[resource] = host
                if full_name(resource.spec.host, domain):
                    self.mentions.add(resource.spec.host.lower())
                if host.startswith("*"):
                    self._wild.setdefault(namespace, {}).setdefault(host, []).append(resource)
                else:
                    self._exact.setdefault((namespace, host), []).append(resource)
        # The same rules stay the same object, in whichever index.
        self._merged: dict[tuple[Resource, ...], Rule] = {}
        if before is not None:
            kept = before._merged.items()
            self._merged = {sources: rule for sources, rule in kept if all(source in self.hosts for source in sources)}
        self._empty = not spaces

    def differing(self, before: RuleIndex) -> set[str]:
        """The hosts of DestinationRules that only one of two indices has."""
        return {
            index.hosts[each]
            for index, other in ((self, before), (before, self))
            for each in index.hosts.keys() - other.hosts
        }

    def rule(self, hostname: str, service_namespace: str, proxy_namespace: str, root: str, labels: Any) -> Rule | None:
        """What applies to a destination for a client: Istio's lookup through the namespaces of both, and the root.

        Source: https://istio.io/latest/docs/ops/best-practices/traffic-management/#cross-namespace-configuration
        """
        if self._empty:
            return None
        for namespace in dict.fromkeys((proxy_namespace, service_namespace, root)):
            if not namespace or (namespace == proxy_namespace == root and service_namespace != root):
                continue  # the root namespace's own proxies look where their services are first
            found = self._in(namespace, hostname, proxy_namespace, labels)
            if found is not None:
                return found
        if proxy_namespace == root:
            return self._in(root, hostname, proxy_namespace, labels)
        return None

    def _in(self, namespace: str, hostname: str, viewer: str, labels: Mapping[str, str]) -> Rule | None:
        exact = self._exact.get((namespace, hostname))
        if exact is not None:
            found = self._pick(hostname, namespace, exact, viewer, labels)
            if found is not None:
                return found
        wild = self._wild.get(namespace)
        if wild:
            for pattern in sorted((p for p in wild if matches(p, hostname)), key=len, reverse=True):
                found = self._pick(hostname, namespace, wild[pattern], viewer, labels)
                if found is not None:
                    return found
        return None

    def _pick(
        self, hostname: str, namespace: str, rules: Sequence[Resource], viewer: str, labels: Mapping[str, str]
    ) -> Rule | None:
        selected, plain = [], []
        for resource in rules:
            if viewer != namespace:
                exports = export_to(resource.spec.export_to, namespace, self._default)
                if "*" not in exports and viewer not in exports:
                    continue
            selector = resource.spec.workload_selector
            if selector is None:
                plain.append(resource)
            elif viewer == namespace and selects(selector_labels(selector), labels):
                selected.append(resource)
        chosen = tuple(selected or plain)
        if not chosen:
            return None
        merged = self._merged.get(chosen)
        if merged is None:
            merged = self._merged[chosen] = merge_rules(chosen)
        return merged


def merge_rules(rules: Sequence[Resource]) -> Rule:
    """Several DestinationRules of one host: the first traffic policy, and the first subset of each name.

    Source: https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services
    """
    subsets: dict[str, Any] = {}
    policy = None
    for resource in rules:
        if policy is None:
            policy = resource.spec.traffic_policy
        for subset in resource.spec.subsets or ():
            subsets.setdefault(subset.name, subset)
    first = rules[0]
    return Rule(first.spec.host, first.namespace, policy, subsets, tuple(rules))


def selector_labels(selector: Any) -> Mapping[str, str]:
    """The labels of a selector: networking kinds have `labels`, the others `matchLabels`."""
    found = getattr(selector, "match_labels", None)
    if found is None:
        found = getattr(selector, "labels", None)
    return found or {}


class SidecarIndex:
    """Sidecars, the oldest first."""

    def __init__(self, spaces: Spaces) -> None:
        self._by_namespace = {namespace: oldest_first(names.values()) for namespace, names in spaces.items() if names}

    def find(self, namespace: str, labels: Mapping[str, str], root: str) -> Resource | None:
        """The one that selects the workload, else that of its namespace, else that of the root namespace."""
        plain: Resource | None = None
        for resource in self._by_namespace.get(namespace, ()):
            selector = resource.spec.workload_selector
            if selector is None or not selector_labels(selector):
                plain = plain or resource
            elif selects(selector_labels(selector), labels):
                return resource
        if plain is not None or namespace == root:
            return plain
        for resource in self._by_namespace.get(root, ()):
            if resource.spec.workload_selector is None:
                return resource
        return None


_ASKING = ("Sidecar", "DestinationRule", "EnvoyFilter", "ProxyConfig", "Telemetry", "VirtualService")


def relevant_labels(resources: Mapping[str, Spaces], mesh: MeshConfig, memo: Memo) -> dict[str, frozenset[str]]:
    """By namespace the labels of proxies that anything there asks for; under "" those that are asked for everywhere."""
    found: dict[str, set[str]] = {}
    for kind in _ASKING:
        for names in resources.get(kind, {}).values():
            for resource in names.values():
                for namespace, labels in memo.get(("labels asked for", resource), partial(_labels_asked_for, resource)):
                    found.setdefault(namespace, set()).update(labels)
    everywhere = (label.partition("=")[0] for label in mesh.locality_lb_setting.failover_priority)
    found.setdefault("", set()).update(everywhere)
    return {namespace: frozenset(names) for namespace, names in found.items()}


def _labels_asked_for(resource: Resource) -> list[tuple[str, frozenset[str]]]:
    """The labels that a resource asks for, each time with the namespace whose proxies are asked, "" for all."""
    asked: list[tuple[str, frozenset[str]]] = []
    kind, spec = resource.key.kind, resource.spec
    if kind == "VirtualService":
        names = {
            label
            for routes in (spec.http, spec.tls, spec.tcp)
            for route in routes
            for match in route.match
            for label in match.source_labels
        }
        return [("", frozenset(names))] if names else []
    selector = getattr(spec, "workload_selector", None) or getattr(spec, "selector", None)
    if selector is not None:
        everywhere = kind in ("EnvoyFilter", "Telemetry", "ProxyConfig")
        asked.append(("" if everywhere else resource.namespace, frozenset(selector_labels(selector))))
    if kind == "DestinationRule":
        names = set(_failover_labels(spec))
        if names:
            asked.append(("", frozenset(names)))
    return asked


def asked_metadata(resources: Mapping[str, Spaces]) -> frozenset[str]:
    """The metadata of nodes that EnvoyFilters ask for."""
    return frozenset(
        name
        for names in resources.get("EnvoyFilter", {}).values()
        for resource in names.values()
        for patch in resource.spec.config_patches
        if patch.match is not None and patch.match.proxy is not None
        for name in patch.match.proxy.metadata
    )


def _failover_labels(spec: Any) -> Iterable[str]:
    """The labels that `failoverPriority` compares in a DestinationRule."""
    policies = [spec.traffic_policy, *(subset.traffic_policy for subset in spec.subsets)]
    policies += [settings for policy in policies if policy is not None for settings in policy.port_level_settings]
    balancers = [policy.load_balancer for policy in policies if policy is not None]
    for balancer in balancers:
        if balancer is not None and balancer.locality_lb_setting is not None:
            yield from (label.partition("=")[0] for label in balancer.locality_lb_setting.failover_priority)
