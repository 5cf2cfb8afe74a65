"""Bootstraps for tests of the whole sidecar, as dicts."""

from __future__ import annotations

from typing import Any

_TYPE = "type.googleapis.com/envoy.extensions."
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router"},
}


def address(port: int) -> dict[str, Any]:
    """A loopback address."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def http_listener(name: str, port: int, routes: list[Any], log: str = "", **manager: Any) -> dict[str, Any]:
    """A listener with an HTTP connection manager; its access log has one line, the path, for each request."""
    access_log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": _TYPE + "access_loggers.file.v3.FileAccessLog",
            "path": log,
            "log_format": {"text_format_source": {"inline_string": "%REQ(:PATH)%\n"}},
        },
    }
    typed = {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [_ROUTER],
        "access_log": [access_log] if log else [],
        **manager,
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}]}
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def cluster(name: str, port: int) -> dict[str, Any]:
    """A cluster of one loopback endpoint."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def direct(text: str) -> dict[str, Any]:
    """A route that answers everything itself."""
    return {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text}}}


def to_cluster(name: str) -> dict[str, Any]:
    """A route that sends everything to a cluster."""
    return {"match": {"prefix": "/"}, "route": {"cluster": name}}


def bootstrap(*listeners: dict[str, Any], clusters: tuple[dict[str, Any], ...] = (), admin: int | None = None) -> Any:
    """The whole; without an administration interface unless its port is given."""
    whole: dict[str, Any] = {"static_resources": {"listeners": list(listeners), "clusters": list(clusters)}}
    if admin is not None:
        whole["admin"] = {"address": address(admin)}
    return whole
