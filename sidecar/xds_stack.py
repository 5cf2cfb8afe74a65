"""The composition root's part for what is discovered while the sidecar runs, loaded when a configuration asks for it.

management server -> subscription -> watcher (`xds/apply/`) -> cluster, endpoints, listener, routes, secret, filter.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sidecar import __version__
from sidecar.cluster.eds import Subscriber
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.config_source import ConfigSource
from sidecar.config.http_connection_manager import Rds
from sidecar.core.discovery import Discovery, Subscription
from sidecar.core.pace import Pace
from sidecar.core.timer_wheel import Callback
from sidecar.listener.sockets import Inherited
from sidecar.telemetry import tags
from sidecar.telemetry.formatter import format_problems
from sidecar.telemetry.groups import cluster as cluster_groups
from sidecar.telemetry.groups.cluster import ClusterStats
from sidecar.telemetry.groups.http2 import Http2CodecStats
from sidecar.telemetry.groups.server import (
    ClusterSubscriptionStats,
    ControlPlaneStats,
    EndpointSubscriptionStats,
    RouteSubscriptionStats,
    SubscriptionStats,
)
from sidecar.telemetry.groups.tls import TlsStats
from sidecar.telemetry.tags import Naming
from sidecar.xds.apply.clusters import ClusterWatcher
from sidecar.xds.apply.endpoints import EndpointWatcher
from sidecar.xds.apply.judging import Judge
from sidecar.xds.apply.listeners import ListenerWatcher
from sidecar.xds.apply.records import Record, Records
from sidecar.xds.apply.routes import RouteWatcher
from sidecar.xds.discovery import XdsDiscovery
from sidecar.xds.node import make_node
from sidecar.xds_dump import Discovered
from sidecar.xds_listener_stack import XdsListeners

if TYPE_CHECKING:
    from sidecar.http.connection_manager import ConnectionManager
    from sidecar.http_stack import ChainParts
    from sidecar.route_stack import ManagerRoutes
    from sidecar.stack import Stack
    from sidecar.xds.apply.extensions import ExtensionWatcher
    from sidecar.xds.apply.secrets import SecretWatcher
    from sidecar.xds_filter_stack import XdsFilters
    from sidecar.xds_secret_stack import XdsSecrets

_FREEZE_AFTER: Final = 1.0
"""Seconds from a large amount of new configuration to the time when it is in use."""

_URL: Final = "type.googleapis.com/"
CLUSTER_URL: Final = _URL + "envoy.config.cluster.v3.Cluster"
ENDPOINT_URL: Final = _URL + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_URL: Final = _URL + "envoy.config.listener.v3.Listener"
ROUTE_URL: Final = _URL + "envoy.config.route.v3.RouteConfiguration"
SECRET_URL: Final = _URL + "envoy.extensions.transport_sockets.tls.v3.Secret"
EXTENSION_URL: Final = _URL + "envoy.config.core.v3.TypedExtensionConfig"

_OF_CLUSTERS: Final = (
    (cluster_groups.ClusterStats, ""),
    (EndpointSubscriptionStats, ""),
    (ControlPlaneStats, "control_plane."),
    (cluster_groups.BreakerStats, "circuit_breakers.default."),
    (cluster_groups.BreakerStats, "circuit_breakers.high."),
    (cluster_groups.BreakerRemainingStats, "circuit_breakers.default."),
    (cluster_groups.BreakerRemainingStats, "circuit_breakers.high."),
    (cluster_groups.OutlierDetectionStats, "outlier_detection."),
    (cluster_groups.HealthCheckStats, "health_check."),
    (Http2CodecStats, "http2."),
    (TlsStats, "ssl."),
)


class XdsStack:
    """What is discovered, for one worker. ``discovery`` may be set before the first subscription."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        worker = stack.worker
        self.pace = Pace(worker.clock)
        self.judge = Judge(stack.bootstrap, format_problems, _Names(stack))
        self.judge.on_bulk = self._freeze_soon
        self._freezing: Callback | None = None
        self.discovery: Discovery = self._make_discovery()
        self.clusters = Records(self.now)
        self.cluster_records: dict[int, Record] = {}  # by the identity of the configuration made of it
        self.discovered = Discovered(self)
        self.listeners = XdsListeners(stack)
        self._secrets: XdsSecrets | None = None
        self._filters: XdsFilters | None = None
        self.listener_records = Records(self.now)
        self.route_configs: dict[tuple[str, ConfigSource], SharedRoutes] = {}
        self.assignments: dict[Subscriber, EndpointWatcher] = {}
        self._static = frozenset(one.name for one in stack.bootstrap.static_resources.clusters)

    def _make_discovery(self) -> Discovery:
        stack = self.stack
        dynamic = stack.bootstrap.dynamic_resources
        return XdsDiscovery(
            stack.worker,
            lambda: stack.clients,
            make_node(stack.bootstrap.node, __version__),
            None if dynamic is None else dynamic.ads_config,
            state_directory=Path(stack.xds_state_directory) if stack.xds_state_directory else None,
            make_stats=self._stream_stats,
        )

    def _stream_stats(self, subscription: Any) -> ControlPlaneStats:
        """Of the stream that all types share; of another one, below the statistics of the subscription that it is for."""
        found = Naming("")
        if subscription is not None:
            found = Naming(subscription.prefix, subscription.tags, subscription.extracted_prefix)
        return self.stack.store.shared(ControlPlaneStats, *found.below("control_plane."))

    def now(self) -> float:
        """Seconds since the epoch."""
        worker = self.stack.worker
        return worker.epoch + worker.clock()

    def _freeze_soon(self) -> None:
        """Take what comes out of the collector's sight, now and once it is applied: nothing of it makes cycles when it goes."""
        gc.freeze()
        if self._freezing is None:
            self._freezing = self.stack.worker.wheel.call_in(_FREEZE_AFTER, self._freeze)

    def _freeze(self) -> None:
        self._freezing = None
        gc.freeze()

    # the beginning

    async def discover_clusters(self, source: ConfigSource) -> None:
        """Ask for clusters from now on; those that the first answer has are warm when this returns."""
        answered, warm = asyncio.Event(), asyncio.Event()
        stats = self.stack.store.shared(ClusterSubscriptionStats, "cluster_manager.cds.")
        watcher = ClusterWatcher(self.judge, self.pace, self, self.clusters, stats, answered.set, self._around_clusters)
        self.discovery.subscribe(source, CLUSTER_URL, None, watcher, stats)
        await answered.wait()
        self.stack.clusters.when_warm(warm.set)
        await warm.wait()

    async def discover_listeners(self, source: ConfigSource, inherited: Inherited) -> None:
        """Ask for listeners from now on; those that the first answer has are warm when this returns, and bound: to sockets that
        are ``inherited``, if they are there.
        """
        answered = asyncio.Event()
        listeners = self.listeners
        listeners.manager.inherited = inherited
        records = self.listener_records
        watcher = ListenerWatcher(self.judge, self.pace, listeners, records, answered.set, self._around_listeners)
        stats = self.stack.store.shared(SubscriptionStats, "listener_manager.lds.")
        self.discovery.subscribe(source, LISTENER_URL, None, watcher, stats)
        await answered.wait()
        await listeners.warm()
        listeners.manager.inherited = {}

    def _around_listeners(self, begins: bool) -> None:
        if begins:
            self.discovery.pause(ROUTE_URL)
        else:
            self.discovery.resume(ROUTE_URL)

    def _around_clusters(self, begins: bool) -> None:
        if begins:
            self.discovery.pause(ENDPOINT_URL)
        else:
            self.discovery.resume(ENDPOINT_URL)

    # clusters: what `ClusterWatcher` and EDS clusters ask of the stack

    def is_static(self, name: str) -> bool:
        return name in self._static

    def change(self, config: ClusterConfig, record: Record) -> None:
        self.cluster_records[id(config)] = record
        try:
            self.stack.add_cluster(config)
        except BaseException:
            del self.cluster_records[id(config)]
            raise

    def drop(self, name: str) -> None:
        self.stack.clusters.remove(name)

    def endpoints(self, config: ClusterConfig, subscriber: Subscriber) -> Callable[[], None]:
        """Hand a cluster its endpoints as they are discovered."""
        eds = config.eds_cluster_config
        assert eds is not None
        watcher = EndpointWatcher(eds.service_name, self.judge, self.pace, subscriber, self.now)
        naming = tags.cluster(config.alt_stat_name)
        own = self.stack.store.shared(EndpointSubscriptionStats, *naming)
        stats = EndpointCounters(self.stack.store.shared(ClusterStats, *naming), own)
        subscription = self.discovery.subscribe(eds.eds_config, ENDPOINT_URL, (eds.service_name,), watcher, stats)
        self.assignments[subscriber] = watcher

        def close() -> None:
            del self.assignments[subscriber]
            subscription.close()

        return close

    # routes

    def discover_routes(self, rds: Rds, stat_prefix: str, routes: ManagerRoutes) -> None:
        """Give a connection manager its routes as they are discovered; it is warm when it has the first."""
        key = (rds.route_config_name, rds.config_source)
        shared = self.route_configs.get(key)
        if shared is None:
            shared = self.route_configs[key] = SharedRoutes(self, rds, stat_prefix)
        watcher = shared.watcher
        watcher.join(routes)
        worker = self.stack.worker

        def start(there: Callable[[], None]) -> None:
            shared.subscribe()
            task = worker.loop.create_task(watcher.begin(routes, there))
            worker.tasks.add(task)
            task.add_done_callback(worker.tasks.discard)

        before = routes.close

        def close() -> None:
            before()
            if watcher.leave(routes) and self.route_configs.get(key) is shared:
                del self.route_configs[key]
                shared.close()

        self.stack.waiting.add(f"RdsRouteConfigSubscription RDS init {rds.route_config_name}", start)
        routes.close = close

    # secrets

    @property
    def secrets(self) -> XdsSecrets:
        """The part for secrets, loaded for the first who asks."""
        if self._secrets is None:
            from sidecar.xds_secret_stack import XdsSecrets

            self._secrets = XdsSecrets(self)
        return self._secrets

    def secret_watchers(self) -> Iterator[SecretWatcher]:
        """Those of the secrets that are asked for."""
        return iter(()) if self._secrets is None else self._secrets.watchers()

    # filters

    def discover_filters(self, manager: ConnectionManager, routes: ManagerRoutes, parts: ChainParts) -> None:
        """Give the filters of a connection manager their configurations as they are discovered. Raises ValueError."""
        if self._filters is None:
            from sidecar.xds_filter_stack import XdsFilters  # only for those who use it

            self._filters = XdsFilters(self)
        self._filters.discover(manager, routes, parts)

    def extension_watchers(self) -> Iterator[ExtensionWatcher]:
        """Those of the filter configurations that are asked for."""
        return iter(()) if self._filters is None else self._filters.watchers()

    def forget_cluster(self, config: ClusterConfig) -> None:
        """The cluster is not in use any more, nor will be."""
        self.cluster_records.pop(id(config), None)

    def forget_statistics(self, config: ClusterConfig) -> None:
        """No cluster counts under this one's name any more."""
        naming = tags.cluster(config.alt_stat_name)
        for make, below in _OF_CLUSTERS:
            self.stack.store.discard(make, naming.prefix + below)

    def close(self) -> None:
        """Hear of nothing any more."""
        self.discovery.close()
        self.listeners.close()

    def __repr__(self) -> str:
        return f"<XdsStack {self.discovery!r}>"


