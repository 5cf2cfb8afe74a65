"""Zone-aware routing: requests stay in the proxy's own locality as far as the hosts there have room for them.

The proxies of a service are the hosts of the local cluster; by their localities a proxy knows how many others send from
where. Source: Envoy's documentation, "Zone aware routing".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from sidecar.cluster.context import Choose, ClusterStats
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import Hosts, HostSet
from sidecar.cluster.load_balancers.priority_load import in_panic
from sidecar.config.common_lb import ZoneAwareLbConfig
from sidecar.config.core_types import Locality

_WHOLE = 10_000


class LocalCluster:
    """The cluster that the proxy itself belongs to: `host_set` are its hosts (None: unknown), `locality` is the proxy's."""

    __slots__ = ("locality", "host_set")

    def __init__(self, locality: Locality) -> None:
        self.locality = locality
        self.host_set: HostSet | None = None


class Routing:
    """What of a priority's traffic goes where. `order` has the places of the localities, the proxy's own first if there.

    `to_local` of 10,000 requests stay (all of them: `direct`); the others go by `residual`, the room of the localities
    in `order`, each with that of all before it.
    """

    __slots__ = ("order", "direct", "to_local", "residual")

    def __init__(self, order: Sequence[int], direct: bool, to_local: int, residual: Sequence[int]) -> None:
        self.order = tuple(order)
        self.direct = direct
        self.to_local = to_local
        self.residual = tuple(residual)

    def __repr__(self) -> str:
        return f"<Routing {'direct' if self.direct else f'{self.to_local} of {_WHOLE} stay'}>"


class ZoneAware:
    """The rules of one cluster."""

    __slots__ = ("config", "local", "stats", "random", "panic_threshold", "fail_traffic_on_panic")

    def __init__(
        self,
        config: ZoneAwareLbConfig,
        local: LocalCluster,
        stats: ClusterStats,
        random: Random,
        panic_threshold: float = 50.0,
        fail_traffic_on_panic: bool = False,
    ) -> None:
        self.config = config
        self.local = local
        self.stats = stats
        self.random = random
        self.panic_threshold = panic_threshold
        self.fail_traffic_on_panic = fail_traffic_on_panic

    def routing(self, host_set: HostSet) -> Routing | None:
        """How the traffic of the first priority is spread; None where its localities are to be left alone."""
        config, local, stats = self.config, self.local.host_set, self.stats
        if local is None:
            return None
        stats.lb_recalculate_zone_structures += 1
        localities = host_set.localities
        if len(localities) < 2 or (len(local.localities) < 2 and config.force_local_zone is None):
            return None
        own = self.local.locality
        if not any(part.hosts for part in local.localities if part.locality == own):
            stats.lb_local_cluster_not_ok += 1
            return None
        if len(host_set.healthy) < config.min_cluster_size:
            stats.lb_zone_cluster_too_small += 1
            return None
        order = [at for at, part in enumerate(localities) if part.locality == own and part.hosts]
        here = bool(order)
        order += [at for at in range(len(localities)) if at not in order]
        sizes = {part.locality: self._size(part.healthy) for part in local.localities}
        senders, receivers = sum(sizes.values()), sum(self._size(part.healthy) for part in localities)
        shares = []
        for at in order:
            part = localities[at]
            size = self._size(part.healthy)
            sent = _share(sizes.get(part.locality, 0), senders) if size else 0
            shares.append((sent, _share(size, receivers)))
        sent, received = shares[0]
        if here and (0 < received >= sent or self._forced(localities[order[0]].healthy)):
            return Routing(order, True, _WHOLE, ())
        room = [0 if here and not at else max(0, received - sent) for at, (sent, received) in enumerate(shares)]
        return Routing(order, False, received * _WHOLE // sent if here and sent else 0, list(accumulate(room)))

    def chooser(self, routing: Routing, choosers: Sequence[Choose], anywhere: Choose) -> Choose:
        """A function that chooses by `routing` among the `choosers` of the localities, or `anywhere` where it must not."""
        local = self.local.host_set
        if local is None or not routing.order:
            return anywhere
        ordered = tuple(choosers[at] for at in routing.order)
        if in_panic(local, self.panic_threshold):
            within = self._refused(anywhere)
        elif routing.direct:
            within = self._direct(ordered[0])
        else:
            within = self._residual(routing, ordered)
        enabled = self.config.routing_enabled
        if enabled >= 100:
            return within
        random = self.random.random

        def choose() -> Host | None:
            return within() if int(random() * 100) < enabled else anywhere()

        return choose

    def _direct(self, here: Choose) -> Choose:
        stats = self.stats

        def choose() -> Host | None:
            stats.lb_zone_routing_all_directly += 1
            return here()

        return choose

    def _residual(self, routing: Routing, choosers: tuple[Choose, ...]) -> Choose:
        stats, random, to_local, residual = self.stats, self.random.random, routing.to_local, routing.residual
        here, room, count = choosers[0], residual[-1], len(choosers)

        def choose() -> Host | None:
            if int(random() * _WHOLE) < to_local:
                stats.lb_zone_routing_sampled += 1
                return here()
            stats.lb_zone_routing_cross_zone += 1
            if not room:  # by rounding
                stats.lb_zone_no_capacity_left += 1
                return choosers[int(random() * count)]()
            return choosers[bisect_right(residual, int(random() * room))]()

        return choose

    def _refused(self, anywhere: Choose) -> Choose:
        """Too few proxies are known to be well to go by their localities."""
        stats, fails = self.stats, self.fail_traffic_on_panic

        def choose() -> Host | None:
            stats.lb_local_cluster_not_ok += 1
            return None if fails else anywhere()

        return choose

    def _forced(self, healthy: Hosts) -> bool:
        least = self.config.force_local_zone
        return least is not None and len(healthy) >= least

    def _size(self, hosts: Hosts) -> int:
        if self.config.locality_basis == "HEALTHY_HOSTS_WEIGHT":
            return sum(host.weight for host in hosts)
        return len(hosts)

    def __repr__(self) -> str:
        return f"<ZoneAware {self.config.routing_enabled} % from {self.local.locality}>"


def _share(part: int, whole: int) -> int:
    return _WHOLE * part // whole if whole else 0
