"""The composition root's part for hosts that a server has checked by us (HDS), loaded when a bootstrap has `hds_config`.

server -> `xds/health_discovery.py` -> a cluster that nobody routes to -> health checker (`health_stack.py`) -> host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster as ClusterMessage
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.service.health.v3.hds_pb2 import HealthCheckSpecifier

from sidecar import __version__
from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import ACTIVE_HC_TIMEOUT, DEGRADED_ACTIVE_HC, Host, address_of
from sidecar.cluster.manager import make_cluster
from sidecar.cluster.slices import Slices
from sidecar.config.cluster import parse_cluster
from sidecar.config.config_source import ApiConfigSource
from sidecar.telemetry.groups.server import HealthDiscoveryStats
from sidecar.xds.apply.judging import Refused
from sidecar.xds.backoff import MAX_INTERVAL, BackOff
from sidecar.xds.counters import UncountedStream
from sidecar.xds.discovery import options_of
from sidecar.xds.health_discovery import BASE_INTERVAL, PATH, HealthDiscovery
from sidecar.xds.node import make_node
from sidecar.xds.stream import DiscoveryStream

if TYPE_CHECKING:
    from sidecar.stack import Stack

_CONNECT_SECONDS: Final = 1


def health_discovery(stack: Stack, source: ApiConfigSource) -> HealthDiscovery:
    """The checks that the server of ``source`` asks for, not yet begun."""
    worker = stack.worker
    service = source.grpc_service
    assert service is not None
    client = stack.clients.grpc(service.cluster_name, options_of(service))

    def make_stream(conversation: HealthDiscovery) -> DiscoveryStream:
        backoff = BackOff(worker.random_for("hds"), BASE_INTERVAL, MAX_INTERVAL)
        return DiscoveryStream(
            worker, client, PATH, HealthCheckSpecifier, conversation, backoff, None, UncountedStream()
        )

    return HealthDiscovery(
        worker,
        make_stream,
        make_node(stack.bootstrap.node, __version__),
        lambda message: CheckedCluster(stack, message),
        stack.store.shared(HealthDiscoveryStats, "hds_delegate."),
    )


class CheckedCluster:
    """The ``CheckedHosts`` of one `ClusterHealthCheck`: a cluster beside those that requests go to. Raises ValueError."""

    def __init__(self, stack: Stack, asked: Any) -> None:
        self.stack = stack
        try:
            config = stack.xds.judge.parse(cluster_message(asked), "cluster", asked.cluster_name, parse_cluster)
        except Refused as error:
            raise ValueError(str(error)) from None
        if config.transport_socket_matches:
            stack.tls.add_cluster(config)
        worker = stack.worker
        self.cluster: Cluster = make_cluster(
            config, stack, worker.wheel, Slices(worker.wheel), worker.random, worker.random_for
        )
        stack.count_cluster(config)
        by_address = {host.address.text: host for host in self.cluster.hosts}
        self.hosts = [
            by_address[address_of(endpoint.address).text]
            for group in config.load_assignment.endpoints
            for endpoint in group.lb_endpoints
        ]
        self.cluster.start()

    def statuses(self) -> Sequence[int]:
        return [status_of(host) for host in self.hosts]

    def close(self) -> None:
        self.cluster.close()
        self.stack.forget_cluster(self.cluster)

    def __repr__(self) -> str:
        return f"<CheckedCluster {self.cluster!r}>"


def cluster_message(asked: Any) -> Any:
    """The `Cluster` that has the hosts and checks of a `ClusterHealthCheck`."""
    made = ClusterMessage(name=asked.cluster_name, type=ClusterMessage.STATIC)
    made.connect_timeout.seconds = _CONNECT_SECONDS
    made.health_checks.extend(asked.health_checks)
    made.transport_socket_matches.extend(asked.transport_socket_matches)
    if asked.HasField("upstream_bind_config"):
        made.upstream_bind_config.CopyFrom(asked.upstream_bind_config)
    made.load_assignment.cluster_name = asked.cluster_name
    for group in asked.locality_endpoints:
        endpoints = made.load_assignment.endpoints.add()
        if group.HasField("locality"):
            endpoints.locality.CopyFrom(group.locality)
        for endpoint in group.endpoints:
            endpoints.lb_endpoints.add().endpoint.CopyFrom(endpoint)
    return made


def status_of(host: Host) -> int:
    """How a host is, as reports say it."""
    if host.usable:
        return int(HealthStatus.DEGRADED if host.flags & DEGRADED_ACTIVE_HC else HealthStatus.HEALTHY)
    return int(HealthStatus.TIMEOUT if host.flags & ACTIVE_HC_TIMEOUT else HealthStatus.UNHEALTHY)
