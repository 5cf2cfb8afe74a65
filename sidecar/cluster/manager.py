"""All clusters by name: made from configuration, warmed, swapped and closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.cluster.cluster import Cluster, OnMembership
from sidecar.cluster.context import ClusterStats
from sidecar.cluster.dns import Resolver
from sidecar.cluster.endpoints import static_host_sets
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSets
from sidecar.cluster.load_balancers.configured import balancer_of
from sidecar.cluster.logical_dns import LogicalDns
from sidecar.cluster.original_dst import OriginalDst
from sidecar.cluster.slices import Slices
from sidecar.cluster.strict_dns import StrictDns
from sidecar.config.circuit_breakers import Thresholds
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.core_types import NO_LOCALITY, Locality
from sidecar.config.dns import DnsSettings
from sidecar.config.lb_policies import ClientSideWeightedRoundRobin, OriginalDstLbConfig
from sidecar.core.timer_wheel import TimerWheel
from sidecar.core.waiting import Start

if TYPE_CHECKING:
    from sidecar.cluster.dns_cache import DnsCache
    from sidecar.cluster.eds import Subscriber
    from sidecar.cluster.health_checks.checker import HealthChecker
    from sidecar.cluster.load_balancers.zone_aware import LocalCluster
    from sidecar.cluster.outlier import OutlierDetector
    from sidecar.cluster.outlier_events import OutlierEventLog
    from sidecar.config.dns_cache import DnsCacheConfig


class ClusterManagerStats(Protocol):
    """Statistics below `cluster_manager.`, under Envoy's names."""

    cluster_added: int
    cluster_modified: int
    cluster_removed: int


class Surroundings(Protocol):
    """What clusters need of the stages around them; `stack.py` hands it in."""

    @property
    def cluster_manager_stats(self) -> ClusterManagerStats:
        """What is counted of all clusters."""
        ...

    def cluster_stats(self, config: ClusterConfig) -> ClusterStats:
        """The statistics below `cluster.<name>.`"""
        ...

    def outlier_stats(self, config: ClusterConfig) -> Any:
        """Those of outlier detection; asked for only where it is configured."""
        ...

    def outlier_events(self) -> OutlierEventLog | None:
        """Where ejections are logged, if they are."""
        ...

    def health_checker(self, cluster: Cluster) -> HealthChecker:
        """The active health checks of a cluster; asked for only where they are configured."""
        ...

    def resolver(self, settings: DnsSettings) -> Resolver:
        """The resolver for these settings; asked for only by DNS clusters. It is closed by whoever made it."""
        ...

    def dns_cache(self, config: DnsCacheConfig) -> DnsCache:
        """The cache that a dynamic forward proxy finds its hosts in; it is released by the cluster. Raises ValueError."""
        ...

    def needs_of(self, config: ClusterConfig) -> Sequence[Start]:
        """What a cluster cannot do without, and has not got yet: secrets that are discovered."""
        ...

    def endpoints(self, config: ClusterConfig, subscriber: Subscriber) -> Callable[[], None]:
        """Hand a cluster its endpoints as they are discovered, until what this returns is called; EDS clusters alone ask."""
        ...


