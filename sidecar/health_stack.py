"""The composition root's part for active health checks, loaded when a cluster has them.

health checker -> probe -> pool or connection of its own -> host; `cluster/health_checks/` has the checks, `pool/` what
carries them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.cluster.cluster import Cluster
from sidecar.cluster.health_checks.checker import HealthChecker
from sidecar.cluster.health_checks.events import HealthCheckEvents
from sidecar.cluster.health_checks.grpc import PATH, GrpcCheck, GrpcProbe, request_message
from sidecar.cluster.health_checks.http import HttpCheck, HttpProbe
from sidecar.cluster.health_checks.results import Outcome, Probe
from sidecar.cluster.health_checks.tcp import TcpProbe
from sidecar.cluster.host import FAILED_ACTIVE_HC, Host, address_of
from sidecar.codec.grpc import FramingError, MessageReader, frame
from sidecar.codec.http2_keepalive import keepalive_of
from sidecar.codec.http2_options import http2_options
from sidecar.config.circuit_breakers import UNLIMITED
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.core_types import Metadata
from sidecar.config.health_check import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead
from sidecar.core.matching import compile_string
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.tls_options import OFFERING_HTTP2, OFFERING_NOTHING
from sidecar.pool.grpc_client import grpc_timeout
from sidecar.pool.http1 import Http1Pool
from sidecar.pool.http2 import Http2Pool
from sidecar.pool.options import PoolOptions
from sidecar.router.header_mutation import MutateHead, compile_header_mutations
from sidecar.telemetry import tags
from sidecar.telemetry.formatter import compile_header_value
from sidecar.telemetry.groups.cluster import ClusterStats, HealthCheckStats
from sidecar.telemetry.groups.http2 import Http2CodecStats

if TYPE_CHECKING:
    from sidecar.stack import Stack

_USER_AGENT = (b"user-agent", b"Envoy/HC")
_MATCH = "envoy.transport_socket_match"
_NAMES = {HttpHealthCheck: "HTTP", TcpHealthCheck: "TCP", GrpcHealthCheck: "GRPC"}


def health_checker(stack: Stack, cluster: Cluster) -> HealthChecker:
    """The health checks that a cluster is configured with. Raises OSError for an event log that does not open."""
    config: ClusterConfig = cluster.config
    check = config.health_check
    assert check is not None
    worker = stack.worker
    traffic: Any = cluster.stats
    stats = stack.store.shared(HealthCheckStats, *tags.cluster(config.alt_stat_name).below("health_check."))
    checker = HealthChecker(
        check,
        stats,
        HealthCheckEvents(
            _NAMES[type(check.checker)],
            config.name,
            [stack.log_files.open(path).write for path in check.event_log_paths],
            lambda: worker.epoch + worker.clock(),
        ),
        _probes(stack, cluster, check, stats),
        lambda: bool(traffic.used("upstream_cx_total")),
        cluster.refresh_health,
        worker.wheel,
        worker.random_for(f"health checks {config.name}"),
        exclude_new=config.type == "STRICT_DNS" and config.common_lb_config.ignore_new_hosts_until_first_hc,
        presume_healthy=config.type == "LOGICAL_DNS",
    )
    checker.on_checked = (_consequences(stack, cluster),)
    return checker


def _consequences(stack: Stack, cluster: Cluster) -> Callable[[Host, bool, bool], None]:
    """What a check does besides the host's flags: an ejected host that is well comes back; over the connections of one that
    fails no further request goes, and those of TCP proxies end if that is configured.
    """
    closes = cluster.config.close_connections_on_host_health_failure

    def on_checked(host: Host, changed: bool, healthy: bool) -> None:
        if healthy:
            if cluster.outlier is not None:
                cluster.outlier.host_became_healthy(host)
        elif changed and host.flags & FAILED_ACTIVE_HC:
            if host.pool is not None:
                host.pool.drain_connections()
            if closes:
                stack.end_tcp_sessions(host)

    return on_checked


def _probes(stack: Stack, cluster: Cluster, check: HealthCheck, stats: HealthCheckStats) -> Callable[[Outcome], Probe]:
    """What makes the probe of a host."""
    how = check.checker
    connections = CheckConnections(stack, cluster, check)
    if isinstance(how, TcpHealthCheck):
        return lambda outcome: TcpProbe(how, check.reuse_connection, outcome, connections)
    if isinstance(how, GrpcHealthCheck):
        call = GrpcCheck(
            connections.requests(
                b"POST",
                PATH,
                how.authority,
                [
                    (b"te", b"trailers"),
                    (b"grpc-timeout", grpc_timeout(check.timeout)),
                    (b"content-type", b"application/grpc"),
                    _USER_AGENT,
                ],
                compile_header_mutations(how.initial_metadata, (), compile_header_value),
            ),
            frame(request_message(how.service_name)),
            MessageReader,
            FramingError,
        )
        return lambda outcome: GrpcProbe(call, outcome, connections)
    matches = None if how.service_name_matcher is None else compile_string(how.service_name_matcher)
    random = stack.worker.random_for(f"health checks {cluster.config.name} verified")

    def is_verified() -> bool:
        if random.random() * 100 >= check.verify_cluster:
            return False
        stats.verify_cluster += 1
        return True

    request = HttpCheck(
        how,
        connections.requests(
            how.method.encode(),
            how.path.encode(),
            how.host,
            [_USER_AGENT],
            compile_header_mutations(how.request_headers_to_add, how.request_headers_to_remove, compile_header_value),
            len(how.send),
        ),
        matches,
        is_verified,
    )
    return lambda outcome: HttpProbe(request, outcome, connections)


class CheckedCluster(NamedTuple):
    """As much of a cluster as dialling looks at."""

    name: str
    config: ClusterConfig


class CheckConnections:
    """The ``Connections`` of a cluster's checks: with its transport socket and protocol options, and counted nowhere but at
    the codec's and TLS's statistics, as Envoy does.
    """

    def __init__(self, stack: Stack, cluster: Cluster, check: HealthCheck) -> None:
        self.stack = stack
        self.check = check
        self.config = _with_alpn(cluster.config, check)
        self.cluster: Any = CheckedCluster(cluster.name, self.config)
        how = check.checker
        self.http2 = isinstance(how, GrpcHealthCheck) or (isinstance(how, HttpHealthCheck) and how.http2)
        self.stats = ClusterStats()
        self.counters: Any = cluster.stats
        self.breakers = (_unlimited(), _unlimited())
        common = self.config.common_http_protocol_options
        self.options = PoolOptions(
            connect_timeout=check.timeout,
            idle_timeout=common.idle_timeout or float("inf"),
            max_requests=0 if check.reuse_connection else 1,
            buffer_limit=self.config.per_connection_buffer_limit_bytes,
            max_head_bytes=(common.max_response_headers_kb or 80) * 1024,
            max_fields=common.max_headers_count,
        )
        self.options.keepalive = keepalive_of(self.config.http2_options.connection_keepalive)
        if self.config is not cluster.config:
            stack.tls.add_cluster(self.config, variant_of=cluster.config)

    def address_of(self, host: Host) -> Address:
        how = host.health_check
        if how is None:
            return host.address
        address = host.address if how.address is None else address_of(how.address)
        return Address(address.ip, how.port_value) if how.port_value and address.ip is not None else address

    def pool(self, host: Host, address: Address) -> Http1Pool | Http2Pool:
        stack, asked = self.stack, self._asked(host, address)
        dialer = stack.dialer(self.cluster, asked)
        if not self.http2:
            return Http1Pool(
                stack.worker,
                asked,
                self.stats,
                self.breakers,
                self.options,
                dialer,
                stack.response_lines,
                OFFERING_NOTHING,
            )
        config = self.config
        most = (config.common_http_protocol_options.max_response_headers_kb or 60) * 1024
        return Http2Pool(
            stack.worker,
            asked,
            self.stats,
            self.breakers,
            self.options,
            dialer,
            http2_options(config.http2_options, most, self.options.max_fields),
            stack.store.shared(Http2CodecStats, *tags.cluster(config.alt_stat_name).below("http2.")),
            stack.texts,
            OFFERING_HTTP2,
        )

    def dial(self, host: Host, address: Address, protocol: Any, connected: Any) -> None:
        asked = self._asked(host, address)
        dialer = self.stack.dialer(self.cluster, asked)
        dialer.dial(address, protocol, self.check.timeout, connected, asked.hostname, OFFERING_NOTHING)

    def count_protocol_error(self) -> None:
        self.counters.upstream_cx_protocol_error += 1

    def clock(self) -> float:
        return self.stack.worker.clock()

    def settle(self) -> None:
        cork = self.stack.worker.cork
        if cork.waiting:
            cork.settle()

    def requests(
        self,
        method: bytes,
        path: bytes,
        authority: str,
        fields: Sequence[Field],
        mutate: MutateHead | None,
        length: int = 0,
    ) -> Callable[[Host], RequestHead]:
        """What makes the head of a check of a host."""
        stack, name = self.stack, self.cluster.name
        worker = stack.worker
        here = Address(stack.local_ip)
        connection = ConnectionInfo(0, here, here, worker.clock())

        def request(host: Host) -> RequestHead:
            own = "" if host.health_check is None else host.health_check.hostname
            head = RequestHead(
                method, path, (own or authority or name).encode(), list(fields), 20 if self.http2 else 11
            )
            if self._is_secure(host):
                head.scheme = b"https"
            if mutate is not None:
                now = worker.clock()
                stream = StreamInfo(connection, head, now + worker.epoch, now)
                stream.host, stream.cluster_name = host, name
                mutate(head, stream)
            if length:
                head.set(b"content-length", b"%d" % length)
            return head

        return request

    def _asked(self, host: Host, address: Address) -> Host:
        """The host as its pool sees it: what is counted there is not the host's."""
        return Host(address, host.hostname, metadata=self._metadata(host))

    def _metadata(self, host: Host) -> Metadata:
        """What the transport socket is chosen by."""
        criteria = self.check.transport_socket_match_criteria
        return host.metadata if criteria is None else {_MATCH: dict(criteria)}

    def _is_secure(self, host: Host) -> bool:
        config = self.config
        if config.transport_socket is None and not config.transport_socket_matches:
            return False
        return self.stack.tls.of(config, self._metadata(host)) is not None

    def __repr__(self) -> str:
        return f"<CheckConnections of {self.cluster.name}>"


def _unlimited() -> CircuitBreaker:
    """Checks are as many as there are hosts, and each has its time limit."""
    return CircuitBreaker(UNLIMITED, UNLIMITED, UNLIMITED)


def _with_alpn(config: ClusterConfig, check: HealthCheck) -> ClusterConfig:
    """The cluster as its checks see it: under a name of its own where they offer other protocols by ALPN."""
    alpn = check.alpn_protocols
    if not alpn:
        return config

    def offering(context: Any) -> Any:
        if context is None:
            return None
        return replace(context, common_tls_context=replace(context.common_tls_context, alpn_protocols=alpn))

    return replace(
        config,
        name=f"{config.name} (health checks)",
        transport_socket=offering(config.transport_socket),
        transport_socket_matches=tuple(
            replace(match, transport_socket=offering(match.transport_socket))
            for match in config.transport_socket_matches
        ),
    )
