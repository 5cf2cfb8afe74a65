"""VirtualService: what happens to traffic for a host (Istio reference: networking/virtual-service)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.destination import RouteDestination, weights_problems
from controlplane.model.istio.http_match import CLAIM
from controlplane.model.istio.http_route import HTTPRoute
from controlplane.model.istio.selection import export_to_problems, label_problems
from controlplane.model.resource import Model
from controlplane.model.values import (
    Port,
    Str,
    dns_label_complaint,
    domain_complaint,
    hosts_overlap,
    is_ip,
    is_ip_or_cidr,
    is_within,
    shown,
    wildcard_domain_complaint,
)


class TLSMatchAttributes(Model):
    """Conditions on a TLS connection that is not terminated; all of them must hold."""

    sni_hosts: tuple[Str, ...] = ()
    destination_subnets: tuple[Str, ...] = ()
    port: Port | None = None
    source_labels: Mapping[Str, Str] = Field(default_factory=dict)
    gateways: tuple[Str, ...] = ()
    source_namespace: Str | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.sni_hosts:
            yield Cause("sniHosts", "is required: name at least one host of the SNI", Reason.REQUIRED)
        for index, host in enumerate(self.sni_hosts):
            if not is_ip(host) and (complaint := wildcard_domain_complaint(host)):
                yield Cause(f"sniHosts[{index}]", complaint)
        yield from _subnet_problems(self.destination_subnets)
        yield from label_problems(self.source_labels, "sourceLabels")
        yield from gateway_name_problems(self.gateways)


class TLSRoute(Model):
    """Where TLS connections with a given SNI go, unopened."""

    match: tuple[TLSMatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()

    def problems(self) -> Iterable[Cause]:
        if not self.match:
            yield Cause("match", "is required: a TLS route is chosen by its sniHosts", Reason.REQUIRED)
        if not self.route:
            yield Cause("route", "is required: name at least one destination", Reason.REQUIRED)
        yield from weights_problems([each.weight for each in self.route], "route")


class L4MatchAttributes(Model):
    """Conditions on a TCP connection; all of them must hold."""

    destination_subnets: tuple[Str, ...] = ()
    port: Port | None = None
    source_labels: Mapping[Str, Str] = Field(default_factory=dict)
    source_subnet: Str | None = None
    gateways: tuple[Str, ...] = ()
    source_namespace: Str | None = None

    def problems(self) -> Iterable[Cause]:
        yield from _subnet_problems(self.destination_subnets)
        if self.source_subnet and not is_ip_or_cidr(self.source_subnet):
            yield Cause(
                "sourceSubnet", f"{shown(self.source_subnet)} is neither an address nor a range such as 10.0.0.0/8"
            )
        yield from label_problems(self.source_labels, "sourceLabels")
        yield from gateway_name_problems(self.gateways)


class TCPRoute(Model):
    """Where TCP connections go."""

    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()

    def problems(self) -> Iterable[Cause]:
        if not self.route:
            yield Cause("route", "is required: name at least one destination", Reason.REQUIRED)
        yield from weights_problems([each.weight for each in self.route], "route")


class VirtualService(Model):
    """Routes for traffic to ``hosts``, in the sidecars (gateway `mesh`, the default) and at ``gateways``.

    Without hosts it is a delegate: other VirtualServices hand a part of their traffic to it.
    """

    hosts: tuple[Str, ...] = ()
    gateways: tuple[Str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    export_to: tuple[Str, ...] = ()

    @property
    def is_delegate(self) -> bool:
        """Whether other VirtualServices hand traffic to this one."""
        return not self.hosts

    def problems(self) -> Iterable[Cause]:
        yield from self._host_problems()
        yield from gateway_name_problems(self.gateways)
        yield from export_to_problems(self.export_to)
        if not (self.http or self.tls or self.tcp):
            yield Cause("", "has no routes: add http, tls or tcp", Reason.REQUIRED)
        if self.is_delegate:
            yield from self._delegate_problems()
        yield from self._tls_problems()
        yield from self._claim_problems()
        names: set[str] = set()
        for index, route in enumerate(self.http):
            if route.name and route.name in names:
                yield Cause(
                    f"http[{index}].name", f"{shown(route.name)} names another route too: rename one", Reason.DUPLICATE
                )
            names.add(route.name or "")

    def _host_problems(self) -> Iterator[Cause]:
        in_mesh = not self.gateways or "mesh" in self.gateways
        for index, host in enumerate(self.hosts):
            at = f"hosts[{index}]"
            if host in self.hosts[:index]:
                yield Cause(at, f"{shown(host)} is there twice: remove one", Reason.DUPLICATE)
            elif host == "*" and in_mesh:
                yield Cause(at, '"*" is for gateways alone: name the hosts, or list gateways without "mesh"')
            elif not is_ip(host) and (complaint := wildcard_domain_complaint(host)):
                yield Cause(at, complaint)
            elif other := next((other for other in self.hosts[:index] if hosts_overlap(host, other)), None):
                yield Cause(at, f"{shown(host)} and {shown(other)} overlap: remove one", Reason.DUPLICATE)

    def _tls_problems(self) -> Iterator[Cause]:
        if self.is_delegate:
            return
        for index, route in enumerate(self.tls):
            for number, match in enumerate(route.match):
                for place, sni in enumerate(match.sni_hosts):
                    if not any(is_within(sni, host) for host in self.hosts):
                        at = f"tls[{index}].match[{number}].sniHosts[{place}]"
                        yield Cause(at, f"{shown(sni)} is in none of the hosts {', '.join(self.hosts)}: add it there")

    def _claim_problems(self) -> Iterator[Cause]:
        if self.is_delegate or (self.gateways and "mesh" not in self.gateways):
            return
        for index, route in enumerate(self.http):
            for number, match in enumerate(route.match):
                for path, names in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                    for name in names:
                        if name.startswith(CLAIM):
                            at = f"http[{index}].match[{number}].{path}[{name}]"
                            yield Cause(at, 'claims are for gateways alone: list gateways, without "mesh"')

    def _delegate_problems(self) -> Iterator[Cause]:
        if self.gateways:
            yield Cause(
                "gateways", "a delegate (one without hosts) has the gateways of its root: remove them, or add hosts"
            )
        if self.tls or self.tcp:
            yield Cause("tls" if self.tls else "tcp", "a delegate (one without hosts) has http routes alone: add hosts")
        for index, route in enumerate(self.http):
            if route.delegate is not None:
                yield Cause(f"http[{index}].delegate", "a delegate cannot delegate in turn: route from here")
            for cause in route.regex_problems():
                yield cause.below(f"http[{index}]")
            for number, match in enumerate(route.match):
                if match.gateways:
                    yield Cause(
                        f"http[{index}].match[{number}].gateways",
                        "a delegate has the gateways of its root: remove them",
                    )


def gateway_name_problems(gateways: tuple[str, ...], path: str = "gateways") -> Iterator[Cause]:
    """What is wrong with names of gateways: `mesh`, `name` or `namespace/name`."""
    for index, gateway in enumerate(gateways):
        at = f"{path}[{index}]"
        namespace, slash, name = gateway.rpartition("/")
        if gateway in gateways[:index]:
            yield Cause(at, f"{shown(gateway)} is there twice: remove one", Reason.DUPLICATE)
        elif (slash and namespace != "." and dns_label_complaint(namespace)) or domain_complaint(name):
            yield Cause(at, f'{shown(gateway)} is not a gateway: write "mesh", NAME or NAMESPACE/NAME')


def _subnet_problems(subnets: tuple[str, ...]) -> Iterator[Cause]:
    for index, subnet in enumerate(subnets):
        if not is_ip_or_cidr(subnet):
            yield Cause(
                f"destinationSubnets[{index}]", f"{shown(subnet)} is neither an address nor a range such as 10.0.0.0/8"
            )
