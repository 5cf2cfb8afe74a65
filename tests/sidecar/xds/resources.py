"""Small good resources, whose endpoints and routes come over ADS."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - for the types inside of Any
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from google.protobuf.json_format import ParseDict

from tests.sidecar.bootstraps import address

OVER_ADS = {"ads": {}, "resource_api_version": "V3"}
_TYPE = "type.googleapis.com/envoy.extensions.filters."


def eds_cluster(name: str, **fields: Any) -> Any:
    """A cluster whose endpoints come over ADS, with these fields changed; None removes one."""
    made = {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": OVER_ADS}, **fields}
    return ParseDict({field: value for field, value in made.items() if value is not None}, Cluster())


def assignment(name: str, *ports: int) -> Any:
    """Endpoints on these ports of this machine."""
    endpoints = [{"endpoint": {"address": address(port)}} for port in ports]
    return ParseDict({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}, ClusterLoadAssignment())


def listener(name: str, route: str, port: int = 0, **fields: Any) -> Any:
    """A listener whose routes come over ADS."""
    manager = {
        "@type": _TYPE + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": route, "config_source": OVER_ADS},
        "http_filters": [{"name": "router", "typed_config": {"@type": _TYPE + "http.router.v3.Router"}}],
    }
    document = {
        "name": name,
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        **fields,
    }
    return ParseDict(document, Listener())


def routes(name: str, cluster: str, domain: str = "*") -> Any:
    """Everything to one cluster."""
    routed = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    return ParseDict(
        {"name": name, "virtual_hosts": [{"name": "all", "domains": [domain], "routes": [routed]}]},
        RouteConfiguration(),
    )
