"""The composition root's end: from the configuration of a cluster to the pools of its hosts, and how they dial.

router -> cluster -> host -> pool -> connection; `stack.py` has what stands before, `http2_stack.py` what HTTP/2 needs.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import Host
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.wire import FieldLines
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.core_types import TcpKeepalive
from sidecar.config.protocol_options import PreserveCaseFormatter
from sidecar.core.address import Address
from sidecar.core.tls_options import OFFERING_HTTP1, OFFERING_NOTHING, TransportSocketOptions, compile_names
from sidecar.core.worker import Worker
from sidecar.pool.dialing import Dialer
from sidecar.pool.http1 import Http1Pool
from sidecar.pool.named import NamedPools, PoolsByOffer
from sidecar.pool.options import PoolOptions
from sidecar.telemetry.store import StatsStore

if TYPE_CHECKING:
    from sidecar.tls_stack import TlsStack


class PoolStack:
    """Makes pools and dialers; what the other parts of the stack have is declared here and set there."""

    worker: Worker
    store: StatsStore
    response_lines: FieldLines
    texts: Texts

    @property
    def tls(self) -> TlsStack:
        """The part for TLS."""
        raise NotImplementedError

    def pool_of(self, cluster: Cluster, host: Host, by_offer: bool = False) -> Any:
        """The pool of a host, made for its first request; ``by_offer`` the one for requests that say what connections offer
        by ALPN, made for the first of these.
        """
        config: ClusterConfig = cluster.config
        common, http1 = config.common_http_protocol_options, config.http_protocol_options
        options = PoolOptions(
            connect_timeout=config.connect_timeout,
            idle_timeout=common.idle_timeout or inf,
            max_requests=common.max_requests_per_connection,
            max_duration=common.max_connection_duration or inf,
            buffer_limit=config.per_connection_buffer_limit_bytes,
            max_head_bytes=(common.max_response_headers_kb or 80) * 1024,
            max_fields=common.max_headers_count,
            header_case="lower" if http1.header_key_format is None else _case_of(http1.header_key_format),
            trailers=http1.enable_trailers,
        )
        dialer = self.dialer(cluster, host)

        def named_pool(names: TransportSocketOptions, instead: tuple[str, ...] = ()) -> Any:
            if instead:
                names = replace(names, instead=instead)

            def http1_pool() -> Http1Pool:
                return Http1Pool(
                    self.worker, host, cluster.stats, cluster.breakers, options, dialer, self.response_lines,
                    names.offering(OFFERING_HTTP1.protocols),
                )  # fmt: skip

            if config.upstream_protocol == "http1":
                return http1_pool()
            from sidecar.http2_stack import choice_pool

            return choice_pool(self, cluster, host, options, dialer, http1_pool, names)

        http = config.upstream_http_options
        names = None
        if config.transport_socket is not None or config.transport_socket_matches:
            names = compile_names(http.auto_sni, http.auto_san_validation, http.override_auto_sni_header)

        proxied = bool(_proxy_version(config, host))

        def pool(instead: tuple[str, ...]) -> Any:
            if proxied:
                from sidecar.pool.proxy_header import ProxiedPools  # only for those who use it

                return ProxiedPools(names or (lambda _: OFFERING_NOTHING), partial(named_pool, instead=instead))
            if names is None:
                return named_pool(OFFERING_NOTHING, instead)
            return NamedPools(names, partial(named_pool, instead=instead))

        host.pool = PoolsByOffer(pool, host.pool) if by_offer else pool(())
        if host.removed:  # a request has come late to it: nothing is kept for others
            host.pool.drain()
        return host.pool

    def dialer(self, cluster: Cluster, host: Host) -> Dialer:
        """How connections to a cluster's host are made."""
        config = cluster.config
        tls = None
        if config.transport_socket is not None or config.transport_socket_matches:
            tls = self.tls.of(config, host.metadata)
        bind = config.upstream_bind_config
        keepalive = config.tcp_keepalive
        if keepalive is None and bind is None:
            dialer = Dialer(self.worker, tls=tls)
        else:
            dialer = self._bound_dialer(cluster, () if keepalive is None else _keepalive_options(keepalive), tls)
        version = _proxy_version(config, host)
        if version:
            from sidecar.pool.proxy_header import compile_header  # only for those who use it

            dialer.header = compile_header(version, cluster.stats)
        return dialer

    def _bound_dialer(self, cluster: Cluster, options: tuple[tuple[int, int, int], ...], tls: Any) -> Dialer:
        bind = cluster.config.upstream_bind_config
        if bind is None:
            return Dialer(self.worker, options, tls=tls)
        stats = cluster.stats

        def bind_failed() -> None:
            stats.bind_errors += 1

        sources = tuple(Address(one.address, one.port_value) for one in bind.addresses)
        return Dialer(self.worker, options, sources, tls, bind.freebind, bind_failed)


def _proxy_version(config: ClusterConfig, host: Host) -> str:
    """The PROXY header that begins connections to a host, by the transport socket that it gets; empty for none."""
    version = config.proxy_protocol
    if config.transport_socket_matches:
        from sidecar.config.tls_matches import match_for  # only for those who use it

        match = match_for(config.transport_socket_matches, host.metadata)
        version = version if match is None else match.proxy_protocol
    return version


def _keepalive_options(keepalive: TcpKeepalive) -> tuple[tuple[int, int, int], ...]:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        (socket.TCP_KEEPCNT, keepalive.keepalive_probes),
        (socket.TCP_KEEPIDLE, keepalive.keepalive_time),
        (socket.TCP_KEEPINTVL, keepalive.keepalive_interval),
    ):
        if value is not None:
            options.append((socket.IPPROTO_TCP, name, value))
    return tuple(options)


def _case_of(key_format: object) -> str:
    return "preserve" if isinstance(key_format, PreserveCaseFormatter) else "proper"
