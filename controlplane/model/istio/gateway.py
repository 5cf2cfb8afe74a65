"""Gateway: what a proxy at the edge of the mesh listens for (Istio reference: networking/gateway)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.selection import selector_problems
from controlplane.model.istio.tls import ServerTLSSettings
from controlplane.model.resource import Model
from controlplane.model.values import (
    Port as PortNumber,
)
from controlplane.model.values import (
    Str,
    dns_label_complaint,
    is_ip,
    shown,
    wildcard_domain_complaint,
)

PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "MYSQL", "REDIS", "TCP", "TLS", "UDP")
"""Protocols as resources name them, without regard to case."""


def protocol_problems(protocol: str, path: str = "protocol") -> Iterator[Cause]:
    """What is wrong with the name of a protocol."""
    if not protocol:
        yield Cause(path, f"is required: use one of {', '.join(PROTOCOLS)}", Reason.REQUIRED)
    elif protocol.upper() not in PROTOCOLS:
        yield Cause(
            path, f"{shown(protocol)} is not a protocol: use one of {', '.join(PROTOCOLS)}", Reason.NOT_SUPPORTED
        )


class Port(Model):
    """A port with its protocol and name."""

    number: PortNumber
    protocol: Str
    name: Str
    target_port: PortNumber | None = None

    def problems(self) -> Iterable[Cause]:
        yield from protocol_problems(self.protocol)
        if not self.name:
            yield Cause("name", "is required: name the port", Reason.REQUIRED)


class Server(Model):
    """One port that is listened on, and the hosts that are served there."""

    port: Port
    bind: Str | None = None
    hosts: tuple[Str, ...] = ()
    tls: ServerTLSSettings | None = None
    default_endpoint: Str | None = None
    name: Str | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.hosts:
            yield Cause("hosts", 'is required: name the hosts that are served, or "*"', Reason.REQUIRED)
        for index, host in enumerate(self.hosts):
            if complaint := gateway_host_complaint(host):
                yield Cause(f"hosts[{index}]", complaint)
        if self.bind and not is_ip(self.bind):
            yield Cause("bind", f"{shown(self.bind)} is not an address: give an IP")
        if self.port.target_port is not None:
            yield Cause("port.targetPort", "a gateway listens where it says: remove the field")
        yield from self._tls_problems()

    def _tls_problems(self) -> Iterator[Cause]:
        protocol = self.port.protocol.upper()
        secure = protocol in ("HTTPS", "TLS")
        if secure and self.tls is None:
            yield Cause("tls", f"is required for protocol {protocol}: say how TLS is done", Reason.REQUIRED)
        if self.tls is None:
            return
        plain_http = protocol in ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
        if not secure and not (plain_http and not self.tls.terminates):
            yield Cause("tls", f"has no effect for protocol {protocol}: use HTTPS or TLS, or remove it")
        if protocol == "HTTPS" and self.tls.mode == "AUTO_PASSTHROUGH":
            yield Cause("tls.mode", "AUTO_PASSTHROUGH is for protocol TLS: change one of them", Reason.NOT_SUPPORTED)


class Gateway(Model):
    """Servers of the proxies with the labels of ``selector``."""

    servers: tuple[Server, ...] = ()
    selector: Mapping[Str, Str] = Field(default_factory=dict)

    def problems(self) -> Iterable[Cause]:
        if not self.servers:
            yield Cause("servers", "is required: add at least one server", Reason.REQUIRED)
        yield from selector_problems(self.selector, "selector")
        port_names: dict[str, int] = {}
        server_names: dict[str, int] = {}
        protocols: dict[tuple[int, str], str] = {}
        for index, server in enumerate(self.servers):
            if port_names.setdefault(server.port.name, index) != index:
                at = f"servers[{index}].port.name"
                yield Cause(at, f"{shown(server.port.name)} names another port too: rename one", Reason.DUPLICATE)
            if server.name and server_names.setdefault(server.name, index) != index:
                at = f"servers[{index}].name"
                yield Cause(at, f"{shown(server.name)} names another server too: rename one", Reason.DUPLICATE)
            plain = "TLS" if server.port.protocol.upper() in ("HTTPS", "TLS") else "plain"
            where = (server.port.number, server.bind or "")
            if protocols.setdefault(where, plain) != plain:
                at = f"servers[{index}].port.protocol"
                yield Cause(at, f"port {server.port.number} has a server with TLS and one without: use two ports")


def gateway_host_complaint(host: str) -> str:
    """Why a text is no host of a server: a domain name, maybe with a wildcard, maybe behind `NAMESPACE/`."""
    namespace, slash, name = host.rpartition("/")
    if slash and namespace not in ("*", ".") and (complaint := dns_label_complaint(namespace)):
        return f'{complaint}; before the slash stands a namespace, "." or "*"'
    return "" if is_ip(name) else wildcard_domain_complaint(name)
