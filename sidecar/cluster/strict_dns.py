"""STRICT_DNS: every address that a name resolves to is a host, and leaves when it is no longer among the answers."""

from __future__ import annotations

from functools import partial
from random import Random

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.dns import Answer, Resolver
from sidecar.cluster.dns_refresh import Refresh
from sidecar.cluster.endpoints import assemble, make_host
from sidecar.cluster.host import Host
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.core.address import Address
from sidecar.core.timer_wheel import TimerWheel


class StrictDns:
    """The discovery of such a cluster. As in Envoy, the first answer for any of its names initialises the cluster."""

    __slots__ = ("cluster", "config", "_refreshes", "_endpoints", "_hosts")

    def __init__(
        self, cluster: Cluster, config: ClusterConfig, resolver: Resolver, wheel: TimerWheel, random: Random
    ) -> None:
        self.cluster = cluster
        self.config = config
        self._endpoints = [
            (endpoint, group) for group in config.load_assignment.endpoints for endpoint in group.lb_endpoints
        ]
        self._hosts: list[list[Host]] = [[] for _ in self._endpoints]
        self._refreshes = [
            Refresh(endpoint.address, config.dns, cluster.stats, partial(self._on_answer, at), resolver, wheel, random)
            for at, (endpoint, _) in enumerate(self._endpoints)
        ]

    def start(self) -> None:
        """Look all names up."""
        if not self._refreshes:
            self.cluster.hosts_known()
        for refresh in self._refreshes:
            refresh.start()

    def close(self) -> None:
        """Look nothing up any more."""
        for refresh in self._refreshes:
            refresh.close()

    def _on_answer(self, at: int, answer: Answer) -> None:
        if not answer.failed:
            self._take_over(at, answer)
        self.cluster.hosts_known()

    def _take_over(self, at: int, answer: Answer) -> None:
        """Hosts that were there stay the same objects."""
        refresh, (endpoint, group) = self._refreshes[at], self._endpoints[at]
        before = {host.address.ip: host for host in self._hosts[at]}
        if before.keys() == set(answer.addresses):
            self.cluster.stats.update_no_rebuild += 1
            return
        lingering = self.cluster.lingering()
        found = [Address(ip, refresh.port) for ip in answer.addresses]
        self._hosts[at] = [
            before.get(address.ip) or lingering.get(address) or make_host(endpoint, group, address, refresh.name)
            for address in found
        ]
        self.cluster.stats.max_host_weight = max((host.weight for hosts in self._hosts for host in hosts), default=1)
        self.cluster.update(assemble(self.config.load_assignment, self._hosts, self.cluster.by_locality))

    def __repr__(self) -> str:
        return f"<StrictDns {self.cluster.name}: {len(self._refreshes)} names>"
