"""The composition root: from a checked bootstrap to running listeners. Read it top to bottom: it is a request's way.

bytes -> listener -> filter chain -> HTTP connection manager -> stream -> filters -> router -> cluster -> pool -> bytes.
Nothing else in the package knows more than its own stage; what a stage needs of another is handed to it here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
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
from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.config.listener import FilterChain as FilterChainConfig
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.config.network_filters import DirectResponse as DirectResponseConfig
from sidecar.config.network_filters import NetworkFilter, NetworkRbac
from sidecar.config.network_filters import TcpProxy as TcpProxyConfig
from sidecar.config.network_rate_limit import NetworkRateLimit
from sidecar.core.address import Address
from sidecar.core.head import RequestHead
from sidecar.core.worker import Worker
from sidecar.http.build import options_of
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.filter_chain import FilterChain
from sidecar.http.forwarding import compile_forwarding, compile_response_finish
from sidecar.http.local_reply import plain_reply
from sidecar.http_stack import HttpStack
from sidecar.listener.connection_limits import ConnectionLimit, global_limit, listener_limit
from sidecar.listener.directory import Directory
from sidecar.listener.filters import ListenerFilterStats, build_listener_filters
from sidecar.listener.listener import Listener
from sidecar.listener.proxy_protocol import ProxyProtocolStats
from sidecar.listener.sockets import Inherited
from sidecar.listener.terminal import ConnectionFilter, ListenerContext
from sidecar.network.direct_response import DirectResponse
from sidecar.network.filters import NetworkFilterStats, build_network_filters, by_sni
from sidecar.network.relay import best_flows
from sidecar.network.tcp_proxy import TcpProxy
from sidecar.overload_stack import Overload
from sidecar.pool_stack import PoolStack
from sidecar.router.route_table import RouteTable
from sidecar.telemetry import tags
from sidecar.telemetry.clockwork import Clockwork
from sidecar.telemetry.groups import listener as listener_groups
from sidecar.telemetry.groups import network_filters as network_groups
from sidecar.telemetry.groups.cluster import (
    BreakerRemainingStats,
    BreakerStats,
    ClusterStats,
    OutlierDetectionStats,
)
from sidecar.telemetry.groups.http2 import Http2CodecStats
from sidecar.telemetry.groups.http_connection_manager import RouterStats, connection_manager_stats
from sidecar.telemetry.groups.listener import ListenerManagerStats, ListenerStats, WorkerConnectionStats
from sidecar.telemetry.groups.network_filters import TcpProxyStats
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
    from sidecar.admin.terminal import Answers
    from sidecar.client_stack import ClientStack
    from sidecar.cluster.health_checks.checker import HealthChecker
    from sidecar.cluster.outlier_events import OutlierEventLog
    from sidecar.tls_stack import TlsStack

ADMIN_FILTER = NetworkFilter("admin", DirectResponseConfig(b""))
"""Stands in the admin listener's filter chain, whose terminal is made in another way."""


