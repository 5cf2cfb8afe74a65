"""Bootstraps whose explanations are compared with what happens."""

from __future__ import annotations

from typing import Any

_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def typed(name: str, type_url: str, **fields: Any) -> dict[str, Any]:
    """An extension."""
    return {"name": name, "typed_config": {"@type": f"{_FILTERS}.{type_url}", **fields}}


def rbac(policies: dict[str, Any], action: str = "ALLOW") -> dict[str, Any]:
    """The HTTP filter."""
    return typed("envoy.filters.http.rbac", "http.rbac.v3.RBAC", rules={"action": action, "policies": policies})


def policy(permission: Any = None, principal: Any = None) -> dict[str, Any]:
    """One policy; anything where nothing is said."""
    return {"permissions": [permission or {"any": True}], "principals": [principal or {"any": True}]}


def manager(routes: list[dict[str, Any]], filters: list[dict[str, Any]] = [], **fields: Any) -> dict[str, Any]:  # noqa: B006
    """A connection manager with one virtual host."""
    router = typed("envoy.filters.http.router", "http.router.v3.Router")
    return typed(
        "envoy.filters.network.http_connection_manager",
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        http_filters=[*filters, router],
        route_config={"name": "r", "virtual_hosts": [{"name": "shop", "domains": ["*"], "routes": routes}]},
        **fields,
    )


def address(port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    """Of a listener or an endpoint."""
    return {"address": {"socket_address": {"address": host, "port_value": port}}}


def cluster(name: str, *ports: int, **fields: Any) -> dict[str, Any]:
    """A static cluster."""
    endpoints = [{"endpoint": address(port)} for port in ports]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment, **fields}