class ClusterManager:
    """`get(name)` is the cluster in use, or None: one dict lookup. A new version takes its place once it is warm.

    `on_membership` is called, with each cluster's changes, for all clusters that are made later, `on_closed` with one that
    was in use or was to be, once it is not any more. `local_cluster_name` is
    the cluster that the proxy itself belongs to, `locality` where it is: with both, requests stay near if they can.
    """

    __slots__ = ("get", "on_closed", "on_membership", "_clusters", "_warming", "_surroundings", "_wheel", "_random",
                 "_random_for", "_slices", "_started", "_local", "_local_cluster_name")  # fmt: skip

    def __init__(
        self,
        surroundings: Surroundings,
        wheel: TimerWheel,
        random: Random,
        random_for: Callable[[str], Random] | None = None,
        local_cluster_name: str = "",
        locality: Locality = NO_LOCALITY,
    ) -> None:
        self._clusters: dict[str, Cluster] = {}
        self.get: Callable[[str], Cluster | None] = self._clusters.get
        self.on_membership: OnMembership | None = None
        self.on_closed: Callable[[Cluster], None] = lambda cluster: None
        self._warming: dict[str, Cluster] = {}
        self._surroundings = surroundings
        self._wheel = wheel
        self._random = random
        self._random_for = random_for
        self._slices = Slices(wheel)
        self._started = False
        self._local_cluster_name = local_cluster_name
        self._local: LocalCluster | None = None
        if local_cluster_name:
            from sidecar.cluster.load_balancers.zone_aware import LocalCluster  # only for those who use it

            self._local = LocalCluster(locality)

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        """The clusters in use."""
        return self._clusters

    @property
    def warming(self) -> Mapping[str, Cluster]:
        """Clusters that have not found their first hosts yet."""
        return self._warming

    def add(self, config: ClusterConfig) -> Cluster:
        """Make a cluster. Before `start` it is in use at once, afterwards when it is warm; an old one then closes."""
        cluster = self._make(config)
        stats = self._surroundings.cluster_manager_stats
        if cluster.name in self._clusters or cluster.name in self._warming:
            stats.cluster_modified += 1
        else:
            stats.cluster_added += 1
        if not self._started:
            self._clusters[cluster.name] = cluster
            return cluster
        older = self._warming.pop(cluster.name, None)
        if older is not None:
            self._close(older)
        self._warming[cluster.name] = cluster
        cluster.stats.warming_state = 1
        cluster.when_ready(lambda: self._swap(cluster))
        cluster.start()
        return cluster

    def remove(self, name: str) -> bool:
        """Close a cluster, warm or not; False if there is none of that name."""
        gone = [found for found in (self._clusters.pop(name, None), self._warming.pop(name, None)) if found is not None]
        for cluster in gone:
            self._close(cluster)
        if gone:
            self._surroundings.cluster_manager_stats.cluster_removed += 1
        return bool(gone)

    def start(self, ready: Callable[[], None], primaries_ready: Callable[[], None] = lambda: None) -> None:
        """Start all clusters; `ready` is called, once, when each has found its hosts or failed to.

        As in Envoy those come first that need no other cluster to find their hosts, and then, when `primaries_ready` has
        been called, those of EDS.
        """
        self._started = True
        cold = [cluster for cluster in self._clusters.values() if not cluster.initialised]
        self._warming = {cluster.name: cluster for cluster in cold}
        secondary = [cluster for cluster in cold if cluster.config.type == "EDS"]

        def start_secondary() -> None:
            primaries_ready()
            self._start(secondary, ready)

        self._start([cluster for cluster in cold if cluster.config.type != "EDS"], start_secondary)

    def _start(self, cold: Sequence[Cluster], ready: Callable[[], None]) -> None:
        waiting = _Countdown(len(cold), ready)
        for cluster in cold:
            cluster.when_ready(partial(self._warming.pop, cluster.name, None))
            cluster.when_ready(waiting.one_less)
            cluster.start()
        waiting.check()

    def when_warm(self, callback: Callable[[], None]) -> None:
        """Call back once all clusters that are warming now are in use, or gone: at once, if there are none."""
        waiting = _Countdown(len(self._warming), callback)
        for cluster in self._warming.values():
            cluster.when_ready(waiting.one_less)
        waiting.check()

    def close(self) -> None:
        """Close all clusters."""
        every = (*self._clusters.values(), *self._warming.values())
        self._clusters.clear()
        self._warming.clear()
        for cluster in every:
            cluster.close()

    def _swap(self, cluster: Cluster) -> None:
        if self._warming.get(cluster.name) is not cluster:
            return
        del self._warming[cluster.name]
        old = self._clusters.get(cluster.name)
        self._clusters[cluster.name] = cluster
        cluster.stats.warming_state = 0
        if old is not None:
            self._close(old)

    def _close(self, cluster: Cluster) -> None:
        cluster.close()
        self.on_closed(cluster)

    def _make(self, config: ClusterConfig) -> Cluster:
        is_local = config.name == self._local_cluster_name
        cluster = make_cluster(
            config, self._surroundings, self._wheel, self._slices, self._random, self._random_for, self._local, is_local
        )
        if is_local:
            cluster.on_host_sets = self._local_changed
            self._local_changed(cluster.host_sets)
        if self.on_membership is not None:
            cluster.on_membership = (self.on_membership,)
        if config.common_lb_config.close_connections_on_host_set_change:
            cluster.on_membership += (partial(_drain_connections, cluster),)
        return cluster

    def _local_changed(self, host_sets: HostSets) -> None:
        """Other proxies came, went or fell ill: what stays in this zone is another share."""
        if self._local is not None:
            self._local.host_set = host_sets[0]
            for cluster in (*self._clusters.values(), *self._warming.values()):
                if cluster.by_zones:
                    cluster.rebuild()

    def __repr__(self) -> str:
        return f"<ClusterManager {len(self._clusters)} clusters, {len(self._warming)} warming>"


class _Countdown:
    """Calls back once, when so many have reported and the first round of asking is over."""

    __slots__ = ("left", "done", "checking")

    def __init__(self, left: int, done: Callable[[], None]) -> None:
        self.left = left
        self.done = done
        self.checking = False

    def one_less(self) -> None:
        self.left -= 1
        if self.checking and not self.left:
            self.done()

    def check(self) -> None:
        self.checking = True
        if not self.left:
            self.done()


