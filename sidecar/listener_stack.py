"""The composition root's first part: listeners, their filter chains, and what serves the connections of a chain.

bytes -> listener -> listener filters -> network filters -> TLS -> terminal: `http_stack.py` has the one for HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.config.listener import FilterChain as FilterChainConfig
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.config.network_ext_authz import NetworkExtAuthz
from sidecar.config.network_filters import DirectResponse as DirectResponseConfig
from sidecar.config.network_filters import NetworkFilter, NetworkRbac
from sidecar.config.network_filters import TcpProxy as TcpProxyConfig
from sidecar.config.network_rate_limit import NetworkRateLimit
from sidecar.core.waiting import Waiting
from sidecar.http_stack import HttpStack
from sidecar.listener.connection_limits import ConnectionLimit, listener_limit
from sidecar.listener.directory import Directory
from sidecar.listener.filters import ListenerFilterStats, build_listener_filters
from sidecar.listener.listener import Listener
from sidecar.listener.proxy_protocol import ProxyProtocolStats
from sidecar.listener.terminal import ConnectionFilter, ListenerContext
from sidecar.network.direct_response import DirectResponse
from sidecar.network.filters import NetworkFilterStats, build_network_filters, by_sni
from sidecar.network.relay import MakeFlow
from sidecar.network.tcp_proxy import TcpProxy
from sidecar.pool_stack import PoolStack
from sidecar.telemetry import tags
from sidecar.telemetry.groups import listener as listener_groups
from sidecar.telemetry.groups import network_filters as network_groups
from sidecar.telemetry.groups.listener import ListenerManagerStats, ListenerStats, WorkerConnectionStats
from sidecar.telemetry.groups.network_filters import TcpProxyStats
from sidecar.telemetry.store import StatsStore

_BEHIND_TLS = (NetworkRbac, NetworkExtAuthz)
"""The network filters that ask who the client is."""


class ListenerStack(PoolStack, HttpStack):
    """Makes listeners; what the other parts of the stack have is declared here and set there."""

    make_listener: Callable[..., Listener]
    waiting: Waiting
    directory: Directory
    global_limit: ConnectionLimit
    listener_manager_stats: ListenerManagerStats
    listener_filter_stats: ListenerFilterStats
    network_filter_stats: NetworkFilterStats
    tcp_proxies: list[TcpProxy]
    make_flow: MakeFlow

    def listener(self, config: ListenerConfig, make: Callable[..., Listener] | None = None) -> Listener:
        """A listener and all its filter chains; ``make`` makes it if not the one for those of the bootstrap."""
        name = config.stat_prefix or str(config.address)
        naming = tags.listener(name)
        return (make or self.make_listener)(
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
            filters = tuple(one for one in filters if not isinstance(one.typed_config, _BEHIND_TLS))
        return self._network_filters(filters)

    def _network_filters(self, filters: Sequence[NetworkFilter]) -> tuple[ConnectionFilter, ...]:
        return build_network_filters(
            filters, self.worker, self.network_filter_stats, self.network_rate_limit, self.network_ext_authz
        )

    def network_rate_limit(self, config: NetworkRateLimit) -> ConnectionFilter:
        """The network filter that asks a service; it is loaded where there is one."""
        from sidecar.core.rate_limit_service import RateLimitService
        from sidecar.network.ratelimit import RateLimit
        from sidecar.telemetry.formatter import compile_text

        naming = tags.network_ratelimit(config.stat_prefix)
        service = RateLimitService(self.clients, config.rate_limit_service, config.timeout)
        stats = self.store.shared(network_groups.NetworkRateLimitStats, *naming)
        return RateLimit(config, stats, service, compile_text, self.worker)

    def network_ext_authz(self, config: NetworkExtAuthz) -> ConnectionFilter:
        """The network filter that asks an authorization service; it is loaded where there is one."""
        from sidecar.core.authorization import AuthorizationService
        from sidecar.core.check_request import labels_of
        from sidecar.network.ext_authz import ExtAuthz

        stats = self.store.shared(network_groups.NetworkExtAuthzStats, *tags.network_ext_authz(config.stat_prefix))
        labels = labels_of(self.bootstrap.node.metadata, config.bootstrap_metadata_labels_key)
        return ExtAuthz(config, stats, AuthorizationService(self.clients, config.service), labels, self.worker.clock)

    def terminal(self, chain: FilterChainConfig, last: NetworkFilter, context: ListenerContext) -> Any:
        """What serves the connections of a filter chain: its last network filter, behind TLS if it has that."""
        terminal = self._plain_terminal(chain, last, context)
        if chain.transport_socket is None:
            return terminal
        listener = context.config
        naming = tags.listener(listener.stat_prefix or str(listener.address))
        judges = [one for one in chain.filters[:-1] if isinstance(one.typed_config, _BEHIND_TLS)]
        secured = self.tls.terminal(
            chain,
            terminal,
            self._network_filters(judges),
            naming,
            self.store.shared(ListenerStats, *naming),
            listener.per_connection_buffer_limit_bytes,
        )
        for secret in secured.tls.rotation.discovered:
            self.waiting.add(f"SdsApi {secret.name}", secret.start)
        return secured

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
            lambda *words: store.shared(network_groups.NetworkRbacShadowStats, *tags.network_rbac(*words)),
            lambda prefix: store.shared(
                network_groups.NetworkLocalRateLimitStats, *tags.network_local_rate_limit(prefix)
            ),
            lambda prefix: store.shared(network_groups.ConnectionLimitStats, *tags.connection_limit(prefix)),
        ),
    )
