"""A cluster: its hosts, how one is picked, its limits and its state. What the router holds for each route."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.cluster.context import ClusterStats, LoadBalancerContext, Pick
from sidecar.cluster.host import PENDING_DYNAMIC_REMOVAL, Host
from sidecar.cluster.host_set import HostSet, HostSets
from sidecar.cluster.lingering import keep_healthy, without_failed
from sidecar.cluster.load_balancers.layered import Balancer
from sidecar.cluster.slices import Slices
from sidecar.core.address import Address
from sidecar.core.waiting import Start

if TYPE_CHECKING:
    from sidecar.cluster.client_side_weights import ClientSideWeights
    from sidecar.cluster.health_checks.checker import HealthChecker
    from sidecar.cluster.outlier import OutlierDetector

OnMembership = Callable[[Sequence[Host], Sequence[Host]], None]
"""Called with the hosts that came and those that left, once nothing picks the latter any more."""


class Discovery(Protocol):
    """Where a cluster's hosts come from; calls the cluster's `update` and, after the first round, `hosts_known`."""

    def start(self) -> None: ...

    def close(self) -> None: ...


class Cluster:
    """`pick(context)` gives the host for a request, or None; it is an attribute that changes with the hosts.

    `breakers` are those of the routing priorities default and high. `host_sets` are the hosts by priority. `stats` and
    `config` are what the cluster was made with. `initialised` is true once hosts were looked for, found or not, were
    checked, if their health is, and can be picked. `by_locality` says whether localities are kept apart, `by_zones`
    whether picks depend on the local cluster; `load_reports` takes what hosts report of their load (None: nobody wants it),
    and `on_host_sets` hears of every change. Nothing but `pick` and counting is done per request.
    """

    __slots__ = (
        "name",
        "config",
        "stats",
        "breakers",
        "pick",
        "outlier",
        "host_sets",
        "on_membership",
        "discovery",
        "health_checker",
        "keeps_healthy",
        "needs",
        "waits_for_hosts",
        "initialised",
        "by_locality",
        "by_zones",
        "load_reports",
        "on_host_sets",
        "_balancer",
        "_slices",
        "_building",
        "_holds",
        "_hosts_known",
        "_on_ready",
        "_changes",
        "_without",
    )

    def __init__(
        self,
        name: str,
        config: Any,
        stats: ClusterStats,
        balancer: Balancer,
        slices: Slices,
        breakers: tuple[CircuitBreaker, CircuitBreaker] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.stats = stats
        self.breakers = breakers or (CircuitBreaker(), CircuitBreaker())
        self.pick: Pick = no_host
        self.outlier: OutlierDetector | None = None
        self.host_sets: HostSets = _NO_HOSTS
        self.on_membership: tuple[OnMembership, ...] = ()
        self.discovery: Discovery | None = None
        self.health_checker: HealthChecker | None = None
        self.keeps_healthy = True  # a host that is no longer to be found stays while its checks succeed
        self.needs: Sequence[Start] = ()
        self.waits_for_hosts = True
        self.initialised = False
        self.by_locality = self.by_zones = False
        self.load_reports: ClientSideWeights | None = None
        self.on_host_sets: Callable[[HostSets], None] | None = None
        self._balancer = balancer
        self._slices = slices
        self._building = False
        self._holds = 0
        self._hosts_known = False
        self._on_ready: tuple[Callable[[], object], ...] = ()
        self._changes: tuple[list[Host], list[Host]] | None = None
        self._without: dict[frozenset[int], Pick] = {}

    @property
    def hosts(self) -> list[Host]:
        """All hosts, of all priorities."""
        return [host for host_set in self.host_sets for host in host_set.hosts]

    @property
    def has_several_hosts(self) -> bool:
        """Whether there is more than one host, whatever state they are in."""
        return sum(len(host_set.hosts) for host_set in self.host_sets) > 1

    def start(self) -> None:
        """Begin to look for hosts; for those that the configuration lists that is done at once. The cluster is not ready before
        it has all that it needs besides.
        """
        self._holds = len(self.needs)
        for need in self.needs:
            need(self._one_need_less())
        if self.load_reports is not None:
            self.load_reports.start()
        if self.discovery is None:
            self.hosts_known()
        else:
            self.discovery.start()
            if not self.waits_for_hosts:
                self.hosts_known()
        if self.health_checker is not None:
            self.health_checker.start()

    def _one_need_less(self) -> Callable[[], None]:
        met = False

        def there() -> None:
            nonlocal met
            if not met:
                met = True
                self._holds -= 1
                self._become_ready()

        return there

    def close(self) -> None:
        """Stop looking for hosts, and pick none from now on. Hosts leave as if they had been removed."""
        if self.discovery is not None:
            self.discovery.close()
        if self.outlier is not None:
            self.outlier.close()
        if self.health_checker is not None:
            self.health_checker.close()
            self.health_checker = None
        if self.load_reports is not None:
            self.load_reports.close()
        waiting, self._on_ready = self._on_ready, ()
        self.update(_NO_HOSTS)
        self._slices.cancel(self)
        self._finish(no_host)
        for callback in waiting:
            callback()
        # Nothing of it is kept by what it knew: it may be in the part of the heap that the collector does not look at.
        self.discovery = self.outlier = self.load_reports = self.on_host_sets = None
        self.on_membership = self.needs = ()
        self._without = {}

    def when_ready(self, callback: Callable[[], object]) -> None:
        """Call back once the cluster is initialised, or closed before that: now, if it is."""
        if self.initialised:
            callback()
        else:
            self._on_ready += (callback,)

    def hosts_known(self) -> None:
        """The first round of looking for hosts is over, whatever came of it."""
        if self.health_checker is None or self._hosts_known:
            self._hosts_known = True
            self._become_ready()
        else:
            self.health_checker.when_checked(self._hosts_checked)

    def _hosts_checked(self) -> None:
        """The first round of checks is over as well."""
        self._hosts_known = True
        self.refresh_health()
        self._become_ready()

    def update(self, host_sets: HostSets) -> None:
        """Take over new membership. Hosts that stay must be the same objects."""
        if self.health_checker is not None and self.keeps_healthy:
            host_sets = keep_healthy(self.host_sets, host_sets)
        self._take_over(host_sets)

    def _take_over(self, host_sets: HostSets) -> None:
        checker = self.health_checker
        before, after = set(self.hosts), {host for host_set in host_sets for host in host_set.hosts}
        added = [host for host_set in host_sets for host in host_set.hosts if host not in before]
        removed = [host for host in self.hosts if host not in after]
        for host in removed:
            host.removed = True
            if self.outlier is not None:
                self.outlier.forget(host)
            if checker is not None:
                checker.forget(host)
        if checker is not None:
            checker.admit(added)
            host_sets = tuple(host_set.refreshed() for host_set in host_sets)
        if added or removed:
            self.stats.membership_change += 1
            self.stats.transport_socket_total_match_count += len(added)
            if self._changes is None:
                self._changes = (added, removed)
            else:
                self._changes[0].extend(added)
                self._changes[1].extend(removed)
        self._publish(host_sets or _NO_HOSTS)
        if added and self.outlier is not None:
            self.outlier.watch(added)
        if checker is not None:
            checker.watch(added)

    def refresh_health(self) -> None:
        """Hosts have become usable or unusable: pick by their new health."""
        if self.health_checker is not None:
            if not self._hosts_known:
                return  # nothing is picked before
            left = without_failed(self.host_sets)
            if left is not None:
                self._take_over(left)
                return
        self._publish(tuple(host_set.refreshed() for host_set in self.host_sets))

    def lingering(self) -> dict[Address, Host]:
        """Hosts that are no longer to be found, and stay while they are healthy."""
        return {host.address: host for host in self.hosts if host.flags & PENDING_DYNAMIC_REMOVAL}

    def serves_without(self, priorities: Set[int]) -> bool:
        """Whether there are usable hosts of other priorities."""
        return any(
            (each.healthy or each.degraded) and priority not in priorities
            for priority, each in enumerate(self.host_sets)
        )

    def pick_without(self, context: LoadBalancerContext, priorities: frozenset[int]) -> Host | None:
        """As `pick`, with no load for these priorities: for retries. Compiled for the first of them after a change."""
        picks = self._without
        if priorities not in picks:
            others = tuple(
                each.filtered(lambda host: False) if priority in priorities else each
                for priority, each in enumerate(self.host_sets)
            )
            picks[priorities] = self.pick  # as in Envoy, that of balancers by hash: they alone have tables to build
            try:
                next(self._balancer.build(others))
            except StopIteration as end:
                picks[priorities] = end.value
        return picks[priorities](context)

    def rebuild(self) -> None:
        """The hosts are the same, but not what they are picked by."""
        self._without = {}
        self._building = True
        self._slices.run(self, self._balancer.build(self.host_sets), self._finish)

    def _publish(self, host_sets: HostSets) -> None:
        """Count the difference (an older version of the cluster may share the statistics), and compile anew."""
        stats = self.stats
        for sign, each in ((-1, self.host_sets), (1, host_sets)):
            stats.membership_total += sign * sum(len(host_set.hosts) for host_set in each)
            stats.membership_healthy += sign * sum(len(host_set.healthy) for host_set in each)
            stats.membership_degraded += sign * sum(len(host_set.degraded) for host_set in each)
            stats.membership_excluded += sign * sum(host_set.excluded for host_set in each)
        self.host_sets = host_sets
        if self.on_host_sets is not None:
            self.on_host_sets(host_sets)
        self.rebuild()

    def _finish(self, pick: Pick) -> None:
        self.pick = pick
        self._building = False
        changes, self._changes = self._changes, None
        if changes is not None:
            for callback in self.on_membership:
                callback(*changes)
        self._become_ready()

    def _become_ready(self) -> None:
        if self.initialised or not self._hosts_known or self._building or self._holds:
            return
        self.initialised = True
        callbacks, self._on_ready = self._on_ready, ()
        for callback in callbacks:
            callback()

    def __repr__(self) -> str:
        state = "" if self.initialised else " warming"
        healthy = sum(len(host_set.healthy) for host_set in self.host_sets)
        return f"<Cluster {self.name}{state}: {healthy} of {len(self.hosts)} hosts healthy>"


_NO_HOSTS: HostSets = (HostSet(0, ()),)


def no_host(context: LoadBalancerContext) -> Host | None:
    """Picks nobody: what a cluster without hosts does."""
    return None
