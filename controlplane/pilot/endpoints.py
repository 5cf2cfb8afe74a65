"""Endpoints of a cluster: its ClusterLoadAssignment."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from controlplane.model.encoded import encode
from controlplane.model.proxy import Proxy
from controlplane.model.service import MUTUAL_TLS, Endpoint, Health, PortProtocol, Resolution
from controlplane.pilot import names
from controlplane.pilot.balancing import locality_settings
from controlplane.pilot.locality import arrange, total_weight
from controlplane.pilot.memo import Same
from controlplane.pilot.scope import Generated, Scope
from controlplane.pilot.security.peer_authentication import Mode, NamespacePeers
from controlplane.pilot.traffic_policy import policy_for

_MOST_WEIGHT = 2**31  # Envoy refuses weights that come to more than 2**32 - 1
MUTUAL_TLS_MATCH = {"tlsMode": MUTUAL_TLS}
"""The metadata by which clusters tell endpoints that take mutual TLS."""

_HEALTH = {
    Health.UNHEALTHY: health_check_pb2.UNHEALTHY,
    Health.DRAINING: health_check_pb2.DRAINING,
}


def load_assignment(scope: Scope, cluster: str) -> Generated | None:
    """The endpoints of an EDS cluster for the proxies of a scope; None if they have no cluster of that name.

    An EDS cluster without endpoints gets an empty one: without an answer the proxy would wait for it.
    """
    parts = names.parse_cluster(cluster)
    if parts is None:
        return None
    service = scope.services.get(parts.hostname)
    if service is None or service.resolution is not Resolution.STATIC:
        return None
    port = service.port(parts.port)
    if port is None or port.protocol is PortProtocol.UDP:
        return None
    rule = scope.destination_rule(service.hostname)
    subset = rule.subsets.get(parts.subset) if rule is not None else None
    if parts.subset and subset is None:
        return None
    endpoints = scope.endpoints(service)
    proxy = scope.proxy
    policy = policy_for(rule, parts.subset, parts.port)
    settings = locality_settings(policy, scope.mesh)
    own = tuple(sorted(proxy.labels.items())) if settings is not None and settings.failover_priority else ()
    peers = scope.peers(service.namespace)
    key = ("endpoints", cluster, service, Same(endpoints), rule, Same(scope.mesh), proxy.locality, own, Same(peers))

    def make() -> Generated:
        labels = subset.labels if subset is not None else {}
        message = endpoint_pb2.ClusterLoadAssignment()
        fill_load_assignment(
            message,
            cluster,
            parts.port,
            [
                endpoint
                for endpoint in endpoints
                if parts.port in endpoint.ports
                and is_address(endpoint.address)
                and all(endpoint.labels.get(name) == value for name, value in labels.items())
            ],
            proxy,
            settings,
            peers,
            failover=policy.outlier_detection is not None,
        )
        causes = (*service.origins, *(source.key for source in rule.sources)) if rule is not None else service.origins
        return Generated(encode(cluster, message), causes)

    return scope.memo.brief.get(key, make)


def fill_load_assignment(
    message: Any,
    cluster: str,
    port: int,
    endpoints: Sequence[Endpoint],
    proxy: Proxy,
    settings: Any,
    peers: NamespacePeers,
    *,
    failover: bool,
) -> None:
    """Puts endpoints into a ClusterLoadAssignment, by locality and priority as the proxy sees them.

    ``port`` is the service's; ``settings`` is Istio's LocalityLoadBalancerSetting or None; ``peers`` say what the endpoints
    take; ``failover`` whether outlier detection tells which endpoints fail.
    """
    message.cluster_name = cluster
    divisor = max(1, -(-total_weight(endpoints) // _MOST_WEIGHT))
    for group in arrange(endpoints, proxy, settings, failover=failover):
        locality = message.endpoints.add(priority=group.priority)
        locality.load_balancing_weight.value = max(1, group.weight // divisor)
        place = group.locality
        if place.region or place.zone or place.sub_zone:
            locality.locality.region = place.region
            locality.locality.zone = place.zone
            locality.locality.sub_zone = place.sub_zone
        locality.lb_endpoints.extend(lb_endpoint(endpoint, port, peers, divisor) for endpoint in group.endpoints)


def lb_endpoint(endpoint: Endpoint, port: int, peers: NamespacePeers, divisor: int = 1) -> Any:
    """One endpoint, at its own port for the service's; its weight is divided by ``divisor``."""
    found = endpoint_components_pb2.LbEndpoint()
    address = found.endpoint.address
    if endpoint.address.startswith("unix://"):
        address.pipe.path = endpoint.address.removeprefix("unix://")
    else:
        socket = address.socket_address
        socket.address = endpoint.address
        socket.port_value = endpoint.ports[port]
    found.load_balancing_weight.value = max(1, (endpoint.weight or 1) // divisor)
    if endpoint.health is not Health.HEALTHY:
        found.health_status = _HEALTH[endpoint.health]
    if takes_mutual_tls(endpoint, port, peers):
        found.metadata.filter_metadata["envoy.transport_socket_match"].update(MUTUAL_TLS_MATCH)
    return found


def takes_mutual_tls(endpoint: Endpoint, port: int, peers: NamespacePeers) -> bool:
    """Whether an endpoint takes mutual TLS for a port of the service: its sidecar can, and no policy says DISABLE."""
    if endpoint.tls_mode != MUTUAL_TLS:
        return False
    return not peers.plain or peers.of(endpoint.labels).of_port(endpoint.ports.get(port, 0)) is not Mode.DISABLE


@lru_cache(maxsize=65536)
def is_address(text: str) -> bool:
    """Whether EDS can take it: an IP address or a socket's path; a name would make Envoy refuse all endpoints."""
    if text.startswith("unix://"):
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
