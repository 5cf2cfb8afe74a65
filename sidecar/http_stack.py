"""The composition root's HTTP half: from the configuration of a connection manager to filters, routes, router and logs.

stream -> filters -> router -> cluster; `stack.py` has what stands before and behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import Host
from sidecar.cluster.manager import ClusterManager
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.wire import FieldLines
from sidecar.config.access_log import AccessLog, AccessLogFilter
from sidecar.config.bootstrap import Bootstrap
from sidecar.config.core_types import SubstitutionFormatString
from sidecar.config.filters.router import Router as RouterConfig
from sidecar.config.filters.stateful_session import StatefulSession
from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.config.http_filters import HttpFilter as HttpFilterConfig
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.core.http_filter import HttpFilter
from sidecar.core.waiting import Waiting
from sidecar.core.worker import Worker
from sidecar.express.request import ExpressLane
from sidecar.filters.context import FilterContext
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.http.build import options_of
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.early_logs import EarlyLogs
from sidecar.http.filter_chain import FilterChain
from sidecar.http.forwarding import DateHeader, compile_forwarding, compile_response_finish, new_request_id
from sidecar.http.local_reply import compile_local_reply
from sidecar.http.recreation import compile_repreparation
from sidecar.http.stream import Stream
from sidecar.http.underscores import compile_underscores
from sidecar.route_stack import ManagerRoutes, says_what_is_offered
from sidecar.router.header_mutation import compile_header_mutations
from sidecar.router.immediate_failure import attentive
from sidecar.router.route import Route
from sidecar.router.route_conditions import compile_request_match
from sidecar.router.router import Router
from sidecar.router.upstream_request import UpstreamRequest
from sidecar.telemetry import tags
from sidecar.telemetry.access_log import Logger, compile_access_logs, compile_format
from sidecar.telemetry.filter_stats import filter_stats
from sidecar.telemetry.formatter import FormatContext, compile_header_value
from sidecar.telemetry.groups.http2 import Http2CodecStats
from sidecar.telemetry.groups.http_connection_manager import Http1CodecStats, RouterStats, connection_manager_stats
from sidecar.telemetry.log_file import LogFiles
from sidecar.telemetry.log_filters import compile_filter
from sidecar.telemetry.store import StatsStore

if TYPE_CHECKING:
    from sidecar.client_stack import ClientStack
    from sidecar.forward_proxy_stack import DnsCaches
    from sidecar.xds_stack import XdsStack


class HttpStack:
    """Makes HTTP connection managers; what the other half of the stack has is declared here and set there."""

    bootstrap: Bootstrap
    worker: Worker
    store: StatsStore
    clusters: ClusterManager
    log_files: LogFiles
    request_lines: FieldLines
    texts: Texts
    managers: list[ConnectionManager]
    routed: dict[ConnectionManager, ManagerRoutes]
    local_ip: str
    health_check_failed: bool
    waiting: Waiting
    async_client_stats: RouterStats
    _bodies: dict[int, Callable[..., bytes]]

    @property
    def clients(self) -> ClientStack:
        """Our own clients of clusters."""
        raise NotImplementedError

    @property
    def xds(self) -> XdsStack:
        """What is discovered."""
        raise NotImplementedError

    @property
    def dns_caches(self) -> DnsCaches:
        """The caches of names that requests ask for."""
        raise NotImplementedError

    def pool_of(self, cluster: Cluster, host: Host, by_offer: bool = False) -> Any:
        """The pool of a host, made for its first request."""
        raise NotImplementedError

    def http_connection_manager(
        self, config: HttpConnectionManager, listener: ListenerConfig, stat_name: str
    ) -> ConnectionManager:
        """The terminal filter of an HTTP filter chain."""
        stats, of_listener = connection_manager_stats(self.store, stat_name, config.stat_prefix)
        naming = tags.http_connection_manager(config.stat_prefix)
        router_config = next(
            (one.config for one in config.http_filters if isinstance(one.config, RouterConfig)), RouterConfig()
        )
        context = self.filter_context(config.stat_prefix)
        configured = [one for one in config.http_filters if not isinstance(one.config, RouterConfig)]
        loggers = self.access_loggers(
            config.access_log, "DownstreamEnd"
        )  # before the filters: they may hold DNS caches
        first = self.early_logs(config)
        filters = make_filters(configured, context)
        parts = ChainParts(first, filters, context)
        heading = f"listener {listener.name}, connection manager {config.stat_prefix}"
        sessions = asks_for_hosts(configured)
        of_upgrades = [one for upgrade in config.upgrade_configs for one in upgrade.filters or ()]
        offering = says_what_is_offered(one.config for one in (*configured, *of_upgrades))
        routes = ManagerRoutes(
            self, heading, config.route_config, router_config.suppress_envoy_headers, sessions, offering
        )
        router = Router(
            self.worker,
            self.store.shared(RouterStats, *naming),
            self.clusters.get,
            self.pool_of,
            router_config.suppress_envoy_headers,
            listener.per_connection_buffer_limit_bytes,
            self.local_ip.encode(),
        )
        router.async_client_stats = self.async_client_stats
        router.respect_expected_timeout = router_config.respect_expected_rq_timeout
        router.render_body = self.render_body
        router.repeats_unprocessed = router_config.repeats_unprocessed
        router.strict_headers = router_config.strict_check_headers
        identity = self.bootstrap.node
        manager = ConnectionManager(
            self.worker,
            options_of(config, listener.per_connection_buffer_limit_bytes),
            stats,
            of_listener.codes,
            routes.table,
            parts.chain(),
            router,
            compile_forwarding(
                config,
                self.local_ip,
                identity.id.encode(),
                identity.cluster.encode(),
                routes.internal,
            ),
            compile_response_finish(config),
            loggers,
            compile_local_reply(
                config.local_reply_config, self.compile_log_filter, self.compile_body, compile_header_additions
            ),
            self.request_lines,
        )
        manager.prepare_again = compile_repreparation(config)
        manager.texts = self.texts
        manager.http2_stats = self.store.shared(Http2CodecStats, "http2.")
        for upgrade in config.upgrade_configs:
            if upgrade.filters is not None:
                manager.upgrade_chains[upgrade.upgrade_type] = FilterChain(
                    [
                        *first,
                        *(
                            make_filter(one.config, one.name, context)
                            for one in upgrade.filters
                            if not isinstance(one.config, RouterConfig)
                        ),
                    ]
                )
        underscores = config.common_http_protocol_options.headers_with_underscores_action
        if underscores != "ALLOW":
            manager.judge = compile_underscores(underscores, self.store.shared(Http1CodecStats, "http1."))
            manager.judge_http2 = compile_underscores(underscores, manager.http2_stats)
        manager.make_chain = parts.chain_of
        manager.filters_at = parts.filters_at
        routes.manager = manager
        routes.make_lane = lambda: self.express_lane(config, manager, router)
        routes.close = lambda: close_filters(manager, parts)
        self.managers.append(manager)
        self.routed[manager] = routes
        routes.check(routes.table.routes)  # now, so that what is wrong in it stops the start
        manager.lane = routes.make_lane()
        if config.rds is not None:
            self.xds.discover_routes(config.rds, config.stat_prefix, routes)
        if any(one.discovery is not None for one in configured):
            self.xds.discover_filters(manager, routes, parts)
        return manager

    def remove_manager(self, manager: ConnectionManager) -> None:
        """A connection manager whose last connection is gone."""
        self.managers.remove(manager)
        self.routed.pop(manager).end()
        manager.end()

    @property
    def checks_health(self) -> bool:
        """Whether any cluster has health checks: then responses may take hosts out."""
        return any(cluster.health_checker is not None for cluster in self.clusters.clusters.values())

    @property
    def reporting_clusters(self) -> set[str]:
        """The clusters whose hosts tell their load, or are judged by the heads of their responses: requests go there observed."""
        return {
            name
            for name, cluster in self.clusters.clusters.items()
            if cluster.load_reports is not None or cluster.config.error_matcher is not None
        }

    def express_lane(
        self, config: HttpConnectionManager, manager: ConnectionManager, router: Router
    ) -> ExpressLane | None:
        """The way of plain requests in one function, where the configuration lets requests be plain."""
        chain, options = manager.default_chain, manager.options
        if (
            any(one.keeps_streams for one in chain.filters)
            or chain.complete
            or not (chain.plain_request and chain.plain_response)
            or options.header_case != "lower"
            or options.max_requests
            or router.strict_headers
            or config.always_set_request_id_in_response
        ):
            return None
        normalizes = (
            config.normalize_path or config.merge_slashes or config.path_with_escaped_slashes_action != "KEEP_UNCHANGED"
        )
        date = DateHeader()
        return ExpressLane(
            manager,
            router,
            Stream,
            attentive(UpstreamRequest) if self.checks_health else UpstreamRequest,
            new_request_id,
            lambda second: date.at(second)[1],
            normalizes,
        )

    def early_logs(self, config: HttpConnectionManager) -> list[HttpFilter]:
        """What writes access-log lines before a request's end, where that is configured."""
        options = config.access_log_options
        if not options.flush_access_log_on_new_request and not options.access_log_flush_interval:
            return []
        logs = config.access_log
        return [
            EarlyLogs(
                self.access_loggers(logs, "DownstreamStart") if options.flush_access_log_on_new_request else (),
                self.access_loggers(logs, "DownstreamPeriodic") if options.access_log_flush_interval else (),
                options.access_log_flush_interval,
            )
        ]

    def filter_context(self, stat_prefix: str) -> FilterContext:
        """What the HTTP filters of one connection manager are made with."""
        return FilterContext(
            self.worker,
            filter_stats(self.store, stat_prefix),
            compile_header_mutations,
            compile_header_value,
            self.cluster_health,
            lambda: self.health_check_failed,
            user_filter,
            self.bootstrap.node.cluster,
            self._cluster_stat_name,
            lambda: self.clients,
            self._count_response,
            self.bootstrap.node.metadata,
            compile_request_match,
            self._watch_files,
            lambda target, start: self.waiting.add(target, start),
            lambda: self.dns_caches,
        )

    def _watch_files(self, paths: Iterable[str], changed: Callable[[], None]) -> Callable[[], None]:
        from sidecar.transport.watching import FileWatcher  # only for those who have a file to watch

        return FileWatcher(self.worker.wheel).watch(paths, changed).cancel

    def _count_response(self, name: str, status: int) -> None:
        cluster = self.clusters.get(name)
        if cluster is not None:
            stats: Any = cluster.stats
            stats.internal_codes[status] += 1

    def cluster_health(self, name: str) -> tuple[int, int] | None:
        """(usable hosts, all hosts) of a cluster."""
        cluster = self.clusters.get(name)
        if cluster is None:
            return None
        return sum(len(one.healthy) + len(one.degraded) for one in cluster.host_sets), len(cluster.hosts)

    def access_loggers(self, configs: Sequence[AccessLog], kind: str) -> tuple[Logger, ...]:
        """The access logs of a listener, a connection manager or a proxy."""
        return compile_access_logs(configs, self.log_files, self.worker, self.format_context(kind))

    def format_context(self, kind: str) -> FormatContext:
        """What formats know besides the stream."""
        return FormatContext(kind, self._cluster_metadata, self._cluster_stat_name)

    def _cluster_metadata(self, name: str) -> Any:
        cluster = self.clusters.get(name)
        return None if cluster is None else cluster.config.metadata

    def _cluster_stat_name(self, name: str) -> str | None:
        cluster = self.clusters.get(name)
        return None if cluster is None else str(cluster.config.alt_stat_name)

    def compile_log_filter(self, config: AccessLogFilter) -> Callable[[Any], bool]:
        return compile_filter(config, self.worker.random_for("local replies"))

    def compile_body(self, config: SubstitutionFormatString) -> Callable[..., bytes]:
        return compile_format(config, context=self.format_context("NotSet"))

    def render_body(
        self, config: SubstitutionFormatString, stream: Any, status: int, body: bytes
    ) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
        """A direct response's body in its format, and its content type."""
        render = self._bodies.get(id(config))
        if render is None:
            render = self._bodies[id(config)] = self.compile_body(config)
        stream.response_code = status
        default = b"text/plain" if config.json_format is None else b"application/json"
        return render(stream, body), ((b"content-type", config.content_type or default),)


