"""LOGICAL_DNS: one host, whose address is the first that its name resolves to at the moment.

Connections that are open stay when the address changes; new ones go to the new address.
"""

from __future__ import annotations

from random import Random

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.dns import Answer, Resolver
from sidecar.cluster.dns_refresh import Refresh
from sidecar.cluster.endpoints import assemble, make_host
from sidecar.cluster.host import Host
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.core.address import Address
from sidecar.core.timer_wheel import TimerWheel


class LogicalDns:
    """The discovery of such a cluster. As in Envoy, an answer without addresses is a failure, and a
    new address counts as a change of membership."""

    __slots__ = ("cluster", "config", "_refresh", "_host")

    def __init__(
        self, cluster: Cluster, config: ClusterConfig, resolver: Resolver, wheel: TimerWheel, random: Random
    ) -> None:
        self.cluster = cluster
        self.config = config
        target = config.load_assignment.endpoints[0].lb_endpoints[0].address
        self._refresh = Refresh(
            target, config.dns, cluster.stats, self._on_answer, resolver, wheel, random, empty_is_failure=True
        )
        self._host: Host | None = None

    def start(self) -> None:
        """Look the name up."""
        self._refresh.start()

    def close(self) -> None:
        """Look nothing up any more."""
        self._refresh.close()

    def _on_answer(self, answer: Answer) -> None:
        if answer.addresses:
            self._take_over(Address(answer.addresses[0], self._refresh.port))
        self.cluster.hosts_known()

    def _take_over(self, address: Address) -> None:
        host = self._host
        if host is not None:
            if host.address != address:
                host.address = address
                self.cluster.stats.membership_change += 1
            else:
                self.cluster.stats.update_no_rebuild += 1
            return
        assignment = self.config.load_assignment
        group = assignment.endpoints[0]
        self._host = make_host(group.lb_endpoints[0], group, address, self._refresh.name)
        self.cluster.update(assemble(assignment, [[self._host]], self.cluster.by_locality))

    def __repr__(self) -> str:
        return f"<LogicalDns {self.cluster.name}: {self._host}>"
