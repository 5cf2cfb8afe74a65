"""Clusters of what comes in: from a sidecar to its own application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2

from controlplane.model.encoded import encode
from controlplane.model.proxy import ProxyType
from controlplane.model.registration import ENDPOINTS_METADATA
from controlplane.model.resource import ResourceKey
from controlplane.model.service import PortProtocol, parse_protocol
from controlplane.pilot import names
from controlplane.pilot.connection_pool import apply_limits, apply_protocol
from controlplane.pilot.memo import Same
from controlplane.pilot.scope import Generated, Workload
from controlplane.pilot.traffic_policy import policy_for

Cluster = cluster_pb2.Cluster
PASSTHROUGH_SOURCE = "127.0.0.6"  # capture lets connections from here through


def inbound_clusters(workload: Workload) -> Iterator[Generated]:
    """One for each port on which the workload takes traffic in, of its Sidecar's `ingress` or of its services."""
    if workload.proxy.type is not ProxyType.SIDECAR:
        return
    scope = workload.scope
    seen: set[str] = set()
    for generated in (*_of_ingress(workload), *_of_services(workload)):
        if generated.resource.name not in seen:
            seen.add(generated.resource.name)
            yield generated
    if workload.proxy.intercepts:
        yield scope.memo.get(("inbound passthrough", Same(scope.mesh)), lambda: _passthrough(workload))


def _of_ingress(workload: Workload) -> Iterator[Generated]:
    sidecar = workload.scope.sidecar
    if sidecar is None or not sidecar.spec.ingress:
        return
    for listener in sidecar.spec.ingress:
        number = listener.port.number
        address = application(workload, number, listener.default_endpoint or "")
        key = ("inbound cluster", number, address, sidecar, listener.port.protocol, Same(workload.scope.mesh))
        protocol = parse_protocol(listener.port.protocol or "")
        pool = listener.connection_pool or sidecar.spec.inbound_connection_pool
        yield workload.scope.memo.get(
            key,
            lambda n=number, a=address, p=protocol, c=pool: _made(workload, n, a, p, c, (), (sidecar.key,)),  # type: ignore[misc]
        )


def _of_services(workload: Workload) -> Iterator[Generated]:
    scope = workload.scope
    sidecar = scope.sidecar
    if sidecar is not None and sidecar.spec.ingress:
        return  # its ingress stands in place of what is derived from services
    for target in workload.targets:
        service, port, number = target.service, target.port, target.number
        address = application(workload, number)
        rule = scope.destination_rule(service.hostname)
        key = ("inbound cluster", number, address, service, port, rule, sidecar, Same(scope.mesh))

        def make(target=target, address=address, rule=rule) -> Generated:  # type: ignore[no-untyped-def]
            policy = policy_for(rule, "", target.port.number)
            pool = policy.connection_pool
            if sidecar is not None and sidecar.spec.inbound_connection_pool is not None:
                pool = sidecar.spec.inbound_connection_pool
            service = target.service
            causes = (
                (*service.origins, *(source.key for source in rule.sources)) if rule is not None else service.origins
            )
            named = ((service.hostname, service.name, service.namespace),)
            pattern = scope.mesh.inbound_cluster_stat_name or ""
            alias = names.stat_name(pattern, service, target.port, target=target.number)
            return _made(workload, target.number, address, target.port.protocol, pool, named, causes, alias)

        yield scope.memo.get(key, make)


def application(workload: Workload, number: int, told: str = "") -> str:
    """Where what comes in on a port goes; "" for the address that it was sent to.

    A Sidecar's `defaultEndpoint` says it, or the node's metadata; otherwise captured connections keep their address, and
    others go to the same port on 127.0.0.1. A `defaultEndpoint` on 0.0.0.0 is the workload's own address.
    """
    if told.startswith("0.0.0.0:"):
        return f"{workload.address}:{told.rpartition(':')[2]}"
    if told:
        return told
    metadata = workload.proxy.metadata.get(ENDPOINTS_METADATA)
    if workload.proxy.intercepts and not (metadata and str(number) in metadata):
        return ""
    return workload.application(number)


def _made(
    workload: Workload,
    number: int,
    address: str,
    protocol: PortProtocol,
    pool: Any,
    services: tuple[tuple[str, str, str], ...],
    causes: tuple[ResourceKey, ...],
    alias: str = "",
) -> Generated:
    mesh = workload.scope.mesh
    cluster = Cluster(name=names.inbound_cluster(number), alt_stat_name=alias)
    if address:
        cluster.type = Cluster.STATIC
        _to(cluster, address)
    else:
        cluster.type = Cluster.ORIGINAL_DST
        cluster.lb_policy = Cluster.CLUSTER_PROVIDED
        _from_passthrough_source(cluster)
    apply_limits(cluster, pool, None, mesh)
    apply_protocol(cluster, protocol, pool, mesh)
    if services:
        told = [{"host": host, "name": name, "namespace": namespace} for host, name, namespace in services]
        cluster.metadata.filter_metadata["istio"].update({"services": told})
    return Generated(encode(cluster.name, cluster), causes)


def _to(cluster: Any, address: str) -> None:
    cluster.load_assignment.cluster_name = cluster.name
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    if address.startswith("unix:"):
        endpoint.address.pipe.path = address.removeprefix("unix:").removeprefix("//")
        return
    host, _, port = address.rpartition(":")
    endpoint.address.socket_address.address = host.strip("[]")
    endpoint.address.socket_address.port_value = int(port)


def _from_passthrough_source(cluster: Any) -> None:
    source = cluster.upstream_bind_config.source_address
    source.address = PASSTHROUGH_SOURCE
    source.port_value = 0


def _passthrough(workload: Workload) -> Generated:
    cluster = Cluster(name=names.INBOUND_PASSTHROUGH, type=Cluster.ORIGINAL_DST, lb_policy=Cluster.CLUSTER_PROVIDED)
    _from_passthrough_source(cluster)
    apply_limits(cluster, None, None, workload.scope.mesh)
    apply_protocol(cluster, PortProtocol.AUTO, None, workload.scope.mesh)
    return Generated(encode(cluster.name, cluster), ())
