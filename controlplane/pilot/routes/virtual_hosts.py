"""Virtual hosts as they go over the wire: made once for each service and its rules, whoever asks.

A route configuration is put together from finished bytes: repeated fields of protobuf messages can be appended, so that
the change of one virtual host costs no more than that virtual host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3 import route_pb2

from controlplane.model.encoded import Encoded, encode
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Port, PortProtocol, Service
from controlplane.pilot.forward_proxy import named_by_requests, switch_on
from controlplane.pilot.routes.delegates import Rules, effective_rules
from controlplane.pilot.routes.matching import MESH
from controlplane.pilot.routes.rules import default_route, rule_routes, selected_conditions
from controlplane.pilot.routes.tunnels import tunnel_route
from controlplane.pilot.scope import Generated, Scope

_LARGEST_BODY = 1 << 20  # of a direct response
_VIRTUAL_HOSTS_TAG = bytes((route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER << 3 | 2,))


@dataclass(frozen=True, slots=True, eq=False)
class VirtualHost:
    """A virtual host: its domains, its bytes as a field of a route configuration, and what it was made from."""

    domains: frozenset[str]
    field: bytes
    causes: tuple[ResourceKey, ...] = ()


def virtual_host(
    name: str,
    domains: Iterable[str],
    routes: Sequence[Any],
    causes: tuple[ResourceKey, ...] = (),
    require_tls: int = components.VirtualHost.NONE,
    *,
    by_requests: bool = False,
) -> VirtualHost:
    """A virtual host of finished routes. ``require_tls`` ALL answers plain requests with a redirect to `https`;
    ``by_requests``: the hosts that requests name are looked up.
    """
    listed = list(dict.fromkeys(domains))
    made = components.VirtualHost(name=name, domains=listed, routes=routes, require_tls=require_tls)
    if by_requests:
        switch_on(made)
    message = made.SerializeToString(deterministic=True)
    return VirtualHost(frozenset(listed), _VIRTUAL_HOSTS_TAG + _length(len(message)) + message, causes)


def new_route_configuration(name: str, **fields: Any) -> Any:
    """A `RouteConfiguration` without virtual hosts: it may name clusters that are not there (yet), and answer with bodies as
    large as resources admit.
    """
    message = route_pb2.RouteConfiguration(name=name, **fields)
    message.validate_clusters.value = False
    message.max_direct_response_body_size_bytes.value = _LARGEST_BODY
    return message


def route_configuration(
    scope: Scope, message: Any, hosts: Sequence[VirtualHost], *, distinct: bool = False
) -> Generated:
    """The resource of a `RouteConfiguration` with these virtual hosts; the same object as long as it is the same.

    Domains that a virtual host before has are gone from the later ones, because Envoy wants each of them once; with
    ``distinct`` it is known that there are none.
    """
    if not distinct:
        hosts = _with_own_domains(hosts)
    made = encode_bytes(
        message.name, b"".join((message.SerializeToString(deterministic=True), *(each.field for each in hosts)))
    )
    kept = scope.memo.brief.get(("route configuration", made.name, made.version), lambda: made)
    return Generated(kept, tuple(dict.fromkeys(chain.from_iterable(each.causes for each in hosts))))


def encode_bytes(name: str, value: bytes) -> Encoded:
    """`encode` for a message that is serialised already."""
    return encode(name, _Serialised(value))


class RuleView:
    """A virtual service's rules as one proxy's routes are made from them, and the key of all that they depend on."""

    __slots__ = ("_dependencies", "_gateways", "_rules", "_scope", "destinations", "owner")

    def __init__(self, scope: Scope, owner: Resource, gateways: Collection[str] = (MESH,)) -> None:
        self.owner = owner
        self._scope = scope
        self._gateways = gateways
        rules = effective_rules(scope, owner) if _delegates(scope, owner) else None
        self._rules = rules or scope.memo.get(("rules", owner), lambda: effective_rules(scope, owner))
        hosts = scope.memo.get(
            ("destinations", owner, self._rules.delegates), lambda: frozenset(_destination_hosts(self._rules))
        )
        self.destinations = frozenset(scope.resolve(host, namespace) for host, namespace in hosts)
        dependencies: list[Any] = [owner, self._rules.delegates, str(scope.mesh.default_http_retry_policy)]
        dependencies.append(scope.proxy.has_identity)
        for hostname in self.destinations:
            dependencies += (hostname, scope.service(hostname), scope.destination_rule(hostname))
        self._dependencies = tuple(dependencies)

    def key(self, port: int) -> tuple[Any, ...]:
        """Two keys are equal where the routes are."""
        return self._dependencies, port, selected_conditions(self._scope, self.owner, self._rules, port, self._gateways)

    def routes(self, port: int) -> list[Any]:
        """`Route` messages for requests to a port; none if the virtual service has no HTTP rules that hold here."""
        return rule_routes(self._scope, self.owner, self._rules, port, self._gateways)

    @property
    def causes(self) -> tuple[ResourceKey, ...]:
        """The virtual service, and those that it delegates to."""
        return (self.owner.key, *(delegate.key for delegate in self._rules.delegates))


def service_virtual_host(
    scope: Scope,
    service: Service,
    port: Port,
    domains: Sequence[str],
    rules: RuleView | None,
    tunnels: Sequence[Resource] | None = None,
) -> VirtualHost:
    """The virtual host of a service's port: by ``rules``, or where they do not hold, to the service itself.

    With ``tunnels`` (the virtual services with TCP routes that speak of it, or none) CONNECT is answered, too; and where
    no requests can be routed, nothing else.
    """
    number = port.number
    rule = scope.destination_rule(service.hostname)
    by_requests = named_by_requests(service, scope)
    key = (
        "virtual host",
        by_requests,
        service,
        number,
        tuple(domains),
        rule,
        None if rules is None else rules.key(number),
        str(scope.mesh.default_http_retry_policy),
        scope.proxy.has_identity,
        None if tunnels is None else (tuple(tunnels), scope.steady if tunnels else None),
    )

    def make() -> VirtualHost:
        name = f"{service.hostname}:{number}"
        causes = (
            *(rules.causes if rules is not None else ()),
            *(owner.key for owner in tunnels or ()),
            *service.origins,
        )
        made = [tunnel_route(scope, service, number, tunnels)] if tunnels is not None else []
        if routable(port.protocol):
            made += (rules.routes(number) if rules is not None else []) or [default_route(scope, service, number, rule)]
        return virtual_host(name, domains, made, causes, by_requests=by_requests)

    return scope.memo.get(key, make)


def rules_virtual_host(
    scope: Scope, host: str, port: int, domains: Sequence[str], rules: RuleView
) -> VirtualHost | None:
    """The virtual host of a name that is no service; None if its virtual service has no rules that hold here."""

    def make() -> VirtualHost | None:
        routes = rules.routes(port)
        return virtual_host(f"{host}:{port}", domains, routes, rules.causes) if routes else None

    return scope.memo.get(("virtual host", host, tuple(domains), rules.key(port)), make)


def routable(protocol: PortProtocol) -> bool:
    """Whether requests on a port of that protocol can be routed: those of AUTO can, if they turn out to be HTTP."""
    return protocol.is_http or protocol is PortProtocol.AUTO


class _Serialised:
    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def SerializeToString(self, *, deterministic: bool) -> bytes:
        return self._value


def _delegates(scope: Scope, owner: Resource) -> bool:
    return bool(
        scope.memo.get(("delegates", owner), lambda: any(rule.delegate is not None for rule in owner.spec.http))
    )


def _destination_hosts(rules: Rules) -> Iterable[tuple[str, str]]:
    for namespace, rule in rules.rules:
        for each in (*rule.route, *rule.mirrors):
            yield each.destination.host, namespace
        if rule.mirror is not None:
            yield rule.mirror.host, namespace


def _with_own_domains(hosts: Iterable[VirtualHost]) -> list[VirtualHost]:
    """Each host with the domains that none before it has."""
    seen: set[str] = set()
    left: list[VirtualHost] = []
    for each in hosts:
        kept = each if seen.isdisjoint(each.domains) else _without(each, seen)
        if kept is not None:
            seen |= kept.domains
            left.append(kept)
    return left


def _without(host: VirtualHost, taken: Collection[str]) -> VirtualHost | None:
    """The virtual host with the domains that are left to it, None if there are none."""
    size, start = 0, 1
    for shift in range(0, 35, 7):
        byte = host.field[start]
        start += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    message = components.VirtualHost.FromString(host.field[start : start + size])
    left = [domain for domain in message.domains if domain not in taken]
    if not left:
        return None
    return virtual_host(message.name, left, list(message.routes), host.causes, message.require_tls)


def _length(size: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    made = bytearray()
    while size > 0x7F:
        made.append(size & 0x7F | 0x80)
        size >>= 7
    made.append(size)
    return bytes(made)
