"""The composition root's part for our own client: the router as the stages see it that ask on their own account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from sidecar.codec.grpc import PREFIX_SIZE
from sidecar.core.address import Address
from sidecar.core.client import ClientOptions, GrpcOptions
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.pool.client import RoutedHttpClient
from sidecar.pool.grpc_client import RoutedGrpcClient
from sidecar.router.hash_policy import compile_hash_policies
from sidecar.router.retry_policy import RetryPolicy
from sidecar.router.route import Route
from sidecar.router.router import Router
from sidecar.telemetry.groups.http_connection_manager import RouterStats

_HTTP: Final = ClientOptions()
_GRPC: Final = GrpcOptions()


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
        self.local_ip = local_ip.encode()
        self.router = Router(worker, stats, cluster_of, pool_of, local_ip=self.local_ip)
        self.router.async_client_stats = stats
        here = Address(local_ip)
        self.connection = ConnectionInfo(0, here, here, worker.clock())

    def http(self, cluster_name: str, options: ClientOptions = _HTTP) -> RoutedHttpClient:
        """A client for HTTP requests to the cluster of that name."""
        route = route_of(cluster_name, options)
        return RoutedHttpClient(
            self.worker, self.router, route, options, self.connection, self.cluster_of, self.local_ip
        )

    def grpc(self, cluster_name: str, options: GrpcOptions = _GRPC) -> RoutedGrpcClient:
        """A client for gRPC calls to the cluster of that name."""
        whole = replace(options, max_response_bytes=options.max_message_bytes + PREFIX_SIZE)
        return RoutedGrpcClient(
            self.http(cluster_name, whole), self.http(cluster_name, replace(options, timeout=0.0)), options
        )

    def __repr__(self) -> str:
        return f"<ClientStack {self.router.stats.rq_total} requests>"


def route_of(cluster_name: str, options: ClientOptions) -> Route:
    """The route that every request of a client takes."""
    route = Route("", "")
    route.cluster_name = cluster_name
    route.timeout = options.timeout or None
    route.retry = None if options.retry is None else RetryPolicy(options.retry)
    route.hash_key = compile_hash_policies(options.hash_policy, make_cookies=False)
    route.priority = int(options.high_priority)
    return route
