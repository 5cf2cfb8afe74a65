"""The servers of all Gateways that select a proxy, by the port that they share.

Source: Istio's reference, "Gateway"; names of route configurations as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controlplane.model.resource import Resource
from controlplane.model.service import PortProtocol, parse_protocol
from controlplane.pilot.hosts import covers
from controlplane.pilot.scope import Scope

EVERY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class GatewayServer:
    """One server of a Gateway. ``hosts`` are pairs of a namespace (`*` for all) and a host.

    ``port`` is what the Gateway says and what routes match; ``listens_on`` is another one where a Service stands before the
    gateway, and leads that port to another one of it.
    """

    gateway: Resource
    spec: Any
    protocol: PortProtocol
    hosts: tuple[tuple[str, str], ...]
    listens_on: int

    @property
    def gateway_name(self) -> str:
        """`NAMESPACE/NAME`, as virtual services are bound to it."""
        return f"{self.gateway.namespace}/{self.gateway.name}"

    @property
    def port(self) -> int:
        return int(self.spec.port.number)

    @property
    def bind(self) -> str:
        return self.spec.bind or EVERY_ADDRESS

    @property
    def terminates_tls(self) -> bool:
        """Whether it has a certificate and opens connections."""
        return self.spec.tls is not None and not self.spec.tls.https_redirect and self.spec.tls.terminates

    @property
    def is_http(self) -> bool:
        """Whether it routes requests one by one: plain HTTP, or HTTPS that it opens."""
        return self.protocol.is_http or (self.protocol is PortProtocol.HTTPS and self.terminates_tls)

    @property
    def route_name(self) -> str:
        """The name of its route configuration: plain servers of a port share one, each with TLS has its own."""
        bind = f".{self.spec.bind}" if self.spec.bind else ""
        if not self.terminates_tls:
            return f"http.{self.listens_on}{bind}"
        return f"https.{self.port}.{self.spec.port.name}.{self.gateway.name}.{self.gateway.namespace}"

    def served(self, owner: Resource, host: str) -> list[str]:
        """Under which names it serves a virtual service's host: the narrower of that and each of its own that meets it."""
        found = [
            host if covers(own, host) else own
            for namespace, own in self.hosts
            if namespace in ("*", owner.namespace) and (covers(own, host) or covers(host, own))
        ]
        return list(dict.fromkeys(found))


def servers_by_address(scope: Scope) -> dict[tuple[str, int], list[GatewayServer]]:
    """All servers of a router, by the address and port on which it listens, the oldest Gateway's first.

    What the first server of a port is decides what all of it is: with TLS or without, requests or connections.
    """
    found: dict[tuple[str, int], list[GatewayServer]] = {}
    for server in _servers(scope):
        same = found.setdefault((server.bind, server.listens_on), [])
        if not same or _kind(same[0]) == _kind(server):
            same.append(server)
    return found


def _kind(server: GatewayServer) -> str:
    if server.terminates_tls or server.protocol.is_tls:
        return "TLS"
    return "requests" if server.is_http else "connections"


def _servers(scope: Scope) -> Iterator[GatewayServer]:
    for gateway in scope.gateways:
        for spec in gateway.spec.servers:
            hosts = tuple(_host(host, gateway.namespace) for host in spec.hosts)
            protocol = parse_protocol(spec.port.protocol)
            if protocol is not PortProtocol.UDP:  # proxies route connections and requests
                yield GatewayServer(gateway, spec, protocol, hosts, scope.gateway_port(spec.port.number))


def _host(text: str, namespace: str) -> tuple[str, str]:
    space, slash, host = text.rpartition("/")
    return (namespace if space == "." else (space if slash else "*")), host.lower()
