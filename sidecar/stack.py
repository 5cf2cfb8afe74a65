"""The composition root: from a checked bootstrap to running listeners. Its parts stand in the order of a request's way.

bytes -> listener -> filter chain (`listener_stack.py`) -> HTTP connection manager -> stream -> filters -> router
(`http_stack.py`) -> cluster (here) -> pool (`pool_stack.py`) -> bytes; `health_stack.py` and `overload_stack.py` watch over it.
Nothing else in the package knows more than its own stage; what a stage needs of another is handed to it here.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.dns import DnsResolver
from sidecar.cluster.host import Host
from sidecar.cluster.manager import ClusterManager
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.wire import FieldLines
from sidecar.config.bootstrap import Bootstrap
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.dns import DnsSettings
from sidecar.core.address import Address
from sidecar.core.waiting import Start, Unawaited, Waiting
from sidecar.core.worker import Worker
from sidecar.http.connection_manager import ConnectionManager
from sidecar.listener.connection_limits import global_limit
from sidecar.listener.directory import Directory
from sidecar.listener.listener import Listener
from sidecar.listener.sockets import Inherited
from sidecar.listener_stack import ListenerStack, connection_stats
from sidecar.network.relay import best_flows
from sidecar.network.tcp_proxy import TcpProxy
from sidecar.overload_stack import Overload
from sidecar.route_stack import ManagerRoutes
from sidecar.telemetry import tags
from sidecar.telemetry.clockwork import Clockwork
from sidecar.telemetry.groups.cluster import (
    BreakerRemainingStats,
    BreakerStats,
    ClusterStats,
    OutlierDetectionStats,
)
from sidecar.telemetry.groups.http_connection_manager import RouterStats
from sidecar.telemetry.groups.listener import ListenerManagerStats
from sidecar.telemetry.groups.server import (
    ClusterManagerStats,
    DispatcherStats,
    DnsStats,
    FilesystemStats,
    RuntimeStats,
    ServerStats,
)
from sidecar.telemetry.log_file import LogFiles
from sidecar.telemetry.store import StatsStore

if TYPE_CHECKING:
    from sidecar.admin.dynamic_dumps import DiscoveredView
    from sidecar.admin.terminal import Answers
    from sidecar.client_stack import ClientStack
    from sidecar.cluster.dns_cache import DnsCache
    from sidecar.cluster.eds import Subscriber
    from sidecar.cluster.health_checks.checker import HealthChecker
    from sidecar.cluster.outlier_events import OutlierEventLog
    from sidecar.config.dns_cache import DnsCacheConfig
    from sidecar.core.explanation import Step
    from sidecar.core.question import Question
    from sidecar.forward_proxy_stack import DnsCaches
    from sidecar.lifecycle.handover import Successor
    from sidecar.tls_stack import TlsStack
    from sidecar.transport.downstream import DownstreamTls
    from sidecar.xds.health_discovery import HealthDiscovery
    from sidecar.xds_stack import XdsStack


class Stack(ListenerStack):
    """Everything that one worker runs for one bootstrap. Raises ``ValueError`` for formats that cannot be compiled."""

    def __init__(
        self,
        bootstrap: Bootstrap,
        worker: Worker,
        store: StatsStore,
        make_listener: Callable[..., Listener] = Listener,
        xds_state_directory: str = "",
    ) -> None:
        self.bootstrap = bootstrap
        self.xds_state_directory = xds_state_directory
        self.make_listener = make_listener
        self.worker = worker
        self.store = store
        self.request_lines = FieldLines()
        self.response_lines = FieldLines()
        self.texts = Texts()
        self.resolvers: dict[DnsSettings, DnsResolver] = {}
        self._bodies: dict[int, Callable[..., bytes]] = {}
        self.health_check_failed = False
        self.managers: list[ConnectionManager] = []
        self.tcp_proxies: list[TcpProxy] = []
        self.routed: dict[ConnectionManager, ManagerRoutes] = {}
        self.waiting: Waiting = Waiting()  # what listeners need that are made now
        self.drain_time = 600.0
        self.parent: Successor | None = None  # of several workers, whom sockets are asked of
        self.drain_strategy = "gradual"
        self.local_ip = local_address()
        self.log_files = LogFiles(store.add(FilesystemStats(), "filesystem."), worker.wheel)
        self.started = worker.clock()
        self.server_stats = store.add(ServerStats(), "server.")
        self.server_stats.concurrency = 1
        self.dispatcher_stats = store.add(DispatcherStats(), "server.dispatcher.")
        self.cluster_manager_stats = store.add(ClusterManagerStats(), "cluster_manager.")
        self.listener_manager_stats = store.add(ListenerManagerStats(), "listener_manager.")
        runtime_stats = store.add(RuntimeStats(), "runtime.")
        runtime_stats.load_success = 1
        runtime_stats.num_keys = len(bootstrap.layered_runtime)
        self.async_client_stats = store.add(RouterStats(), *tags.http_connection_manager("async-client"))
        self.global_limit = global_limit(bootstrap.layered_runtime)
        self.listener_filter_stats, self.network_filter_stats = connection_stats(store)
        self.make_flow = best_flows()
        self.directory = Directory()
        self._tls: TlsStack | None = None
        self._clients: ClientStack | None = None
        self._xds: XdsStack | None = None
        self._dns_caches: DnsCaches | None = None
        self._answers_early = False  # the administration interface, for a management server may keep the start waiting
        self._health_discovery: HealthDiscovery | None = None
        self._looking: tuple[bool, frozenset[str]] = (False, frozenset())  # what routes look for in responses
        self._stat_names: Counter[str] = Counter()  # of the clusters that count there
        self._outlier_events = self._outlier_event_log()
        self.clusters = ClusterManager(
            self,
            worker.wheel,
            worker.random,
            worker.random_for,
            bootstrap.cluster_manager.local_cluster_name,
            bootstrap.node.locality,
        )
        self.clusters.on_membership = self._membership_changed
        self.clusters.on_closed = self.forget_cluster
        for config in bootstrap.static_resources.clusters:
            self.add_cluster(config)
        self.listeners = [self.listener(config) for config in bootstrap.static_resources.listeners]
        self._static_waiting, self.waiting = self.waiting, Unawaited()
        self.listener_manager_stats.listener_added = len(self.listeners)
        self.listener_manager_stats.listener_create_success = len(self.listeners)
        for listener in self.listeners:
            self.directory.add(listener)
        self.admin_listener: Listener | None = None
        self.clockwork = Clockwork(worker, store, self.dispatcher_stats, bootstrap.stats_flush_interval)
        self.overload = Overload(
            bootstrap.overload_manager,
            worker,
            store,
            self.listeners,
            self.global_limit,
            self.clockwork,
        )

    @property
    def tls(self) -> TlsStack:
        """The part for TLS, loaded for the first who asks."""
        if self._tls is None:
            from sidecar.tls_stack import TlsStack

            self._tls = TlsStack(
                self.worker,
                self.store,
                self.bootstrap.static_resources.secrets,
                lambda kind, reference: self.xds.secrets.source(kind, reference),
            )
        return self._tls

    @property
    def clients(self) -> ClientStack:
        """Our own clients of clusters, loaded for the first who asks."""
        if self._clients is None:
            from sidecar.client_stack import ClientStack

            self._clients = ClientStack(
                self.worker, self.clusters.get, self.pool_of, self.async_client_stats, self.local_ip
            )
        return self._clients

    @property
    def xds(self) -> XdsStack:
        """The part for what is discovered, loaded for the first who asks."""
        if self._xds is None:
            from sidecar.xds_stack import XdsStack

            self._xds = XdsStack(self)
        return self._xds

    @property
    def dns_caches(self) -> DnsCaches:
        """The caches of names that requests ask for, loaded for the first who asks."""
        if self._dns_caches is None:
            from sidecar.forward_proxy_stack import DnsCaches

            self._dns_caches = DnsCaches(self.worker, self.store, self.resolver, lambda name: self.clusters.get(name))
        return self._dns_caches

    async def initialise(self, inherited: Inherited) -> None:
        """Find the first hosts of all clusters, and what else is discovered before anything is served but the administration
        interface. Listeners that are discovered take what they find among the ``inherited`` sockets.
        """
        dynamic = self.bootstrap.dynamic_resources
        if self.admin_listener is not None and (dynamic is not None or self._xds is not None):
            self._answers_early = True
            self.admin_listener.start()
        initialised = asyncio.Event()
        self.clusters.start(initialised.set)
        await initialised.wait()
        if dynamic is not None and dynamic.cds_config is not None:
            await self.xds.discover_clusters(dynamic.cds_config)
        ready = asyncio.Event()
        self._static_waiting.begin(ready.set)
        if dynamic is not None and dynamic.lds_config is not None:
            await self.xds.discover_listeners(dynamic.lds_config, inherited)
        await ready.wait()
        if self.bootstrap.hds_config is not None and not self.worker.number:  # of several workers one reports
            from sidecar.hds_stack import health_discovery  # only for those who configure it

            self._health_discovery = health_discovery(self, self.bootstrap.hds_config)
            self._health_discovery.start()

    def bind(self, inherited: Inherited | None = None) -> None:
        """Take all addresses, without serving yet; those that are ``inherited`` from another process, as they are. Raises
        BindError; then none stays taken.
        """
        listeners = self.bound()
        try:
            for listener in listeners:
                listener.bind(inherited)
        except OSError:
            for listener in listeners:
                listener.close()
            raise

    def bound(self) -> list[Listener]:
        """All listeners, the one of the administration interface included."""
        return self.listeners if self.admin_listener is None else [*self.listeners, self.admin_listener]

    def listen(self) -> None:
        """Serve."""
        for listener in self.listeners:
            listener.start()
        if self.admin_listener is not None and not self._answers_early:
            self.admin_listener.start()
        if self._xds is not None:
            self._xds.listeners.manager.started = True

    def stop_listening(self) -> None:
        """Serve no more but what is there; listeners that come later do not begin."""
        for listener in self.listeners:
            listener.stop_accepting()
        if self._xds is not None:
            self._xds.listeners.manager.stop()

    def start_clockwork(self) -> None:
        """Begin what happens at intervals: the latch of histograms, the measurement of the loop's lag, the watch on load."""
        self.clockwork.start()
        self.overload.manager.start()

    def scraped_store(self) -> StatsStore:
        """The statistics, with what is not counted as it happens brought up to date."""
        self.log_files.publish()
        stats = self.server_stats
        stats.uptime = int(self.worker.clock() - self.started)
        stats.total_connections = self.connections()
        days = None if self._tls is None else self._tls.days_until_first_end(self.worker.epoch + self.worker.clock())
        if days is not None:
            stats.days_until_first_cert_expiring = days
        managers = self.cluster_manager_stats
        managers.active_clusters, managers.warming_clusters = len(self.clusters.clusters), len(self.clusters.warming)
        self.listener_manager_stats.total_listeners_active = sum(1 for one in self.listeners if one.sockets)
        if self._xds is not None:
            self._xds.listeners.count(self.listener_manager_stats)
        return self.store

    def certificates(self, now: float) -> list[Any]:
        """The certificates in use, for /certs; ``now`` is in seconds since the epoch."""
        return [] if self._tls is None else self._tls.certificates(now)

    def discovered(self) -> DiscoveredView | None:
        """What was discovered, for /config_dump."""
        return None if self._xds is None else self._xds.discovered

    def connections(self) -> int:
        """How many downstream connections there are."""
        return sum(len(listener.connections) for listener in self.serving())

    def unfinished(self) -> int:
        """How many downstream connections there are, those included that listener filters still look at."""
        return self.connections() + sum(len(listener.pending) for listener in self.serving())

    def serving(self) -> list[Listener]:
        """All listeners with connections: those that accept, and those that were replaced."""
        if self._xds is None:
            return self.listeners
        return [*self.listeners, *self._xds.listeners.leaving()]

    def downstream_tls(self) -> list[DownstreamTls]:
        """The TLS of all filter chains."""
        return [] if self._tls is None else self._tls.downstream

    def addresses(self) -> dict[str, Address]:
        """Where each listener listens, by its name: its first address."""
        return {one.config.name: one.local_addresses[0] for one in self.listeners if one.sockets}

    async def close(self) -> None:
        """End everything: listeners, connections, clusters, timers, log files."""
        if self._health_discovery is not None:
            self._health_discovery.close()
        if self._xds is not None:
            self._xds.close()
        if self._clients is not None:
            self._clients.close()
        for listener in self.listeners:
            listener.close()
        if self.admin_listener is not None:
            self.admin_listener.close()
        for cluster in self.clusters.clusters.values():
            for host in cluster.hosts:
                if host.pool is not None:
                    host.pool.close()
        self.clusters.close()
        if self._tls is not None:
            self._tls.close()
        for resolver in self.resolvers.values():
            await resolver.close()
        for task in list(self.worker.tasks):
            task.cancel()
        self.log_files.close()
        self.worker.wheel.close()

    def reopen_logs(self) -> None:
        """Open log files anew, for rotation."""
        self.log_files.reopen()

    def add_admin(self, answers: Answers) -> None:
        """The administration interface, behind a listener and a connection manager of its own."""
        from sidecar.admin_stack import admin_listener

        self.admin_listener = admin_listener(self, answers)

    async def finish_answers(self) -> None:
        """Take no more questions to the administration interface, and let the answers leave, within a second."""
        if self.admin_listener is not None:
            from sidecar.admin_stack import finish_answers

            await finish_answers(self.admin_listener)

    def explain(self, question: Question) -> list[Step]:
        """What would become of a request, and why. Raises ValueError for a question that does not say enough."""
        from sidecar.explain_stack import explain

        return explain(self, question)

    # the end of the way: clusters; `pool_stack.py` has their pools

    def add_cluster(self, config: ClusterConfig) -> Cluster:
        """A cluster, with the statistics of its circuit breakers."""
        if config.transport_socket is not None or config.transport_socket_matches:
            self.tls.add_cluster(config)
        self.count_cluster(config)  # first: an older version that goes at once must not take the statistics with it
        try:
            cluster = self.clusters.add(config)
        except BaseException:
            self._uncount_cluster(config)
            if self._tls is not None:
                self._tls.remove_cluster(config)
            raise
        if cluster.outlier is not None and config.close_connections_on_host_health_failure:
            cluster.outlier.on_ejected = self.end_tcp_sessions
        if config.health_check is not None or cluster.load_reports is not None or config.error_matcher is not None:
            cluster.when_ready(lambda: self._look_closer(cluster))
        if self.clusters.get(config.name) in (None, cluster):
            self._show_breakers(cluster)
        else:  # in the place of those of the older version, once it is in use
            cluster.when_ready(lambda: self._show_breakers(cluster))
        return cluster

    def count_cluster(self, config: ClusterConfig) -> None:
        """Statistics of this name stay until ``forget_cluster``."""
        self._stat_names[config.alt_stat_name] += 1

    def _uncount_cluster(self, config: ClusterConfig) -> None:
        name = config.alt_stat_name
        self._stat_names[name] -= 1
        if not self._stat_names[name]:
            del self._stat_names[name]
            if self._xds is not None:
                self._xds.forget_statistics(config)

    def _look_closer(self, cluster: Cluster) -> None:
        """The first cluster that checks health, or wants to know of responses: let routes that were there before it see to it."""
        checks, reporting = self.checks_health, frozenset(self.reporting_clusters)
        if self.routed and (checks, reporting) != self._looking:
            for routes in self.routed.values():
                routes.refit()
        self._looking = checks, reporting

    def _show_breakers(self, cluster: Cluster) -> None:
        if self.clusters.get(cluster.name) not in (None, cluster):
            return  # it was closed before it was ready
        naming = tags.cluster(cluster.config.alt_stat_name)
        for priority, breaker in zip(("default", "high"), cluster.breakers, strict=True):
            below = naming.below(f"circuit_breakers.{priority}.")
            self.store.discard(BreakerStats, below.prefix)
            self.store.discard(BreakerRemainingStats, below.prefix)
            self.store.add(BreakerStats(breaker), *below)
            if breaker.track_remaining:
                self.store.add(BreakerRemainingStats(breaker), *below)

    def forget_cluster(self, cluster: Cluster) -> None:
        """A cluster was removed, or replaced: with the last of its name in statistics those leave."""
        self._uncount_cluster(cluster.config)
        self.xds.forget_cluster(cluster.config)
        if self._tls is not None:
            self._tls.remove_cluster(cluster.config)

    def cluster_stats(self, config: ClusterConfig) -> ClusterStats:
        return self.store.shared(ClusterStats, *tags.cluster(config.alt_stat_name))

    def outlier_stats(self, config: ClusterConfig) -> OutlierDetectionStats:
        return self.store.shared(OutlierDetectionStats, *tags.cluster(config.alt_stat_name).below("outlier_detection."))

    def outlier_events(self) -> OutlierEventLog | None:
        return self._outlier_events

    def _outlier_event_log(self) -> OutlierEventLog | None:
        path = self.bootstrap.cluster_manager.outlier_event_log_path
        if not path:
            return None
        from sidecar.cluster.outlier_events import OutlierEventLog

        try:
            file = self.log_files.open(path)
        except OSError as error:
            place = "cluster_manager.outlier_detection.event_log_path"
            raise OSError(f"{place}: cannot write to {path}: {error.strerror}") from error
        return OutlierEventLog(file.write, self.worker.clock, lambda: self.worker.epoch)

    def end_tcp_sessions(self, host: Host) -> None:
        """`close_connections_on_host_health_failure`: what TCP proxies carry to a host that has failed ends now."""
        for proxy in self.tcp_proxies:
            for session in [one for one in proxy.sessions if one.host is host]:
                session.abort()

    def health_checker(self, cluster: Cluster) -> HealthChecker:
        from sidecar.health_stack import health_checker  # only for those who check

        return health_checker(self, cluster)

    def resolver(self, settings: DnsSettings) -> DnsResolver:
        found = self.resolvers.get(settings)
        if found is None:
            stats = self.store.shared(DnsStats, "dns.cares.")
            found = self.resolvers[settings] = DnsResolver(self.worker.loop, settings, stats)
        return found

    def dns_cache(self, config: DnsCacheConfig) -> DnsCache:
        return self.dns_caches.open(config)

    def needs_of(self, config: ClusterConfig) -> Sequence[Start]:
        return () if self._tls is None else self._tls.needs_of(config)

    def endpoints(self, config: ClusterConfig, subscriber: Subscriber) -> Callable[[], None]:
        return self.xds.endpoints(config, subscriber)

    def _membership_changed(self, added: Sequence[Host], removed: Sequence[Host]) -> None:
        for host in removed:
            if host.pool is not None:
                host.pool.drain()
                host.pool = None


def local_address() -> str:
    """This machine's address as Envoy tells it: the first that is not on the loopback interface, else 127.0.0.1."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(sock.fileno(), 0x8915, request)  # SIOCGIFADDR
            except OSError:
                continue
            ip = socket.inet_ntoa(answer[20:24])
            if not ip.startswith("127."):
                return ip
    return "127.0.0.1"
