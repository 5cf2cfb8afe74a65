"""Envoy resources in few words, and the bootstrap of a proxy that asks for them."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.json_format import ParseDict

__all__ = ["Router", "bootstrap", "cluster", "endpoints", "listener", "routes"]

_ADS = {"ads": {}, "resource_api_version": "V3"}


def cluster(name: str, **more: Any) -> Any:
    """A cluster whose endpoints come by EDS."""
    fields = {"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": _ADS}, **more}
    return ParseDict(fields, Cluster())


def endpoints(name: str, *ports: int) -> Any:
    """Endpoints on loopback."""
    found = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    locality = {"locality": {"region": "here"}, "load_balancing_weight": 1, "lb_endpoints": found}
    return ParseDict({"cluster_name": name, "endpoints": [locality] if ports else []}, ClusterLoadAssignment())


def routes(name: str, **clusters: str | dict[str, Any]) -> Any:
    """A route configuration that routes `/KEY` to a cluster; `root` is for everything else."""
    table = []
    for key, action in clusters.items():
        path = "/" if key == "root" else f"/{key}"
        table.append({"match": {"prefix": path}, "route": {"cluster": action} if isinstance(action, str) else action})
    return ParseDict(
        {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": table}]}, RouteConfiguration()
    )


def listener(name: str, port: int, route_name: str, **more: Any) -> Any:
    """A listener for HTTP whose routes come by RDS."""
    manager = ParseDict(
        {
            "stat_prefix": name,
            "rds": {"route_config_name": route_name, "config_source": _ADS},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }
            ],
            **more,
        },
        HttpConnectionManager(),
    )
    found: Any = ParseDict(
        {
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager"}]}],
            "enable_reuse_port": False,
        },
        Listener(),
    )
    found.filter_chains[0].filters[0].typed_config.Pack(manager)
    return found


def bootstrap(
    xds_port: int, admin_port: int, *, delta: bool, node: str = "sidecar~127.0.0.1~web-1.shop~shop.svc.cluster.local"
) -> Any:
    """A proxy that has nothing but an ADS server."""
    return {
        "node": {"id": node, "cluster": "web.shop", "metadata": {"NAMESPACE": "shop", "LABELS": {"app": "web"}}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {
            "lds_config": _ADS,
            "cds_config": _ADS,
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {
                                        "endpoint": {
                                            "address": {
                                                "socket_address": {"address": "127.0.0.1", "port_value": xds_port}
                                            }
                                        }
                                    }
                                ]
                            }
                        ],
                    },
                }
            ]
        },
    }
