"""Bootstraps to show."""

from __future__ import annotations

from typing import Any

_TYPE = "type.googleapis.com/envoy.extensions."


def endpoint(port: int, **more: Any) -> dict[str, Any]:
    """An endpoint on the loopback interface."""
    hostname = more.pop("hostname", None)
    made: dict[str, Any] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    if hostname:
        made["hostname"] = hostname
    return {"endpoint": made, **more}


def cluster(name: str, endpoints: list[Any], **more: Any) -> dict[str, Any]:
    """A STATIC cluster."""
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **more,
    }


def http_listener(name: str, routes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A listener with a connection manager whose route configuration is called after it."""
    manager = {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [{"name": "router", "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router"}}],
        "route_config": {"name": f"{name}-routes", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": routes}
        ]},
    }  # fmt: skip
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        **more,
    }


def tcp_listener(name: str, to: str) -> dict[str, Any]:
    """A listener with a TCP proxy."""
    proxy = {"@type": _TYPE + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": to}
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }


VARIED: dict[str, Any] = {
    "node": {
        "id": "n1",
        "cluster": "c1",
        "metadata": {"s": "<a href='x'>&é\u2028\t\x01\"\\/", "n": None, "l": [1, {}]},
        "locality": {"region": "r", "zone": "z", "sub_zone": "sz"},
    },
    "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
    "layered_runtime": {"layers": [
        {"name": "low", "static_layer": {"a": {"b": 1}, "c": "x"}},
        {"name": "high", "static_layer": {"c": "y", "t": True}},
    ]},
    "static_resources": {
        "listeners": [
            http_listener(
                "l1",
                [{"match": {"prefix": "/"}, "route": {"cluster": "b"}}],
                additional_addresses=[{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}],
            ),
            tcp_listener("l2", "a"),
        ],
        "clusters": [
            cluster(
                "b",
                [
                    {"locality": {"region": "r1", "zone": "z1", "sub_zone": "s1"}, "lb_endpoints": [
                        endpoint(19001, hostname="h1", load_balancing_weight=3),
                        endpoint(19002, health_status="UNHEALTHY",
                                 metadata={"filter_metadata": {"envoy.lb": {"canary": True}}}),
                        endpoint(19004, health_status="DEGRADED"),
                        endpoint(19005, health_status="DRAINING"),
                    ]},
                    {"priority": 1, "lb_endpoints": [endpoint(19003)]},
                ],
                alt_stat_name="bb",
                outlier_detection={"consecutive_5xx": 3},
            ),
            cluster(
                "a",
                [{"lb_endpoints": [endpoint(19006)]}],
                circuit_breakers={"thresholds": [{"priority": "HIGH", "max_connections": 5, "retry_budget": {}}]},
            ),
            cluster("empty", []),
        ],
    },
}  # fmt: skip
"""Something of everything that the pages show differently."""


def large(clusters: int, endpoints: int) -> dict[str, Any]:
    """As many clusters with as many endpoints each."""
    return {
        "static_resources": {
            "listeners": [http_listener("l", [{"match": {"prefix": "/"}, "route": {"cluster": "cluster-0"}}])],
            "clusters": [
                cluster(f"cluster-{at}", [{"lb_endpoints": [endpoint(1024 + port) for port in range(endpoints)]}])
                for at in range(clusters)
            ],
        }
    }