class Stack(PoolStack, HttpStack):
    """Everything that one worker runs for one bootstrap. Raises ``ValueError`` for formats that cannot be compiled."""

    def __init__(
        self,
        bootstrap: Bootstrap,
        worker: Worker,
        store: StatsStore,
        make_listener: Callable[..., Listener] = Listener,
    ) -> None:
        self.bootstrap = bootstrap
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
        self.route_tables: list[tuple[str, RouteTable]] = []
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
        for config in bootstrap.static_resources.clusters:
            self.add_cluster(config)
        self.listeners = [self.listener(config) for config in bootstrap.static_resources.listeners]
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

    # the beginning of the way: listeners and their filter chains

    def listener(self, config: ListenerConfig) -> Listener:
        """A listener and all its filter chains."""
        name = config.stat_prefix or str(config.address)
        naming = tags.listener(name)
        self.listener_manager_stats.listener_added += 1
        self.listener_manager_stats.listener_create_success += 1
        return self.make_listener(
            config,
            self.worker,
            self.terminal,
            self.store.shared(ListenerStats, *naming),
            self.store.shared(WorkerConnectionStats, *tags.worker(naming, self.worker.number)),
            listener_limit(self.bootstrap.layered_runtime, config.name),
            self.global_limit,
            self.access_loggers(config.access_log, "NotSet"),
            self.connection_filters,
            build_listener_filters(config.listener_filters, self.listener_filter_stats),
            self.directory,
        )

    def connection_filters(self, chain: FilterChainConfig, context: ListenerContext) -> tuple[ConnectionFilter, ...]:
        """The network filters in front of a chain's last one; behind TLS, those that ask who the client is are not: they
        wait for the handshake.
        """
        filters = chain.filters[:-1]
        if chain.transport_socket is not None:
            filters = tuple(one for one in filters if not isinstance(one.typed_config, NetworkRbac))
        return build_network_filters(filters, self.worker, self.network_filter_stats, self.network_rate_limit)

    def network_rate_limit(self, config: NetworkRateLimit) -> ConnectionFilter:
        """The network filter that asks a service; it is loaded where there is one."""
        from sidecar.core.rate_limit_service import RateLimitService
        from sidecar.network.ratelimit import RateLimit
        from sidecar.telemetry.formatter import compile_text

        naming = tags.network_ratelimit(config.stat_prefix)
        service = RateLimitService(self.clients, config.rate_limit_service, config.timeout)
        stats = self.store.shared(network_groups.NetworkRateLimitStats, *naming)
        worker = self.worker
        return RateLimit(config, stats, service, compile_text, worker.random, worker.epoch)

    def terminal(self, chain: FilterChainConfig, last: NetworkFilter, context: ListenerContext) -> Any:
        """What serves the connections of a filter chain: its last network filter, behind TLS if it has that."""
        terminal = self._plain_terminal(chain, last, context)
        if chain.transport_socket is None:
            return terminal
        listener = context.config
        naming = tags.listener(listener.stat_prefix or str(listener.address))
        judges = [one for one in chain.filters[:-1] if isinstance(one.typed_config, NetworkRbac)]
        return self.tls.terminal(
            chain,
            terminal,
            build_network_filters(judges, self.worker, self.network_filter_stats),
            naming,
            self.store.shared(ListenerStats, *naming),
            listener.per_connection_buffer_limit_bytes,
        )

    @property
    def tls(self) -> TlsStack:
        """The part for TLS, loaded for the first who asks."""
        if self._tls is None:
            from sidecar.tls_stack import TlsStack

            self._tls = TlsStack(self.worker, self.store, self.bootstrap.static_resources.secrets)
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

    def _plain_terminal(self, chain: FilterChainConfig, last: NetworkFilter, context: ListenerContext) -> Any:
        listener = context.config
        if isinstance(last.typed_config, HttpConnectionManager):
            return self.http_connection_manager(
                last.typed_config, listener, listener.stat_prefix or str(listener.address)
            )
        if isinstance(last.typed_config, DirectResponseConfig):
            return DirectResponse(last.typed_config.response, self.worker)
        assert isinstance(last.typed_config, TcpProxyConfig), last
        proxy = TcpProxy(
            last.typed_config,
            self.worker,
            self.clusters.get,
            self.dialer,
            self.store.shared(TcpProxyStats, *tags.tcp_proxy(last.typed_config.stat_prefix)),
            self.make_flow,
            self.access_loggers(last.typed_config.access_log, "TcpConnectionEnd"),
            listener.per_connection_buffer_limit_bytes,
            by_sni(chain.filters),
        )
        self.tcp_proxies.append(proxy)
        return proxy

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
        for listener in self.bound():
            listener.start()

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
        return self.store

    def certificates(self, now: float) -> list[Any]:
        """The certificates in use, for /certs; ``now`` is in seconds since the epoch."""
        return [] if self._tls is None else self._tls.certificates(now)

    def connections(self) -> int:
        """How many downstream connections there are."""
        return sum(len(listener.connections) for listener in self.listeners)

    def unfinished(self) -> int:
        """How many downstream connections there are, those included that listener filters still look at."""
        return self.connections() + sum(len(listener.pending) for listener in self.listeners)

    def addresses(self) -> dict[str, Address]:
        """Where each listener listens, by its name: its first address."""
        return {one.config.name: one.local_addresses[0] for one in self.listeners if one.sockets}

    async def close(self) -> None:
        """End everything: listeners, connections, clusters, timers, log files."""
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
        from sidecar.admin.terminal import AdminTerminal, connection_manager_config

        admin = self.bootstrap.admin
        assert admin is not None and admin.address is not None
        config = connection_manager_config()
        terminal = AdminTerminal(answers, self.worker)
        stats, of_listener = connection_manager_stats(self.store, "admin", "admin")
        manager = ConnectionManager(
            self.worker,
            options_of(config, 1 << 20),
            stats,
            of_listener.codes,
            terminal,
            FilterChain(()),
            terminal,
            compile_forwarding(config, self.local_ip, b"", b""),
            compile_response_finish(config),
            self.access_loggers(admin.access_log, "DownstreamEnd"),
            plain_reply,
            self.request_lines,
        )
        manager.http2_stats = self.store.shared(Http2CodecStats, "http2.")
        naming = tags.listener("admin")
        self.admin_listener = Listener(
            ListenerConfig(
                "admin", admin.address, (FilterChainConfig((ADMIN_FILTER,)),), socket_options=admin.socket_options
            ),
            self.worker,
            lambda chain, last, context: manager,
            self.store.shared(ListenerStats, *naming),
            self.store.shared(WorkerConnectionStats, *tags.worker(naming, self.worker.number)),
            ConnectionLimit(),
            ConnectionLimit(),
        )

    def explain(self, request: RequestHead) -> Iterator[tuple[str, list[str]]]:
        """For each connection manager, what it would do with ``request``, and why."""
        for heading, routes in self.route_tables:
            yield heading, routes.explain(request, None)

    # the end of the way: clusters; `pool_stack.py` has their pools

    def add_cluster(self, config: ClusterConfig) -> Cluster:
        """A cluster, with the statistics of its circuit breakers."""
        if config.transport_socket is not None or config.transport_socket_matches:
            self.tls.add_cluster(config)
        cluster = self.clusters.add(config)
        if cluster.outlier is not None and config.close_connections_on_host_health_failure:
            cluster.outlier.on_ejected = self.end_tcp_sessions
        naming = tags.cluster(config.alt_stat_name)
        for priority, breaker in zip(("default", "high"), cluster.breakers, strict=True):
            below = naming.below(f"circuit_breakers.{priority}.")
            self.store.add(BreakerStats(breaker), *below)
            if breaker.track_remaining:
                self.store.add(BreakerRemainingStats(breaker), *below)
        return cluster

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
        return OutlierEventLog(file.write, self.worker.clock, self.worker.epoch)

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

    def _membership_changed(self, added: Sequence[Host], removed: Sequence[Host]) -> None:
        for host in removed:
            if host.pool is not None:
                host.pool.drain()


