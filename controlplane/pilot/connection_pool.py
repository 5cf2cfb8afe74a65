"""Limits and protocols of a cluster's connections.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#ConnectionPoolSettings
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from controlplane.model.mesh_config import MeshConfig
from controlplane.model.service import PortProtocol
from controlplane.pilot.balancing import set_duration

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UNLIMITED = 2**32 - 1
RETRY_BUDGET_PERCENT = 20.0
RETRY_MIN_CONCURRENCY = 3


def apply_limits(cluster: Any, pool: Any, retry_budget: Any, mesh: MeshConfig) -> None:
    """Sets circuit breakers, the connect timeout and TCP keep-alive.

    Connections and requests are not limited unless the pool says so, as in Istio. Retries are: by the pool's
    `maxRetries`, else by a budget, a share of the requests that are active, so that they cannot multiply an overload.
    """
    tcp = pool.tcp if pool is not None else None
    http = pool.http if pool is not None else None
    timeout = (tcp.connect_timeout if tcp is not None else None) or mesh.connect_timeout
    set_duration(cluster.connect_timeout, timeout)
    limits = cluster.circuit_breakers.thresholds.add()
    limits.max_connections.value = (tcp.max_connections if tcp is not None else None) or UNLIMITED
    limits.max_pending_requests.value = (http.http1_max_pending_requests if http is not None else None) or UNLIMITED
    limits.max_requests.value = (http.http2_max_requests if http is not None else None) or UNLIMITED
    limits.track_remaining = True
    if retry_budget is None and http is not None and http.max_retries:
        limits.max_retries.value = http.max_retries
    else:
        percent = retry_budget.percent if retry_budget is not None else None
        concurrency = retry_budget.min_retry_concurrency if retry_budget is not None else None
        limits.retry_budget.budget_percent.value = RETRY_BUDGET_PERCENT if percent is None else percent
        limits.retry_budget.min_retry_concurrency.value = RETRY_MIN_CONCURRENCY if concurrency is None else concurrency
    keepalive = (tcp.tcp_keepalive if tcp is not None else None) or mesh.tcp_keepalive
    if keepalive is not None:
        out = cluster.upstream_connection_options.tcp_keepalive
        out.SetInParent()
        if keepalive.probes:
            out.keepalive_probes.value = keepalive.probes
        if keepalive.time:
            out.keepalive_time.value = round(keepalive.time)
        if keepalive.interval:
            out.keepalive_interval.value = round(keepalive.interval)


def apply_protocol(
    cluster: Any,
    protocol: PortProtocol,
    pool: Any,
    mesh: MeshConfig,
    *,
    auto_sni: bool = False,
    auto_san_validation: bool = False,
) -> None:
    """Sets the HTTP version of connections, and how long and for how many requests they live.

    A port of a protocol that is found out takes what the client speaks. ``auto_sni`` takes the server name from the
    request, ``auto_san_validation`` looks for it in the certificate. Where it is not HTTP there is nothing to say: the
    listener bounds connections.
    """
    if not (protocol.is_http or protocol is PortProtocol.AUTO):
        return
    options = http_protocol_options_pb2.HttpProtocolOptions()
    tcp = pool.tcp if pool is not None else None
    http = pool.http if pool is not None else None
    if protocol is PortProtocol.AUTO or (protocol.is_http and http is not None and http.use_client_protocol):
        options.use_downstream_protocol_config.http_protocol_options.SetInParent()
        two: Any = options.use_downstream_protocol_config.http2_protocol_options
        two.SetInParent()
    elif speaks_http2(protocol, http, mesh):
        two = options.explicit_http_config.http2_protocol_options
        two.SetInParent()
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
        two = None
    if http is not None:
        if two is not None and http.max_concurrent_streams:
            two.max_concurrent_streams.value = http.max_concurrent_streams
        if http.max_requests_per_connection:
            options.common_http_protocol_options.max_requests_per_connection.value = http.max_requests_per_connection
        if http.idle_timeout is not None:
            set_duration(options.common_http_protocol_options.idle_timeout, http.idle_timeout)
    if tcp is not None and tcp.max_connection_duration is not None:
        set_duration(options.common_http_protocol_options.max_connection_duration, tcp.max_connection_duration)
    if auto_sni:
        options.upstream_http_protocol_options.auto_sni = True
        options.upstream_http_protocol_options.auto_san_validation = auto_san_validation
    if protocol is PortProtocol.HTTP and options == PLAIN_HTTP:
        return  # Envoy's default needs no words
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].Pack(options)


PLAIN_HTTP: Any = http_protocol_options_pb2.HttpProtocolOptions()
PLAIN_HTTP.explicit_http_config.http_protocol_options.SetInParent()


def speaks_http2(protocol: PortProtocol, http: Any, mesh: MeshConfig) -> bool:
    """Whether connections to a port of that protocol are HTTP/2, whatever clients speak."""
    if protocol.is_http and http is not None and http.use_client_protocol:
        return False
    return protocol.is_http2 or (protocol.is_http and upgrades(http, mesh))


def upgrades(http: Any, mesh: MeshConfig) -> bool:
    """Whether HTTP/1.1 goes on as HTTP/2: by the pool, else by the mesh."""
    told = str(http.h2_upgrade_policy or "DEFAULT") if http is not None else "DEFAULT"
    if told == "DEFAULT":
        return mesh.h2_upgrade_policy == "UPGRADE"
    return told == "UPGRADE"