def make_cluster(
    config: ClusterConfig,
    surroundings: Surroundings,
    wheel: TimerWheel,
    slices: Slices,
    random: Random,
    random_for: Callable[[str], Random] | None = None,
    local: LocalCluster | None = None,
    is_local: bool = False,
) -> Cluster:
    """A cluster of any type, not yet started. ``random`` chooses hosts; what timers leave to chance has its own source.

    ``local`` is the proxy's own cluster, if known; ``is_local``: this is it. Raises ValueError or OSError for what the cluster
    needs and cannot have, and then it keeps nothing that others share.
    """
    cluster = _bare_cluster(config, surroundings, wheel, slices, random, local, is_local)
    try:
        _complete(cluster, surroundings, wheel, random_for or (lambda purpose: random))
    except BaseException:
        if cluster.discovery is not None:
            cluster.discovery.close()
        raise
    return cluster


def _bare_cluster(
    config: ClusterConfig,
    surroundings: Surroundings,
    wheel: TimerWheel,
    slices: Slices,
    random: Random,
    local: LocalCluster | None,
    is_local: bool,
) -> Cluster:
    """What hosts are picked by, and the limits."""
    stats = surroundings.cluster_stats(config)
    own = config.lb_config
    breakers = (_breaker(config.circuit_breakers.default), _breaker(config.circuit_breakers.high))
    breakers[0].counters = stats
    if config.dns_cache is not None:
        from sidecar.cluster.dynamic_forward_proxy import DynamicForwardProxy  # only for those who use it

        secure = config.transport_socket is not None
        named = DynamicForwardProxy(surroundings.dns_cache(config.dns_cache), 443 if secure else 80, wheel.clock)
        cluster = Cluster(config.name, config, stats, named, slices, breakers)
        named.cluster = cluster
        cluster.discovery = named
    elif isinstance(own, OriginalDstLbConfig):
        discovery = OriginalDst(own, config.cleanup_interval, stats, wheel)
        cluster = Cluster(config.name, config, stats, discovery, slices, breakers)
        discovery.cluster = cluster
        cluster.discovery = discovery
    else:
        balancer = balancer_of(config, stats, random, wheel.clock, None if is_local else local)
        cluster = Cluster(config.name, config, stats, balancer, slices, breakers)
        cluster.by_locality = local is not None or config.common_lb_config.locality_weighted_lb_config
        cluster.by_zones = local is not None and not is_local and config.lb_policy not in ("RING_HASH", "MAGLEV")
    return cluster


def _complete(
    cluster: Cluster, surroundings: Surroundings, wheel: TimerWheel, random_for: Callable[[str], Random]
) -> None:
    """What watches over the hosts, and where they come from."""
    config: ClusterConfig = cluster.config
    own = config.lb_config
    if isinstance(own, ClientSideWeightedRoundRobin):
        from sidecar.cluster.client_side_weights import ClientSideWeights  # only for those who use it

        cluster.load_reports = ClientSideWeights(own, lambda: cluster.hosts, cluster.rebuild, wheel)
    if config.outlier_detection is not None:
        cluster.outlier = _detector_of(config)(
            config.outlier_detection,
            surroundings.outlier_stats(config),
            lambda: cluster.hosts,
            cluster.refresh_health,
            wheel,
            random_for(f"outlier {config.name}"),
            config.name,
            surroundings.outlier_events(),
        )
    if config.health_check is not None:
        cluster.health_checker = surroundings.health_checker(cluster)
        cluster.keeps_healthy = not config.ignore_health_on_host_removal
    cluster.waits_for_hosts = config.wait_for_warm_on_init
    cluster.needs = surroundings.needs_of(config)
    if config.type in ("STRICT_DNS", "LOGICAL_DNS"):
        discover = StrictDns if config.type == "STRICT_DNS" else LogicalDns
        jitter = random_for(f"dns {config.name}")
        cluster.discovery = discover(cluster, config, surroundings.resolver(config.dns), wheel, jitter)
    elif config.type == "EDS":
        from sidecar.cluster.eds import EndpointDiscovery  # only for those who use it

        cluster.discovery = EndpointDiscovery(cluster, partial(surroundings.endpoints, config), wheel)
    elif config.type == "STATIC":
        cluster.update(static_host_sets(config.load_assignment, cluster.by_locality))


def _drain_connections(cluster: Cluster, added: Sequence[Host], removed: Sequence[Host]) -> None:
    """`close_connections_on_host_set_change`: requests under way end where they are, others get new connections."""
    for host in cluster.hosts:
        if host.pool is not None:
            host.pool.drain_connections()


def _detector_of(config: ClusterConfig) -> Callable[..., OutlierDetector]:
    if config.error_matcher is None:
        from sidecar.cluster.outlier import OutlierDetector  # only for those who use it

        return OutlierDetector
    from sidecar.cluster.outlier_errors import MatchingDetector  # only for those who use it

    return partial(MatchingDetector, config.error_matcher)


def _breaker(limits: Thresholds) -> CircuitBreaker:
    return CircuitBreaker(
        limits.max_connections,
        limits.max_pending_requests,
        limits.max_requests,
        limits.max_retries,
        limits.retry_budget,
        limits.track_remaining,
        limits.max_connection_pools,
        limits.max_connections_per_host,
        limits.limits_retries,
    )
