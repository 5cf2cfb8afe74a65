"""Services and their endpoints: what all sources of them (Service, ServiceEntry, WorkloadEntry, Pod, ...) amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from controlplane.model.proxy import NOWHERE, Locality
from controlplane.model.resource import ResourceKey


class PortProtocol(StrEnum):
    """What is spoken on a port, by Istio's protocol selection. AUTO is found out from the bytes of each connection."""

    AUTO = "AUTO"
    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    GRPC_WEB = "GRPC-Web"
    HTTPS = "HTTPS"
    TLS = "TLS"
    TCP = "TCP"
    MONGO = "Mongo"
    REDIS = "Redis"
    MYSQL = "MySQL"
    UDP = "UDP"

    @property
    def is_http(self) -> bool:
        """Whether requests can be routed one by one: HTTP in plain text, of any version."""
        return self in _HTTP

    @property
    def is_http2(self) -> bool:
        """Whether upstream connections are HTTP/2 from the start."""
        return self in _HTTP2

    @property
    def is_tls(self) -> bool:
        """Whether the application itself speaks TLS, so that only the server name can be routed by."""
        return self in (PortProtocol.HTTPS, PortProtocol.TLS)

    @property
    def is_tcp(self) -> bool:
        """Whether connections are opaque: neither HTTP in plain text nor to be found out."""
        return not (self in _HTTP or self in (PortProtocol.AUTO, PortProtocol.UDP))


_HTTP = frozenset({PortProtocol.HTTP, PortProtocol.HTTP2, PortProtocol.GRPC, PortProtocol.GRPC_WEB})
_HTTP2 = frozenset({PortProtocol.HTTP2, PortProtocol.GRPC, PortProtocol.GRPC_WEB})
_BY_NAME = {protocol.value.lower(): protocol for protocol in PortProtocol if protocol is not PortProtocol.AUTO}
_APP_PROTOCOLS = {
    "kubernetes.io/h2c": PortProtocol.HTTP2,
    "kubernetes.io/ws": PortProtocol.HTTP,
    "kubernetes.io/wss": PortProtocol.HTTPS,
}
_SERVER_FIRST = frozenset({25, 53, 3306, 27017})  # SMTP, DNS, MySQL, MongoDB: detection would wait for the client


def parse_protocol(text: str) -> PortProtocol:
    """The protocol that a name stands for, in any case; AUTO for what is none.

    Source: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
    """
    return _BY_NAME.get(text.lower(), PortProtocol.AUTO)


def select_protocol(number: int, name: str = "", app_protocol: str = "", transport: str = "TCP") -> PortProtocol:
    """The protocol of a Kubernetes port: `appProtocol`, else the port's name, up to the first hyphen, else detection.

    Ports of no known protocol on which by custom the server speaks first are TCP: detection would wait in vain.

    Source: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
    """
    if transport.upper() == "UDP":
        return PortProtocol.UDP
    if app_protocol:
        known = _APP_PROTOCOLS.get(app_protocol.lower())
        if known is not None:
            return known
    lower = (app_protocol or name).lower()
    if lower == "grpc-web" or lower.startswith("grpc-web-"):
        return PortProtocol.GRPC_WEB
    found = parse_protocol(lower.partition("-")[0])
    if found is PortProtocol.AUTO and number in _SERVER_FIRST:
        return PortProtocol.TCP
    return found


class Resolution(StrEnum):
    """How a proxy finds the addresses of a service, as in ServiceEntry's `resolution`."""

    NONE = "NONE"  # the address that the connection already has
    STATIC = "STATIC"  # the endpoints that are known here
    DNS = "DNS"  # all that the name answers
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"  # the first that the name answers, for each new connection


class Health(StrEnum):
    """What is known of an endpoint, in Envoy's words."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"


class ServiceKey(NamedTuple):
    """What tells services apart: two namespaces may have ServiceEntries of one host.

    ``part`` is empty for what all resources of a namespace and host make together, else it has the names of those of which
    some namespaces see no more.
    """

    namespace: str
    hostname: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service. ``target`` is where endpoints listen: a number, a name of theirs, or 0 for the same number."""

    number: int
    name: str = ""
    protocol: PortProtocol = PortProtocol.AUTO
    target: int | str = 0


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service, whatever it was made from. A change makes another object, a change of its endpoints does not.

    ``hostname`` is full, or begins with `*.`. ``addresses`` are its own (virtual ones, or CIDR blocks), not its
    endpoints'. ``export_to`` holds names of namespaces, or `*` for all but those in ``hidden_from``; ``part`` is of the
    `ServiceKey`. ``selector`` chooses workloads of its namespace;
    without one, endpoints are listed. ``origins`` are the resources that it was made from, the first one leads.
    ``publish_not_ready`` counts endpoints as healthy that are not ready. ``external_name`` is the DNS name that stands for
    it, where it is but another name. ``created`` is in seconds since the epoch.
    """

    hostname: str
    namespace: str
    name: str
    ports: tuple[Port, ...]
    origins: tuple[ResourceKey, ...]
    resolution: Resolution = Resolution.STATIC
    addresses: tuple[str, ...] = ()
    export_to: frozenset[str] = frozenset({"*"})
    hidden_from: frozenset[str] = frozenset()
    part: str = ""
    mesh_external: bool = False
    headless: bool = False
    publish_not_ready: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    subject_alt_names: tuple[str, ...] = ()
    external_name: str = ""
    created: float = 0.0

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(self.namespace, self.hostname, self.part)

    @property
    def wildcard(self) -> bool:
        """Whether it stands for all names below a domain."""
        return self.hostname.startswith("*")

    def port(self, number: int) -> Port | None:
        """The port of that number."""
        for port in self.ports:
            if port.number == number:
                return port
        return None

    def visible_to(self, namespace: str) -> bool:
        """Whether `exportTo` shows it to proxies of a namespace."""
        return namespace in self.export_to or ("*" in self.export_to and namespace not in self.hidden_from)

    def __repr__(self) -> str:
        return f"<Service {self.hostname} of {self.origins[0]}>"


class Identities(NamedTuple):
    """Who the endpoints of a service are: the service accounts that they run as, and whether all of them take mutual TLS."""

    accounts: frozenset[str] = frozenset()
    mutual: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One workload behind a service.

    ``address`` is an IP address, a DNS name, or `unix:///path`. ``ports`` has for each of the service's port numbers the
    endpoint's own. ``weight`` 0 stands for none given. ``tls_mode`` is `istio` where a sidecar accepts mutual TLS.
    ``workload`` is the resource that it was made from.
    """

    address: str
    ports: Mapping[int, int]
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: Locality = NOWHERE
    weight: int = 0
    health: Health = Health.HEALTHY
    service_account: str = ""
    network: str = ""
    tls_mode: str = "disabled"
    workload: ResourceKey | None = None


def identities(endpoints: Sequence[Endpoint]) -> Identities:
    """Who these endpoints are. Clients verify servers by it, so that clusters are made anew when it changes."""
    if not endpoints:
        return _NOBODY
    accounts = frozenset([endpoint.service_account for endpoint in endpoints]) - _UNTOLD
    return Identities(accounts, all(endpoint.tls_mode == MUTUAL_TLS for endpoint in endpoints))


MUTUAL_TLS = "istio"
"""The `tls_mode` of endpoints whose sidecar takes mutual TLS."""

_UNTOLD = frozenset({""})
_NOBODY = Identities()
