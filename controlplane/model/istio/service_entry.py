"""ServiceEntry: a service that nobody else tells of (Istio reference: networking/service-entry)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.gateway import protocol_problems
from controlplane.model.istio.selection import LabelSelector, export_to_problems
from controlplane.model.istio.workload_entry import WorkloadEntry
from controlplane.model.oneof import exclusive
from controlplane.model.resource import Model
from controlplane.model.values import (
    Port,
    Str,
    dns_label_complaint,
    is_ip,
    is_ip_or_cidr,
    shown,
    wildcard_domain_complaint,
)

_TELLS_HOSTS_APART = frozenset(("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS"))


class ServicePort(Model):
    """A port of a service. ``target_port`` is the endpoints', where it is another one."""

    number: Port
    protocol: Str | None = None
    name: Str
    target_port: Port | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.name:
            yield Cause("name", "is required: name the port", Reason.REQUIRED)
        elif complaint := dns_label_complaint(self.name.lower()):
            yield Cause("name", complaint)
        if self.protocol:
            yield from protocol_problems(self.protocol)


class ServiceEntry(Model):
    """Hosts, their ports, and where their endpoints come from."""

    hosts: tuple[Str, ...]
    addresses: tuple[Str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"] = "NONE"
    endpoints: tuple[WorkloadEntry, ...] = ()
    workload_selector: LabelSelector | None = None
    export_to: tuple[Str, ...] = ()
    subject_alt_names: tuple[Str, ...] = ()

    def problems(self) -> Iterable[Cause]:
        yield from self._host_problems()
        yield from self._port_problems()
        for index, address in enumerate(self.addresses):
            if not is_ip_or_cidr(address):
                yield Cause(
                    f"addresses[{index}]", f"{shown(address)} is neither an address nor a range such as 10.0.0.0/8"
                )
        if self.workload_selector is not None:
            yield from exclusive(self, "endpoints", "workload_selector")
        yield from self._resolution_problems()
        yield from export_to_problems(self.export_to, nobody=True)

    def _host_problems(self) -> Iterator[Cause]:
        if not self.hosts:
            yield Cause("hosts", "is required: name the service", Reason.REQUIRED)
        for index, host in enumerate(self.hosts):
            at = f"hosts[{index}]"
            if host == "*":
                yield Cause(at, '"*" is every host: name one, or use a wildcard such as "*.example.com"')
            elif host in self.hosts[:index]:
                yield Cause(at, f"{shown(host)} is there twice: remove one", Reason.DUPLICATE)
            elif complaint := wildcard_domain_complaint(host):
                yield Cause(at, complaint)

    def _port_problems(self) -> Iterator[Cause]:
        for path, values in (
            ("number", [port.number for port in self.ports]),
            ("name", [port.name for port in self.ports]),
        ):
            for index, value in enumerate(values):
                if value in values[:index]:
                    yield Cause(
                        f"ports[{index}].{path}", f"{shown(value)} is there twice: change one", Reason.DUPLICATE
                    )

    def _resolution_problems(self) -> Iterator[Cause]:
        names = {port.name for port in self.ports}
        for index, endpoint in enumerate(self.endpoints):
            at = f"endpoints[{index}]"
            for name in endpoint.ports:
                if name not in names:
                    yield Cause(
                        f"{at}.ports[{name}]", f"the service has no port {shown(name)}: use one of its ports' names"
                    )
            yield from self._address_problems(endpoint, at)
        dns = self.resolution in ("DNS", "DNS_ROUND_ROBIN")
        if self.resolution == "NONE" and self.endpoints:
            yield Cause("endpoints", "have no effect with resolution NONE: remove them, or use STATIC or DNS")
        if self.resolution == "DNS_ROUND_ROBIN" and len(self.endpoints) > 1:
            yield Cause("endpoints", "DNS_ROUND_ROBIN has one endpoint at most: keep one, or use DNS")
        for index, host in enumerate(self.hosts):
            if dns and not self.endpoints and "*" in host:
                yield Cause(
                    f"hosts[{index}]", f"{shown(host)} cannot be resolved: give endpoints, or use resolution NONE"
                )
        for index, address in enumerate(self.addresses):
            if dns and "/" in address:
                yield Cause(f"addresses[{index}]", f"a range needs resolution NONE or STATIC, not {self.resolution}")
        if self.resolution != "NONE" and len(self.hosts) > 1:
            for index, port in enumerate(self.ports):
                if (port.protocol or "").upper() not in _TELLS_HOSTS_APART:
                    yield Cause(
                        f"ports[{index}].protocol",
                        f"{port.protocol or 'none'} does not tell the hosts apart: use a protocol of HTTP or TLS, or one host",
                    )

    def _address_problems(self, endpoint: WorkloadEntry, at: str) -> Iterator[Cause]:
        address = endpoint.address or ""
        unix = address.startswith("unix://")
        if self.resolution == "STATIC" and address and not is_ip(address) and not unix:
            yield Cause(f"{at}.address", f"{shown(address)} is not an IP: use resolution DNS for names")
        elif self.resolution in ("DNS", "DNS_ROUND_ROBIN") and unix:
            yield Cause(f"{at}.address", "a unix socket needs resolution STATIC: change one of them")
        if unix and len(self.ports) > 1:
            yield Cause(f"{at}.address", "a unix socket serves one port alone: remove the other ports")