class ChainParts(NamedTuple):
    """What the filter chains of a connection manager are made of: what comes ``first``, then the ``filters`` as configured, each
    with the instance that most routes share.
    """

    first: list[HttpFilter]
    filters: list[tuple[HttpFilterConfig, HttpFilter]]
    context: FilterContext

    def chain(self) -> FilterChain:
        """The chain of routes that say nothing to filters."""
        return self._chain([place for place, (one, _) in enumerate(self.filters) if not one.disabled], None)

    def chain_of(self, route: Route) -> FilterChain:
        """That of a route: of the filters those that it has enabled, or not disabled, as it has configured them."""
        said = [route.per_filter.get(one.name) for one, _ in self.filters]
        places = [
            place
            for place, ((one, _), own) in enumerate(zip(self.filters, said, strict=True))
            if not (one.disabled if own is None else own.disabled)
        ]
        return self._chain(places, route)

    def filters_at(self, route: Route | None, places: Sequence[int]) -> list[HttpFilter]:
        """The filters at these places, as a route has configured them, enabled or not."""
        chosen = []
        for place in places:
            one, instance = self.filters[place]
            own = None if route is None else route.per_filter.get(one.name)
            if route is not None and own is not None and own.config is not None:
                levels = [level.config for level in route.per_filter_levels[one.name] if level.config is not None]
                config: Any = one.config
                instance = make_route_filter(instance, config, own.config, self.context, levels)
            chosen.append(instance)
        return chosen

    def _chain(self, places: list[int], route: Route | None) -> FilterChain:
        before = [-1] * len(self.first)
        return FilterChain([*self.first, *self.filters_at(route, places)], [*before, *places])


