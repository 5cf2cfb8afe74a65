"""EDS: the hosts of a cluster as a management server names them, changed in place as it says.

Source: Envoy's "Endpoint discovery service (EDS)" and `envoy.config.endpoint.v3.ClusterLoadAssignment`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.endpoints import assemble, make_host
from sidecar.cluster.host import Host, address_of
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from sidecar.core.address import Address
from sidecar.core.timer_wheel import Callback, TimerWheel

_NOTHING = ClusterLoadAssignment("")


class Subscriber(Protocol):
    """Whom assignments are for."""

    def assign(self, assignment: ClusterLoadAssignment) -> None: ...

    def missing(self) -> None: ...

    def unassigned(self) -> None: ...


Subscribe = Callable[[Subscriber], Callable[[], None]]
"""Asks for the assignments of one cluster; what it returns ends that."""


class EndpointDiscovery:
    """The discovery of an EDS cluster, which is initialised by the first assignment, or when nobody sends one in time.

    A host that stays is the same object with its pool, health, outlier detection and statistics, whatever else is said of it.
    """

    __slots__ = ("cluster", "_assignment", "_close", "_closed", "_stale", "_subscribe", "_wheel")

    def __init__(self, cluster: Cluster, subscribe: Subscribe, wheel: TimerWheel) -> None:
        self.cluster = cluster
        self._assignment: ClusterLoadAssignment | None = None
        self._subscribe = subscribe
        self._close: Callable[[], None] | None = None
        self._closed = False
        self._stale: Callback | None = None
        self._wheel = wheel

    def start(self) -> None:
        """Ask for the first assignment."""
        self._close = self._subscribe(self)

    def close(self) -> None:
        """Hear of no further one."""
        self._closed = True
        if self._close is not None:
            self._close()
            self._close = None
        if self._stale is not None:
            self._wheel.cancel(self._stale)

    def assign(self, assignment: ClusterLoadAssignment) -> None:
        """These are the endpoints from now on."""
        if self._closed:
            return
        if self._stale is not None:
            self._wheel.cancel(self._stale)
            self._stale = None
        if assignment.policy.endpoint_stale_after:
            self.cluster.stats.assignment_timeout_received += 1
            self._stale = self._wheel.call_in(assignment.policy.endpoint_stale_after, self._on_stale)
        self._take_over(assignment)
        self.cluster.hosts_known()

    def missing(self) -> None:
        """There is no assignment: what there was before holds."""
        self.cluster.stats.update_empty += 1
        self.cluster.hosts_known()

    def unassigned(self) -> None:
        """Nobody has said which they are, and who waits for them has waited long enough."""
        self.cluster.hosts_known()

    def _on_stale(self) -> None:
        self._stale = None
        self.cluster.stats.assignment_stale += 1
        self._take_over(_NOTHING)

    def _take_over(self, assignment: ClusterLoadAssignment) -> None:
        if assignment == self._assignment:
            self.cluster.stats.update_no_rebuild += 1
            return
        self._assignment = assignment
        cluster = self.cluster
        before = {host.address: host for host in cluster.hosts}
        seen: set[Address] = set()
        hosts: list[tuple[Host, ...]] = []
        for group in assignment.endpoints:
            for endpoint in group.lb_endpoints:
                address = address_of(endpoint.address)
                if address in seen:  # as in Envoy, the first counts
                    hosts.append(())
                    continue
                seen.add(address)
                host = before.get(address)
                if host is None or self._is_another(host, endpoint, group):
                    host = make_host(endpoint, group, address)
                else:
                    host.weight = endpoint.load_balancing_weight
                    host.priority = group.priority
                    host.metadata = endpoint.metadata
                    if host.health_status != endpoint.health_status:
                        host.set_health_status(endpoint.health_status)
                hosts.append((host,))
        cluster.stats.max_host_weight = max((host.weight for one in hosts for host in one), default=1)
        cluster.update(assemble(assignment, hosts, cluster.by_locality))

    def _is_another(self, host: Host, endpoint: LbEndpoint, group: LocalityLbEndpoints) -> bool:
        """Whether what is said of an endpoint makes it another host: where it is checked, or by what TLS it is spoken to."""
        return (
            host.locality != group.locality
            or host.hostname != endpoint.hostname
            or host.health_check != endpoint.health_check_config
            or (bool(self.cluster.config.transport_socket_matches) and host.metadata != endpoint.metadata)
        )

    def __repr__(self) -> str:
        return f"<EndpointDiscovery {self.cluster.name}: {self._assignment and len(self._assignment.endpoints)} groups>"
