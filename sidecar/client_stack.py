"""The composition root's part for our own client: the router as the stages see it that ask on their own account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.cluster.host import Host
from sidecar.codec.grpc import PREFIX_SIZE
from sidecar.config.retry_policy import RetryPolicy as RetryPolicyConfig
from sidecar.core.address import Address
from sidecar.core.client import ClientOptions, GrpcOptions
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.pool.client import RoutedHttpClient
from sidecar.pool.client_stream import Active
from sidecar.pool.grpc_client import RoutedGrpcClient
from sidecar.router.hash_policy import compile_hash_policies
from sidecar.router.retry_policy import RetryPolicy
from sidecar.router.route import Route
from sidecar.router.router import Router
from sidecar.router.upstream_request import UpstreamRequest
from sidecar.telemetry.groups.cluster import ClusterStats
from sidecar.telemetry.groups.http_connection_manager import RouterStats

_HTTP: Final = ClientOptions()
_GRPC: Final = GrpcOptions()
_IF_REFUSED: Final = RetryPolicy(RetryPolicyConfig(frozenset({"refused-stream"})))


class ClientStack:
    """The ``Clients`` of a worker: one router of its own, which counts at ``http.async-client.``, as Envoy's does."""

    def __init__(
        self,
        worker: Worker,
        cluster_of: Callable[[str], Any],
        pool_of: Callable[[Any, Any], Any],
        stats: RouterStats,
        local_ip: str,
    ) -> None:
        self.worker = worker
        self.cluster_of = cluster_of
        self.pool_of = pool_of
        self.local_ip = local_ip.encode()
        self.active = Active()
        self.router = Router(worker, stats, cluster_of, pool_of, local_ip=self.local_ip)
        self.router.async_client_stats = stats
        here = Address(local_ip)
        self.connection = ConnectionInfo(0, here, here, worker.clock())

    def http(self, cluster_name: str, options: ClientOptions = _HTTP) -> RoutedHttpClient:
        """A client for HTTP requests to the cluster of that name."""
        return RoutedHttpClient(
            self.worker,
            self.router,
            *routes_of(cluster_name, options),
            options,
            self.connection,
            self.cluster_of,
            self.local_ip if options.send_x_forwarded_for else b"",
            self.active,
        )

    def grpc(self, cluster_name: str, options: GrpcOptions = _GRPC) -> RoutedGrpcClient:
        """A client for gRPC calls to the cluster of that name."""
        whole, streaming = halves_of(options)
        return RoutedGrpcClient(self.http(cluster_name, whole), self.http(cluster_name, streaming), options)

    def to_host(self, cluster: Any, address: Address, hostname: str = "") -> HostStack:
        """Clients of one host of a cluster."""
        return HostStack(self, OneHost(cluster, address, hostname))

    def close(self) -> None:
        """Fail what is under way: nothing stays behind that waits."""
        self.active.close()

    def __repr__(self) -> str:
        return f"<ClientStack {len(self.active)} of {self.router.stats.rq_total} requests under way>"


class OneHost:
    """A cluster as the router sees it that has one host, which is always picked, and counts for nobody."""

    __slots__ = ("breakers", "config", "host", "name", "outlier", "stats")

    has_several_hosts = False

    def __init__(self, cluster: Any, address: Address, hostname: str) -> None:
        self.name = cluster.name
        self.config = cluster.config
        self.stats = ClusterStats()
        self.breakers = (CircuitBreaker(), CircuitBreaker())
        self.outlier = None
        self.host = Host(address, hostname)

    def pick(self, context: object) -> Host:
        """The host."""
        return self.host

    def __repr__(self) -> str:
        return f"<OneHost {self.host.address.text} as of {self.name}>"


class HostStack:
    """The ``HostClients`` of one host."""

    def __init__(self, clients: ClientStack, cluster: OneHost) -> None:
        self.clients = clients
        self.cluster = cluster
        self.active = Active()
        self.router = Router(clients.worker, RouterStats(), self._cluster_of, clients.pool_of, suppress_headers=True)

    def http(self, options: ClientOptions = _HTTP) -> RoutedHttpClient:
        """A client for HTTP requests to the host."""
        clients = self.clients
        routes = routes_of(self.cluster.name, options)
        return RoutedHttpClient(
            clients.worker, self.router, *routes, options, clients.connection, self._cluster_of, None, self.active
        )

    def grpc(self, options: GrpcOptions = _GRPC) -> RoutedGrpcClient:
        """A client for gRPC calls to the host."""
        whole, streaming = halves_of(options)
        return RoutedGrpcClient(self.http(whole), self.http(streaming), options)

    def close(self) -> None:
        """Fail what is under way and end the connections; the next request makes new ones."""
        self.active.close()
        host = self.cluster.host
        if host.pool is not None:
            self.cluster.host = Host(host.address, host.hostname)
            host.pool.close()

    def _cluster_of(self, name: str) -> OneHost:
        return self.cluster

    def __repr__(self) -> str:
        return f"<HostStack {self.cluster!r}>"


def halves_of(options: GrpcOptions) -> tuple[GrpcOptions, GrpcOptions]:
    """The options of unary calls, and of those in streams."""
    return (
        replace(options, max_response_bytes=options.max_message_bytes + PREFIX_SIZE),
        replace(options, timeout=0.0),
    )


def routes_of(cluster_name: str, options: ClientOptions) -> tuple[Route, Route]:
    """The routes that the requests of a client take: those in pieces, and those that are sent at once.

    The latter are repeated if a host has refused them, whatever is configured: it has not acted on them, and they are
    there to be repeated.
    """
    route = Route("", "")
    route.cluster_name = cluster_name
    route.timeout = options.timeout or None
    route.retry = None if options.retry is None else RetryPolicy(options.retry)
    route.hash_key = compile_hash_policies(options.hash_policy, make_cookies=False)
    route.priority = int(options.high_priority)
    route.upstream_request = UpstreamRequest
    whole = route.copy()
    whole.retry = route.retry or _IF_REFUSED
    return route, whole
