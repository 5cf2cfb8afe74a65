"""Resources for those who have no stream: clusters with their endpoints and listeners with their routes inside.

A proxy that polls over REST has nowhere to ask for what a resource refers to by ADS.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from controlplane.model.encoded import Encoded, encode
from controlplane.xds.type_urls import CLUSTER, ENDPOINTS, LISTENER, ROUTES

Resources = Callable[[str, Collection[str] | None], Mapping[str, Encoded]]


def inlined(type_url: str, resources: Resources) -> list[Encoded]:
    """The clusters or listeners of a proxy, each whole in itself; of other types what there is."""
    found = resources(type_url, None)
    if type_url == CLUSTER:
        return _clusters(found, resources)
    if type_url == LISTENER:
        return _listeners(found, resources)
    return list(found.values())


def _clusters(found: Mapping[str, Encoded], resources: Resources) -> list[Encoded]:
    messages: list[Any] = [Cluster.FromString(one.value) for one in found.values()]
    wanted = {one.eds_cluster_config.service_name or one.name for one in messages if one.type == Cluster.EDS}
    endpoints = resources(ENDPOINTS, wanted)
    for message in messages:
        if message.type != Cluster.EDS:
            continue
        name = message.eds_cluster_config.service_name or message.name
        message.type = Cluster.STATIC
        message.ClearField("eds_cluster_config")
        assignment = endpoints.get(name)
        message.load_assignment.CopyFrom(
            ClusterLoadAssignment(cluster_name=message.name)
            if assignment is None
            else ClusterLoadAssignment.FromString(assignment.value)
        )
        message.load_assignment.cluster_name = message.name
    return [encode(one.name, one) for one in messages]


def _listeners(found: Mapping[str, Encoded], resources: Resources) -> list[Encoded]:
    messages: list[Any] = [Listener.FromString(one.value) for one in found.values()]
    managers = [(config, manager) for message in messages for config, manager in _by_rds(message)]
    routes = resources(ROUTES, {manager.rds.route_config_name for _, manager in managers})
    for config, manager in managers:
        name = manager.rds.route_config_name
        table = routes.get(name)
        # Assigning one member of the oneof clears the other.
        manager.route_config.CopyFrom(
            RouteConfiguration(name=name) if table is None else RouteConfiguration.FromString(table.value)
        )
        config.Pack(manager, deterministic=True)
    return [encode(one.name, one) for one in messages]


def _by_rds(listener: Any) -> Iterator[tuple[Any, Any]]:
    """The connection managers of a listener whose routes come by RDS, each with the field that it stands in."""
    chains = list(listener.filter_chains)
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    for chain in chains:
        for one in chain.filters:
            if one.typed_config.Is(HttpConnectionManager.DESCRIPTOR):
                manager: Any = HttpConnectionManager()
                one.typed_config.Unpack(manager)
                if manager.HasField("rds"):
                    yield one.typed_config, manager