class SharedRoutes:
    """A route configuration that is discovered, with its subscription once there is one."""

    def __init__(self, xds: XdsStack, rds: Rds, stat_prefix: str) -> None:
        self.xds = xds
        self.rds = rds
        naming = tags.http_connection_manager(stat_prefix).below(f"rds.{rds.route_config_name}.")
        with xds.stack.store.recording():  # they are not of the listener that is the first to ask
            self.stats = xds.stack.store.shared(RouteSubscriptionStats, *naming)
        self.watcher = RouteWatcher(rds.route_config_name, xds.judge, xds.pace, self.stats, xds.now)
        self._subscription: Subscription | None = None

    def subscribe(self) -> None:
        """Ask for it, if it is not asked for yet."""
        if self._subscription is None:
            rds = self.rds
            self._subscription = self.xds.discovery.subscribe(
                rds.config_source, ROUTE_URL, (rds.route_config_name,), self.watcher, self.stats
            )

    def close(self) -> None:
        """Nobody uses it any more."""
        self.xds.stack.store.release([self.stats])
        if self._subscription is not None:
            self._subscription.close()

    def __repr__(self) -> str:
        return f"<SharedRoutes {self.watcher!r}>"


class EndpointCounters:
    """The ``SubscriptionCounters`` of an EDS cluster: some stand among the statistics that every cluster has."""

    __slots__ = ("_cluster", "_own")

    _SHARED = frozenset(("update_attempt", "update_failure", "update_success", "version"))

    def __init__(self, cluster: ClusterStats, own: EndpointSubscriptionStats) -> None:
        object.__setattr__(self, "_cluster", cluster)
        object.__setattr__(self, "_own", own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster if name in self._SHARED else self._own, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cluster if name in self._SHARED else self._own, name, value)

    def __repr__(self) -> str:
        return f"<EndpointCounters {self._cluster!r}>"


class _Names(Collection[str]):
    """The clusters that there are, warm or not, by name."""

    __slots__ = ("_stack",)

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __contains__(self, name: object) -> bool:
        clusters = self._stack.clusters
        return name in clusters.clusters or name in clusters.warming

    def __iter__(self) -> Iterator[str]:
        clusters = self._stack.clusters
        return iter({**clusters.clusters, **clusters.warming})

    def __len__(self) -> int:
        return sum(1 for _ in self)
