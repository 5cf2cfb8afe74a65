"""The hosts of one priority, as balancers see them: all, healthy, degraded, and by locality."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.cluster.host import Host
from sidecar.config.core_types import Locality

Hosts = tuple[Host, ...]


class LocalityHosts:
    """The hosts of one locality at one priority, and the weight that the assignment gives it (0: not said)."""

    __slots__ = ("locality", "weight", "hosts", "healthy", "degraded", "excluded")

    def __init__(self, locality: Locality, weight: int, hosts: Hosts) -> None:
        self.locality = locality
        self.weight = weight
        self.hosts = hosts
        self.healthy, self.degraded = by_health(hosts)
        self.excluded = count_excluded(hosts, self.healthy)


class HostSet:
    """An immutable snapshot of a priority; made anew whenever membership or health changes.

    `localities` is empty where nothing goes by them. `overprovisioning_factor` is in percent; with
    `weighted_priority_health` it is weights that say how well the priority is, not numbers of hosts. `excluded` is how
    many of the hosts do not count where shares are made.
    """

    __slots__ = (
        "priority",
        "hosts",
        "healthy",
        "degraded",
        "excluded",
        "localities",
        "overprovisioning_factor",
        "weighted_priority_health",
    )

    def __init__(
        self,
        priority: int,
        hosts: Hosts,
        localities: tuple[LocalityHosts, ...] = (),
        overprovisioning_factor: int = 140,
        weighted_priority_health: bool = False,
    ) -> None:
        self.priority = priority
        self.hosts = hosts
        self.healthy, self.degraded = by_health(hosts)
        self.excluded = count_excluded(hosts, self.healthy)
        self.localities = localities
        self.overprovisioning_factor = overprovisioning_factor
        self.weighted_priority_health = weighted_priority_health

    def refreshed(self) -> HostSet:
        """The same hosts with their health as it is now."""
        return self._with(self.hosts, lambda hosts: hosts)

    def filtered(self, keep: Callable[[Host], bool]) -> HostSet:
        """Only the hosts that `keep` accepts, in the same localities."""
        return self._with(_select(self.hosts, keep), lambda hosts: _select(hosts, keep))

    def joined(self, hosts: Hosts) -> HostSet:
        """With further hosts, in their localities."""
        if not hosts:
            return self
        of_localities = [(part.locality, part.weight, part.hosts) for part in self.localities]
        if of_localities:
            for locality in dict.fromkeys(host.locality for host in hosts):
                more = tuple(host for host in hosts if host.locality == locality)
                at = next((at for at, part in enumerate(of_localities) if part[0] == locality), None)
                if at is None:
                    of_localities.append((locality, 0, more))
                else:
                    of_localities[at] = (*of_localities[at][:2], of_localities[at][2] + more)
        joined = self.refreshed()
        joined.hosts = self.hosts + hosts
        joined.localities = tuple(LocalityHosts(*part) for part in of_localities)
        return joined.refreshed()

    def _with(self, hosts: Hosts, of_locality: Callable[[Hosts], Hosts]) -> HostSet:
        localities = tuple(
            LocalityHosts(part.locality, part.weight, of_locality(part.hosts)) for part in self.localities
        )
        return HostSet(self.priority, hosts, localities, self.overprovisioning_factor, self.weighted_priority_health)

    def __repr__(self) -> str:
        return f"<HostSet priority {self.priority}: {len(self.healthy)} of {len(self.hosts)} healthy>"


HostSets = tuple[HostSet, ...]
"""All priorities of a cluster, the first choice first; there is always at least one."""


def by_health(hosts: Hosts) -> tuple[Hosts, Hosts]:
    """The healthy and the degraded hosts. If all are healthy they are the very tuple that came in."""
    healthy = tuple(host for host in hosts if host.usable and not host.degraded)
    if len(healthy) == len(hosts):
        return hosts, ()
    return healthy, tuple(host for host in hosts if host.degraded)


def count_excluded(hosts: Hosts, healthy: Hosts) -> int:
    """How many hosts are left out of the count; those that are healthy never are."""
    return 0 if hosts is healthy else sum(host.excluded for host in hosts)


def _select(hosts: Hosts, keep: Callable[[Host], bool]) -> Hosts:
    return tuple(host for host in hosts if keep(host))


def host_sets_of(hosts: Sequence[Host], overprovisioning_factor: int = 140) -> HostSets:
    """Host sets without locality weights, from the hosts' own priorities."""
    last = max((host.priority for host in hosts), default=0)
    return tuple(
        HostSet(priority, tuple(host for host in hosts if host.priority == priority), (), overprovisioning_factor)
        for priority in range(last + 1)
    )
