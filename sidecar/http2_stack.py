"""The composition root's part for HTTP/2 to hosts, loaded when a cluster speaks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import Host
from sidecar.codec.http2_keepalive import keepalive_of
from sidecar.codec.http2_options import http2_options
from sidecar.core.tls_options import OFFERING_BOTH, OFFERING_HTTP2, OFFERING_NOTHING, TransportSocketOptions
from sidecar.pool.choice import ChoicePool, DownstreamPool, Http2OnlyPool, NegotiatedPool
from sidecar.pool.dialing import Dialer
from sidecar.pool.http1 import Http1Pool
from sidecar.pool.http2 import Http2Pool
from sidecar.pool.options import PoolOptions
from sidecar.telemetry import tags
from sidecar.telemetry.groups.http2 import Http2CodecStats

if TYPE_CHECKING:
    from sidecar.pool_stack import PoolStack

_POOLS: dict[str, type[ChoicePool]] = {
    "http2": Http2OnlyPool,
    "downstream": DownstreamPool,
    "auto": NegotiatedPool,
}


def choice_pool(
    stack: PoolStack,
    cluster: Cluster,
    host: Host,
    options: PoolOptions,
    dialer: Dialer,
    http1: Callable[[], Http1Pool],
    names: TransportSocketOptions = OFFERING_NOTHING,
) -> ChoicePool:
    """The pool of a host whose cluster speaks HTTP/2, or may; ``names`` are for its TLS."""
    config = cluster.config
    options.keepalive = keepalive_of(config.http2_options.connection_keepalive)
    offering = OFFERING_BOTH if config.upstream_protocol == "auto" else OFFERING_HTTP2
    offering = names.offering(offering.protocols)
    most = (config.common_http_protocol_options.max_response_headers_kb or 60) * 1024

    def http2() -> Http2Pool:
        return Http2Pool(
            stack.worker,
            host,
            cluster.stats,
            cluster.breakers,
            options,
            dialer,
            http2_options(config.http2_options, most, options.max_fields),
            stack.store.shared(Http2CodecStats, *tags.cluster(config.alt_stat_name).below("http2.")),
            stack.texts,
            offering,
        )

    return _POOLS[config.upstream_protocol](http1, http2)
