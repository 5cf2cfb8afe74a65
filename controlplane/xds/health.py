"""How workloads are, as their own sidecars find out: the server's half of Envoy's HDS, by the probes of WorkloadGroups.

Source: `envoy.service.health.v3.HealthDiscoveryService`; Istio, *WorkloadGroup*, `probe`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.service.health.v3.hds_pb2 import HealthCheckRequestOrEndpointHealthResponse, HealthCheckSpecifier
from google.protobuf.duration_pb2 import Duration
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from controlplane.model.grpc_calls import bound_requests, first_request
from controlplane.model.proxy import Proxy
from controlplane.xds.admission import Admit, admission, while_admitted
from controlplane.xds.node import InvalidNode, parse_node

log = logging.getLogger("controlplane.xds")

_REPORTS: Final = 1  # seconds between two reports of a sidecar
_CLUSTER: Final = "application"
_WELL: Final = frozenset((HealthStatus.HEALTHY, HealthStatus.DEGRADED))
_WORDS: Final = {
    HealthStatus.UNHEALTHY: "the probe fails",
    HealthStatus.TIMEOUT: "the probe is not answered in time",
    HealthStatus.DRAINING: "the workload drains",
}


def specifier(probe: Any) -> Any:
    """What a sidecar is told to check, from a WorkloadGroup's probe; empty for none.

    Thresholds and times that the probe does not say are Kubernetes' defaults: each 10 s, 1 s, 1 and 3.
    """
    found: Any = HealthCheckSpecifier(interval=Duration(seconds=_REPORTS))
    if probe is None:
        return found
    cluster = found.cluster_health_checks.add(cluster_name=_CLUSTER)
    check = cluster.health_checks.add()
    period = probe.period_seconds or 10
    check.timeout.seconds = probe.timeout_seconds or 1
    for interval in (check.interval, check.no_traffic_interval):
        interval.seconds = period
    check.healthy_threshold.value = probe.success_threshold or 1
    check.unhealthy_threshold.value = probe.failure_threshold or 3
    host, port = "127.0.0.1", 0
    if probe.http_get is not None:
        asked = probe.http_get
        if (asked.scheme or "HTTP").upper() == "HTTPS":
            # Whether the application answers is asked, not who it is, as by Kubernetes' probes.
            socket = cluster.transport_socket_matches.add(name="tls").transport_socket
            socket.name = "envoy.transport_sockets.tls"
            socket.typed_config.Pack(UpstreamTlsContext())
        host, port = asked.host or host, asked.port
        http = check.http_health_check
        http.path, http.host = asked.path or "/", asked.host or "localhost"
        http.expected_statuses.add(start=200, end=400)
        for one in asked.http_headers:
            if one.name.lower() == "host":
                http.host = one.value or http.host
                continue
            header = http.request_headers_to_add.add().header
            header.key, header.value = one.name, one.value or ""
    elif probe.tcp_socket is not None:
        host, port = probe.tcp_socket.host or host, probe.tcp_socket.port
        check.tcp_health_check.SetInParent()
    else:
        port = probe.grpc.port or 0
        check.grpc_health_check.service_name = probe.grpc.service or ""
    address = cluster.locality_endpoints.add().endpoints.add().address.socket_address
    address.address, address.port_value = host, port
    return found


class HealthService:
    """HDS over gRPC. ``probe_of`` is the probe of a proxy's WorkloadGroup, now; ``report`` hears how its workload is; it
    says whether it knows of that workload already.
    """

    def __init__(
        self,
        *,
        admit: Admit | None,
        probe_of: Callable[[Proxy], Any],
        report: Callable[[Proxy, bool, str], Awaitable[bool]],
    ) -> None:
        self.admit = admit
        self.probe_of = probe_of
        self.report = report

    def __mapping__(self) -> dict[str, Handler]:
        """grpclib's table of methods."""
        path = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
        handler = Handler(self._serve, Cardinality.STREAM_STREAM, HealthCheckRequestOrEndpointHealthResponse, bytes)
        return {path: handler}

    async def _serve(self, stream: Stream[Any, Any]) -> None:
        bound_requests(stream)
        first = await first_request(stream)
        if first is None:
            return
        try:
            proxy = parse_node(first.health_check_request.node)
        except InvalidNode as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        admitted = await admission(stream, proxy, self.admit)
        await while_admitted(admitted, self._follow(stream, admitted.proxy))

    async def _follow(self, stream: Stream[Any, Any], proxy: Proxy) -> None:
        """Say what to check, again whenever that is different; pass on what is different in the reports."""
        told: bytes | None = None
        last: bool | None = None
        while True:
            probe = self.probe_of(proxy)
            if told is None and probe is not None and probe.initial_delay_seconds:
                await asyncio.sleep(probe.initial_delay_seconds)
            wanted = bytes(specifier(probe).SerializeToString(deterministic=True))
            if wanted != told:
                await stream.send_message(wanted)
                told, last = wanted, None
            message = await stream.recv_message()
            if message is None:
                return
            healths = [
                endpoint.health_status
                for cluster in message.endpoint_health_response.cluster_endpoints_health
                for locality in cluster.locality_endpoints_health
                for endpoint in locality.endpoints_health
            ] or [endpoint.health_status for endpoint in message.endpoint_health_response.endpoints_health]
            if not healths or probe is None or HealthStatus.UNKNOWN in healths:
                continue
            well = all(health in _WELL for health in healths)
            if well is not last:
                words = next((_WORDS.get(health, "not well") for health in healths if health not in _WELL), "")
                if await self.report(proxy, well, words):
                    last = well
                    log.info("%s is %s", proxy.id, "well" if well else f"not well: {words}")
