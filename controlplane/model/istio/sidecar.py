"""Sidecar: what a workload's proxy takes in and what it reaches (Istio reference: networking/sidecar)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.destination import Destination
from controlplane.model.istio.gateway import protocol_problems
from controlplane.model.istio.selection import LabelSelector
from controlplane.model.istio.tls import ServerTLSSettings
from controlplane.model.istio.traffic_policy import ConnectionPoolSettings
from controlplane.model.resource import Model
from controlplane.model.values import (
    Port,
    Str,
    dns_label_complaint,
    is_ip,
    is_port,
    shown,
    unix_socket_complaint,
    wildcard_domain_complaint,
)

CaptureMode = Literal["DEFAULT", "IPTABLES", "NONE"]


class SidecarPort(Model):
    """A port of a listener; those of egress may be of a unix socket, with number 0 or none."""

    number: Port | None = None
    protocol: Str | None = None
    name: Str | None = None
    target_port: Port | None = None

    def problems(self) -> Iterable[Cause]:
        if self.name and (complaint := dns_label_complaint(self.name)):
            yield Cause("name", complaint)
        if self.protocol:
            yield from protocol_problems(self.protocol)
        if self.target_port is not None:
            yield Cause("targetPort", "a listener hands on where defaultEndpoint says: remove the field")


class IstioIngressListener(Model):
    """A listener for the workload's own traffic, and where the application is (`defaultEndpoint`)."""

    port: SidecarPort
    bind: Str | None = None
    capture_mode: CaptureMode = "DEFAULT"
    default_endpoint: Str | None = None
    tls: ServerTLSSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None

    def problems(self) -> Iterable[Cause]:
        if self.port.number is None:
            yield Cause("port.number", "is required: give the port that is listened on", Reason.REQUIRED)
        if self.bind and not is_ip(self.bind):
            yield Cause("bind", f"{shown(self.bind)} is not an address: an ingress listener binds to an IP")
        if self.default_endpoint and (complaint := endpoint_complaint(self.default_endpoint)):
            yield Cause("defaultEndpoint", complaint)
        if self.tls is not None:
            if self.tls.mode not in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
                yield Cause("tls.mode", f"must be SIMPLE or MUTUAL at an ingress listener, not {self.tls.mode}")
            if self.tls.https_redirect:
                yield Cause("tls.httpsRedirect", "is of gateways alone: remove it")
            for name in ("credential_name", "credential_names", "tls_certificates", "subject_alt_names"):
                if getattr(self.tls, name):
                    at = f"tls.{type(self.tls).model_fields[name].alias}"
                    yield Cause(at, "is of gateways alone: give serverCertificate and privateKey, by files")
            if (self.port.protocol or "").upper() not in ("HTTPS", "TLS"):
                yield Cause("tls", f"needs protocol HTTPS or TLS, not {self.port.protocol}: change the port's protocol")


class IstioEgressListener(Model):
    """What is reachable, at a port of its own or (without ``port``) at those that nobody else has."""

    port: SidecarPort | None = None
    bind: Str | None = None
    capture_mode: CaptureMode = "DEFAULT"
    hosts: tuple[Str, ...] = ()

    def problems(self) -> Iterable[Cause]:
        if not self.hosts:
            yield Cause("hosts", 'is required: write NAMESPACE/HOST, such as "./*"', Reason.REQUIRED)
        for index, host in enumerate(self.hosts):
            if complaint := egress_host_complaint(host):
                yield Cause(f"hosts[{index}]", complaint)
        unix = (self.bind or "").startswith("unix://")
        if self.bind and not unix and not is_ip(self.bind):
            yield Cause("bind", f"{shown(self.bind)} is not an address: give an IP or unix:///path")
        elif self.bind and unix and (complaint := unix_socket_complaint(self.bind)):
            yield Cause("bind", complaint)
        if self.port is None and self.bind:
            yield Cause("bind", "needs a port: give one, or remove it")
        if self.port is not None and self.port.number is None and not unix:
            yield Cause("port.number", "is required: give the port that is listened on", Reason.REQUIRED)
        if unix and self.capture_mode == "IPTABLES":
            yield Cause("captureMode", "a unix socket cannot be captured: use DEFAULT or NONE")


class OutboundTrafficPolicy(Model):
    """What becomes of traffic to hosts that the mesh does not know."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    egress_proxy: Destination | None = None

    def problems(self) -> Iterable[Cause]:
        if self.egress_proxy is not None and self.mode != "ALLOW_ANY":
            yield Cause("egressProxy", "is for mode ALLOW_ANY: change the mode, or remove it")
        if self.egress_proxy is not None and self.egress_proxy.port is None:
            yield Cause("egressProxy.port", "is required: give the port's number", Reason.REQUIRED)


class Sidecar(Model):
    """The scope of the workloads of a namespace, or of those that are selected."""

    workload_selector: LabelSelector | None = None
    ingress: tuple[IstioIngressListener, ...] = ()
    egress: tuple[IstioEgressListener, ...] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_connection_pool: ConnectionPoolSettings | None = None

    def problems(self) -> Iterable[Cause]:
        if not (self.egress or self.ingress or self.outbound_traffic_policy or self.inbound_connection_pool):
            yield Cause("", "says nothing: give egress, ingress or outboundTrafficPolicy", Reason.REQUIRED)
        taken: set[int | None] = set()
        for index, ingress in enumerate(self.ingress):
            if ingress.port.number in taken:
                at = f"ingress[{index}].port.number"
                yield Cause(at, f"{ingress.port.number} has a listener already: merge them", Reason.DUPLICATE)
            taken.add(ingress.port.number)
        yield from self._egress_problems()

    def _egress_problems(self) -> Iterator[Cause]:
        taken: set[tuple[int | None, str]] = set()
        for index, egress in enumerate(self.egress):
            if egress.port is None:
                if index != len(self.egress) - 1:
                    yield Cause(f"egress[{index}]", "the listener without a port is for all that is left: put it last")
                continue
            where = (egress.port.number, egress.bind or "")
            if where in taken:
                at = f"egress[{index}].port.number"
                yield Cause(at, f"{egress.port.number} has a listener already: merge them", Reason.DUPLICATE)
            taken.add(where)


def endpoint_complaint(endpoint: str) -> str:
    """Why a text is not where an application is: `127.0.0.1:PORT`, `0.0.0.0:PORT`, `[::1]:PORT` or `unix:///path`."""
    if endpoint.startswith("unix://"):
        return unix_socket_complaint(endpoint)
    address, colon, port = endpoint.rpartition(":")
    if not colon or not is_port(port):
        return f"{shown(endpoint)} is not an endpoint: write 127.0.0.1:PORT, 0.0.0.0:PORT or unix:///path"
    if address.strip("[]") not in ("", "127.0.0.1", "0.0.0.0", "::1", "::"):
        return f"{shown(address)} is not the application's address: use 127.0.0.1, 0.0.0.0, [::1] or [::]"
    return ""


def egress_host_complaint(host: str) -> str:
    """Why a text is no host of an egress listener: `NAMESPACE/HOST`, with `.`, `*` or `~` for the namespace."""
    namespace, slash, name = host.partition("/")
    if not slash:
        return f'{shown(host)} lacks its namespace: write "./{host}" for this namespace, "*/{host}" for any'
    if namespace not in (".", "*", "~") and (complaint := dns_label_complaint(namespace)):
        return f'{complaint}; before the slash stands a namespace, ".", "*" or "~"'
    if namespace == "~" and name != "*":
        return f'{shown(host)} selects nothing: "~" stands before "*" alone'
    return wildcard_domain_complaint(name)
