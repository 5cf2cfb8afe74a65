"""A static bootstrap from generated listeners and routes, with servers of the test behind every cluster that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf.json_format import MessageToDict

_MANAGER = "envoy.filters.network.http_connection_manager"
_TCP = "envoy.filters.network.tcp_proxy"


def with_routes(listener: Any, routes: Mapping[str, Any]) -> Any:
    """A copy of a listener whose route configurations are within it, and whose secrets are static."""
    made = type(listener)()
    made.CopyFrom(listener)
    for chain in _chains(made):
        for each in chain.filters:
            if each.name == _MANAGER:
                manager = hcm_pb2.HttpConnectionManager.FromString(each.typed_config.value)
                if manager.HasField("rds"):
                    manager.route_config.CopyFrom(routes[manager.rds.route_config_name])
                each.typed_config.Pack(manager)
        if chain.HasField("transport_socket"):
            context = tls_pb2.DownstreamTlsContext.FromString(chain.transport_socket.typed_config.value)
            for secret in context.common_tls_context.tls_certificate_sds_secret_configs:
                secret.ClearField("sds_config")
            combined = context.common_tls_context.combined_validation_context
            if combined.HasField("validation_context_sds_secret_config"):
                combined.validation_context_sds_secret_config.ClearField("sds_config")
            chain.transport_socket.typed_config.Pack(context)
    return made


def cluster_names(listeners: Mapping[str, Any]) -> set[str]:
    """The clusters that listeners (`with_routes`) name."""
    found: set[str] = set()
    for listener in listeners.values():
        for chain in _chains(listener):
            for each in chain.filters:
                if each.name == _MANAGER:
                    manager = hcm_pb2.HttpConnectionManager.FromString(each.typed_config.value)
                    found |= set(_routed(manager.route_config))
                elif each.name == _TCP:
                    proxy = tcp_proxy_pb2.TcpProxy.FromString(each.typed_config.value)
                    found |= {proxy.cluster, *(one.name for one in proxy.weighted_clusters.clusters)} - {""}
    return found


def bootstrap(
    listeners: Mapping[str, Any],
    servers: Mapping[str, int],
    take: Callable[[], int],
    secrets: list[dict[str, Any]] | None = None,
) -> tuple[dict[str, Any], dict[str, int]]:
    """The bootstrap, and the ports of its listeners by name, with `admin` among them; ports are of ``take``.

    ``servers`` are the ports of what is behind each cluster.
    """
    ports = {name: take() for name in [*listeners, "admin"]}
    made = []
    for name, listener in listeners.items():
        listener.address.socket_address.address = "127.0.0.1"
        listener.address.socket_address.port_value = ports[name]
        made.append(MessageToDict(listener, preserving_proto_field_name=True))
    clusters = [
        {
            "name": name,
            "connect_timeout": "1s",
            "type": "STATIC",
            "lb_policy": "RING_HASH",  # the policy that asks for hashes; there is one host anyway
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [_endpoint(port)]}]},
        }
        for name, port in servers.items()
    ]
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": ports["admin"]}}},
        "static_resources": {"listeners": made, "clusters": clusters, "secrets": secrets or []},
    }, ports


def _endpoint(port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


def _chains(listener: Any) -> Iterator[Any]:
    yield from listener.filter_chains
    if listener.HasField("default_filter_chain"):
        yield listener.default_filter_chain


def _routed(configuration: Any) -> Iterator[str]:
    for host in configuration.virtual_hosts:
        for route in host.routes:
            action = route.route
            if action.cluster:
                yield action.cluster
            yield from (each.name for each in action.weighted_clusters.clusters)
            yield from (each.cluster for each in action.request_mirror_policies)
