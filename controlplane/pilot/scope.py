"""What generators see: the part of the mesh that a proxy may know, and who the proxy is.

The Translator calls, for each scope, `routes.route_configurations(scope)` and `listeners.outbound_listeners(scope)`
(of a router its gateways'), and for each proxy `listeners.inbound_listeners(workload)`. Each gives `Iterable[Generated]`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from controlplane.model.encoded import Encoded
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.proxy import Proxy
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Endpoint, Port, Service
from controlplane.pilot.memo import Memo
from controlplane.pilot.security.peer_authentication import NamespacePeers
from controlplane.pilot.security.policies import Policies


class Generated(NamedTuple):
    """An Envoy resource, and the resources that it was made from: those in whose statuses a NACK of it is written."""

    resource: Encoded
    causes: tuple[ResourceKey, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """The DestinationRules of one host, merged: what applies to it.

    ``traffic_policy`` is Istio's TrafficPolicy or None; ``subsets`` are by name. Compared by identity, and the same object
    as long as the DestinationRules are.
    """

    host: str
    namespace: str
    traffic_policy: Any
    subsets: Mapping[str, Any]
    sources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EgressListener:
    """One entry of a Sidecar's `egress`; without a Sidecar there is one, without a port, that sees everything visible.

    ``spec`` is Istio's IstioEgressListener or None. ``port`` is None for the one that takes all other ports.
    """

    spec: Any
    port: Port | None
    bind: str
    capture_mode: str
    services: Mapping[str, Service]
    virtual_services: Sequence[Resource]


class Scope(Protocol):
    """What the proxies of one scope see. Immutable: a change of the mesh makes another.

    Everything generated from it is shared by all proxies of the scope, so of ``proxy``, which is any one of them, only
    what the whole scope has in common may be looked at: type, namespace, labels, dns_domain, cluster_id, network, locality
    and metadata; never id, name or addresses. Those are for what is made from a `Workload`.
    """

    @property
    def proxy(self) -> Proxy: ...

    @property
    def mesh(self) -> MeshConfig:
        """The mesh's configuration, with Istio's defaults."""
        ...

    @property
    def memo(self) -> Memo:
        """Results that outlive the snapshot. Ask it for each piece that can be kept when its neighbours change (a
        virtual host, a filter chain), with a key of all that the piece is made from.
        """
        ...

    @property
    def steady(self) -> Hashable:
        """Equal as long as nothing changed of services, Sidecars and the mesh's configuration."""
        ...

    @property
    def rules(self) -> object:
        """The same object as long as no DestinationRule changed."""
        ...

    def rule_hosts_since(self, before: object) -> Collection[str]:
        """The hosts, maybe wildcards, of DestinationRules that are not what they were when `rules` was ``before``."""
        ...

    @property
    def services(self) -> Mapping[str, Service]:
        """Visible services by full hostname (wildcards by `*.domain`), in the order of creation, then of their names.

        Where namespaces have services of one hostname: the proxy's namespace first, then Kubernetes', then the oldest.
        """
        ...

    @property
    def sidecar(self) -> Resource | None:
        """The Sidecar that applies: one with a matching selector, else the namespace's, else the root namespace's."""
        ...

    @property
    def egress(self) -> Sequence[EgressListener]:
        """The Sidecar's egress listeners in their order, or the one that sees everything."""
        ...

    @property
    def outbound_policy(self) -> str:
        """`ALLOW_ANY` or `REGISTRY_ONLY`, of the Sidecar, else of the mesh."""
        ...

    @property
    def gateways(self) -> Sequence[Resource]:
        """Gateways that select this proxy (routers only), the oldest first."""
        ...

    def gateway_port(self, number: int) -> int:
        """Where a router listens for a port of a Gateway: the target of that port of a service that selects it (the oldest
        that has the port), else the same number.
        """
        ...

    @property
    def envoy_filters(self) -> Sequence[Resource]:
        """EnvoyFilters that select this proxy: of its namespace and of the root namespace."""
        ...

    @property
    def telemetries(self) -> Sequence[Resource]:
        """Telemetry resources of this proxy: of the root namespace, of its own, and those that select it."""
        ...

    @property
    def policies(self) -> Policies:
        """The policies of a gateway or of a gRPC server without a proxy, of which all in a scope have the labels that are asked
        for; what sidecars have is their own (`Workload`).
        """
        ...

    def peers(self, namespace: str) -> NamespacePeers:
        """What the workloads of a namespace take from those that call them (PeerAuthentication)."""
        ...

    def virtual_services(self, gateway: str = "mesh") -> Sequence[Resource]:
        """Visible VirtualServices bound to a gateway (`mesh`, or `NAMESPACE/NAME`), the oldest first.

        Delegates (VirtualServices without hosts) are not among them: `virtual_service` finds those.
        """
        ...

    def virtual_service(self, namespace: str, name: str, viewer: str) -> Resource | None:
        """A VirtualService by its name, if it is exported to the namespace ``viewer``: for delegates."""
        ...

    def destination_rule(self, hostname: str) -> Rule | None:
        """What applies to a destination: of the client's namespace, else the service's, else the root namespace."""
        ...

    def service(self, hostname: str) -> Service | None:
        """The visible service of that full hostname, or the one whose wildcard covers it most closely."""
        ...

    def secret(self, name: str) -> Resource | None:
        """The Secret of that name in the proxy's own namespace."""
        ...

    def resolve(self, host: str, namespace: str) -> str:
        """The full hostname for a host as a resource of ``namespace`` says it.

        A name without dots is a service of that namespace; `reviews.shop` and `reviews.shop.svc` stand for
        `reviews.shop.svc.cluster.local` if there is such a service and none of the short name; everything else is full.
        """
        ...

    def endpoints(self, service: Service) -> Sequence[Endpoint]:
        """The endpoints of a service. What is made from them is not made anew when they alone change: for names and
        addresses that are asked for once, not for balancing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """One port of a service that this workload serves. ``number`` is the workload's own port."""

    service: Service
    port: Port
    number: int


class Workload(Protocol):
    """One proxy with what is its own: what inbound listeners and clusters are made from."""

    @property
    def proxy(self) -> Proxy: ...

    @property
    def scope(self) -> Scope: ...

    @property
    def targets(self) -> Sequence[Target]:
        """The ports of services whose endpoint this workload is (`proxy_services`), by number, then by service's age."""
        ...

    @property
    def policies(self) -> Policies:
        """The policies of this workload."""
        ...

    @property
    def address(self) -> str:
        """The advertised address, on which inbound listeners bind if nothing is captured."""
        ...

    def application(self, number: int) -> str:
        """Where the application itself listens for what comes in on a port: `HOST:PORT` or `unix:///PATH`.

        From the node's metadata `APP_ENDPOINTS`, a mapping of inbound ports (as text) to addresses; else 127.0.0.1 and the
        same port.
        """
        ...