def connection_stats(store: StatsStore) -> tuple[ListenerFilterStats, NetworkFilterStats]:
    """Where listener filters and network filters find what they count."""

    def proxy_protocol(stat_prefix: str) -> ProxyProtocolStats:
        words = f"proxy_proto.{stat_prefix}." if stat_prefix else "proxy_proto."
        if stat_prefix:
            v1, v2 = (tags.Naming(f"{words}versions.v{version}.") for version in (1, 2))
        else:
            v1, v2 = tags.proxy_protocol_version(1), tags.proxy_protocol_version(2)
        return ProxyProtocolStats(
            store.shared(listener_groups.ProxyProtocolStats, words),
            store.shared(listener_groups.ProxyProtocolVersionStats, *v1),
            store.shared(listener_groups.ProxyProtocolVersionStats, *v2),
            store.shared(listener_groups.ProxyProtocolErrorStats, ""),
        )

    return (
        ListenerFilterStats(
            lambda: store.shared(listener_groups.TlsInspectorStats, "tls_inspector."),
            lambda: store.shared(listener_groups.HttpInspectorStats, "http_inspector."),
            proxy_protocol,
        ),
        NetworkFilterStats(
            lambda prefix: store.shared(network_groups.NetworkRbacStats, *tags.network_rbac(prefix)),
            lambda prefix: store.shared(
                network_groups.NetworkLocalRateLimitStats, *tags.network_local_rate_limit(prefix)
            ),
            lambda prefix: store.shared(network_groups.ConnectionLimitStats, *tags.connection_limit(prefix)),
        ),
    )


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
