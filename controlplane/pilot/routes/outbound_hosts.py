"""The virtual hosts of what a sidecar's workload sends, made anew only as far as virtual services change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controlplane.model.resource import Resource
from controlplane.model.service import Port, PortProtocol, Service
from controlplane.pilot.forward_proxy import named_by_requests
from controlplane.pilot.hosts import covers, speaking_of
from controlplane.pilot.routes.domains import service_addresses, service_names, with_port
from controlplane.pilot.routes.virtual_hosts import (
    RuleView,
    VirtualHost,
    routable,
    rules_virtual_host,
    service_virtual_host,
)
from controlplane.pilot.scope import EgressListener, Scope

HTTP_PORT = 80  # what stands for no port in an authority


class OutboundHosts(NamedTuple):
    """Virtual hosts, and whether no two of them, nor one for all other hosts (`*`), have a domain in common."""

    hosts: Sequence[VirtualHost]
    distinct: bool


def outbound_hosts(scope: Scope, egress: EgressListener, port: int | None) -> OutboundHosts:
    """Virtual hosts for requests that came for ``port``, whose domains are without it; None is the forward proxy, which
    takes all ports, so that domains have them.
    """
    key = ("outbound hosts", scope.steady, scope.egress.index(egress), port)
    return scope.memo.get(key, _Hosts).follow(scope, egress, port)


@dataclass(frozen=True, slots=True)
class Claims:
    """Which virtual service speaks for which service, and hosts of virtual services that are no services, with theirs."""

    by_service: dict[str, Resource] = field(default_factory=dict)
    strangers: dict[str, Resource] = field(default_factory=dict)


def claims(scope: Scope, egress: EgressListener, services: Mapping[str, Service]) -> Claims:
    """Who speaks for ``services``: the oldest virtual service that names one, else the one whose wildcard covers it most
    closely.
    """
    found = Claims()
    wildcards: list[tuple[str, Resource]] = []
    for owner in egress.virtual_services:
        if not owner.spec.http:
            continue
        for host in owner.spec.hosts:
            full = scope.resolve(host, owner.namespace)
            if full in services:
                found.by_service.setdefault(full, owner)
            elif full.startswith("*"):
                wildcards.append((full, owner))
            else:
                found.strangers.setdefault(full, owner)
    wildcards.sort(key=lambda each: -len(each[0]))  # stable: of two that are equal the older one stays first
    for wildcard, owner in wildcards:
        covered = [hostname for hostname in services if covers(wildcard, hostname)]
        for hostname in covered:
            found.by_service.setdefault(hostname, owner)
        if not covered:
            found.strangers.setdefault(wildcard, owner)
    return found


class _Place(NamedTuple):
    """What a virtual host is for: a port of a service, or a name that is none."""

    service: Service | None
    host: str
    port: Port
    domains: list[str]
    tunnels: Sequence[Resource] | None = None

    def make(self, scope: Scope, rules: RuleView | None) -> VirtualHost | None:
        """Its virtual host; None for a name that is no service, if no rules hold for it here."""
        if self.service is not None:
            return service_virtual_host(scope, self.service, self.port, self.domains, rules, self.tunnels)
        assert rules is not None
        return rules_virtual_host(scope, self.host, self.port.number, self.domains, rules)


class _Hosts:
    """Virtual hosts as they were last. Services, Sidecars and the mesh have stayed the same since (`Scope.steady`)."""

    __slots__ = (
        "_by_owner",
        "_delegating",
        "_distinct",
        "_hosts",
        "_leads",
        "_listed",
        "_owned",
        "_owners",
        "_places",
        "_rules",
        "_visible",
    )

    def __init__(self) -> None:
        self._rules: object = None
        self._owners: Sequence[Resource] = ()
        self._listed: Mapping[str, Service] = {}
        self._visible: Mapping[str, Service] = {}
        self._places: list[_Place] = []
        self._hosts: list[VirtualHost | None] = []
        self._owned: list[Resource | None] = []
        self._by_owner: dict[Resource, list[int]] = {}
        self._leads: dict[Resource, frozenset[str]] = {}
        self._delegating: set[Resource] = set()
        self._distinct = False

    def follow(self, scope: Scope, egress: EgressListener, port: int | None) -> OutboundHosts:
        """The virtual hosts of the newest snapshot."""
        changed = self._changed(scope, egress)
        if changed is None:
            self._make(scope, egress, port)
        else:
            touched = _Hostnames(() if self._rules is scope.rules else scope.rule_hosts_since(self._rules))
            for old, new in changed:
                self._replace(scope, old, new)
            if touched:
                self._refresh(scope, touched)
        self._rules = scope.rules
        self._owners, self._listed, self._visible = egress.virtual_services, egress.services, scope.services
        return OutboundHosts([host for host in self._hosts if host is not None], self._distinct)

    def _replace(self, scope: Scope, old: Resource, new: Resource) -> None:
        """A virtual service is another one, or its delegates may be."""
        rules = RuleView(scope, new)
        places = self._by_owner.pop(old, [])
        self._leads.pop(old, None)
        self._delegating.discard(old)
        self._by_owner[new] = places
        self._leads[new] = rules.destinations
        if _delegates(new):
            self._delegating.add(new)
        for index in places:
            self._owned[index] = new
            self._put(scope, index, rules)

    def _refresh(self, scope: Scope, touched: _Hostnames) -> None:
        """The DestinationRules of some hosts are others."""
        views = {owner: RuleView(scope, owner) for owner, hosts in self._leads.items() if touched.meet(hosts)}
        for index, place in enumerate(self._places):
            owner = self._owned[index]
            if owner in views:
                self._put(scope, index, views[owner])
            elif place.host in touched:
                self._put(scope, index, None if owner is None else RuleView(scope, owner))

    def _put(self, scope: Scope, index: int, rules: RuleView | None) -> None:
        was, made = self._hosts[index], self._places[index].make(scope, rules)
        if made is not None and (was is None or was.domains != made.domains):
            self._distinct = False
        self._hosts[index] = made

    def _changed(self, scope: Scope, egress: EgressListener) -> Sequence[tuple[Resource, Resource]] | None:
        """Virtual services with what they were before, if each of them speaks for the same hosts still; else None."""
        owners = egress.virtual_services
        if not self._places or len(owners) != len(self._owners):
            return None
        if self._listed != egress.services or self._visible != scope.services:
            return None
        changed = [(old, new) for old, new in zip(self._owners, owners, strict=True) if old is not new]
        if not all(_speak_alike(old, new) for old, new in changed):
            return None
        seen = {old for old, _ in changed}
        return [*changed, *((owner, owner) for owner in self._delegating if owner not in seen)]

    def _make(self, scope: Scope, egress: EgressListener, port: int | None) -> None:
        services = {
            hostname: service
            for hostname, service in egress.services.items()
            if any(_served(each, port) for each in service.ports)
        }
        claimed = claims(scope, egress, services)
        self._places, self._hosts, self._owned, self._by_owner = [], [], [], {}
        views: dict[Resource, RuleView] = {}
        for place, owner in _places(scope, egress, services, claimed, port):
            rules = None
            if owner is not None:
                self._by_owner.setdefault(owner, []).append(len(self._places))
                rules = views.get(owner)
                if rules is None:
                    rules = views[owner] = RuleView(scope, owner)
            self._places.append(place)
            self._owned.append(owner)
            self._hosts.append(place.make(scope, rules))
        self._leads = {owner: rules.destinations for owner, rules in views.items()}
        self._delegating = {owner for owner in self._by_owner if _delegates(owner)}
        found = [host.domains for host in self._hosts if host is not None]
        everything = frozenset[str]().union(*found)
        self._distinct = "*" not in everything and sum(map(len, found)) == len(everything)


class _Hostnames:
    """Names, and wildcards that stand for names."""

    __slots__ = ("_exact", "_wild")

    def __init__(self, hosts: Iterable[str]) -> None:
        found = frozenset(hosts)
        self._wild = [host for host in found if host.startswith("*")]
        self._exact = found

    def __bool__(self) -> bool:
        return bool(self._exact)

    def __contains__(self, host: str) -> bool:
        return host in self._exact or any(covers(wild, host) for wild in self._wild)

    def meet(self, hosts: frozenset[str]) -> bool:
        """Whether one of ``hosts`` is among them."""
        if not self._wild:
            return not self._exact.isdisjoint(hosts)
        return any(host in self for host in hosts)


def _served(port: Port, asked: int | None) -> bool:
    """Whether a port of a service has a virtual host: the forward proxy (None) opens tunnels to what is no HTTP."""
    if asked is None:
        return port.protocol is not PortProtocol.UDP
    return port.number == asked and routable(port.protocol)


def _places(
    scope: Scope, egress: EgressListener, services: Mapping[str, Service], claimed: Claims, port: int | None
) -> Iterator[tuple[_Place, Resource | None]]:
    connections = [owner for owner in egress.virtual_services if owner.spec.tcp]
    namespace, dns_domain = scope.proxy.namespace, scope.proxy.dns_domain
    for hostname, service in services.items():
        if port is not None and named_by_requests(service, scope):
            continue  # the forward proxy alone looks names up: one that leads to a listener's own address goes no further
        names = service_names(service, namespace, dns_domain) + service_addresses(service)
        for each in service.ports:
            if not _served(each, port):
                continue
            served = names
            if port is None:
                served = with_port(names, each.number, bare=each.number == HTTP_PORT and routable(each.protocol))
            tunnels = None
            if port is None and not each.protocol.is_http:
                tunnels = speaking_of(scope, connections, hostname)
            place = _Place(service, hostname, each, served, tunnels)
            yield place, claimed.by_service.get(hostname) if routable(each.protocol) else None
    asked = HTTP_PORT if port is None else port
    for host, owner in claimed.strangers.items():
        yield _Place(None, host, Port(asked), with_port([host], asked, bare=True) if port is None else [host]), owner


def _speak_alike(old: Resource, new: Resource) -> bool:
    """Whether a change leaves everything as it is but the routes of the hosts that a virtual service speaks for."""
    if old.spec.tcp or new.spec.tcp:
        return False
    return old.key == new.key and old.spec.hosts == new.spec.hosts and bool(old.spec.http) == bool(new.spec.http)


def _delegates(owner: Resource) -> bool:
    return any(rule.delegate is not None for rule in owner.spec.http)
