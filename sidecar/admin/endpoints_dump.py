"""The endpoints of a cluster as they are now, for /config_dump?include_eds: `ClusterLoadAssignment` from live hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from sidecar.admin.clusters import address_json, eds_health_status, locality_json
from sidecar.admin.context import ClusterView, HostView
from sidecar.admin.json_text import Array, Object
from sidecar.config.address import SocketAddress

_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def endpoint_config(cluster: ClusterView) -> Object:
    """The assignment inside its Any; hosts of one priority and locality stand together."""
    return Object(_members(cluster))


def _members(cluster: ClusterView) -> Iterator[tuple[str, Any]]:
    yield "@type", _TYPE
    yield "cluster_name", cluster.name
    hosts = cluster.hosts
    if hosts:
        yield "endpoints", Array(Object(_group(key, tuple(group))) for key, group in groupby(hosts, _place))
    yield "policy", {"overprovisioning_factor": cluster.config.load_assignment.policy.overprovisioning_factor}


def _place(host: HostView) -> tuple[int, Any]:
    return host.priority, host.locality


def _group(place: tuple[int, Any], hosts: Iterable[HostView]) -> Iterator[tuple[str, Any]]:
    priority, locality = place
    yield "locality", locality_json(locality)
    yield "lb_endpoints", Array(_endpoint(host) for host in hosts)
    yield "load_balancing_weight", 0
    if priority:
        yield "priority", priority


def _asked_at(host: HostView) -> dict[str, Any]:
    """Where active health checks ask, as far as Envoy says it: of another address the port alone."""
    config = host.health_check
    if config is None:
        return {}
    port = config.port_value or (config.address.port_value if isinstance(config.address, SocketAddress) else 0)
    return {
        **({"port_value": port} if port and port != host.address.port else {}),
        **({"hostname": config.hostname} if config.hostname else {}),
    }


def _endpoint(host: HostView) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"address": address_json(host.address), "health_check_config": _asked_at(host)}
    if host.hostname:
        endpoint["hostname"] = host.hostname
    status = eds_health_status(host.health_flags())
    shown: dict[str, Any] = {"endpoint": endpoint, "health_status": "UNHEALTHY" if status == "DRAINING" else status}
    if host.metadata:
        shown["metadata"] = {"filter_metadata": host.metadata}
    shown["load_balancing_weight"] = host.weight
    return shown