def make_filters(
    configured: Iterable[HttpFilterConfig], context: FilterContext
) -> list[tuple[HttpFilterConfig, HttpFilter]]:
    """The filters as configured, each with an instance. Raises ValueError, and then nothing is left of those before."""
    made: list[tuple[HttpFilterConfig, HttpFilter]] = []
    try:
        for one in configured:
            config: Any = one.config
            made.append((one, make_filter(config, one.name, context)))
    except BaseException:
        for _, instance in made:
            instance.close()
        raise
    return made


def close_filters(manager: ConnectionManager, parts: ChainParts) -> None:
    """Close every filter that a connection manager has had made: disabled ones, and those of routes and upgrades, too."""
    instances = [instance for _, instance in parts.filters]
    instances += (instance for _, instance in parts.context.route_filters.values())
    for chain in manager.upgrade_chains.values():
        instances += chain.filters
    for instance in {id(one): one for one in instances}.values():
        instance.close()


def asks_for_hosts(filters: Iterable[HttpFilterConfig]) -> bool:
    """Whether any of the filters asks for the hosts that requests go to."""
    return any(isinstance(one.config, StatefulSession) for one in filters)


def user_filter(name: str) -> Any:
    """A user's filter by its name; the module is loaded when a configuration names one."""
    from sidecar.filters.user import find_user_filter

    return find_user_filter(name)


def compile_header_additions(to_add: Any) -> Any:
    """Header additions of a local reply."""
    return compile_header_mutations(to_add, (), compile_header_value)
