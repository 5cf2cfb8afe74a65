"""The parts of which the bootstraps are made: listeners, connection managers, routes and clusters as plain dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = dict[str, Any]

HTTP_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
NETWORK_FILTERS = "type.googleapis.com/envoy.extensions.filters.network"
LISTENER_FILTERS = "type.googleapis.com/envoy.extensions.filters.listener"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
HTTP2_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

LOGGED = {
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "protocol": "%PROTOCOL%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "upstream": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}


@dataclass(frozen=True, slots=True)
class Site:
    """What differs between two copies of a bootstrap: ports, and the directory for logs.

    upstreams: ports by name, ``refused`` among them; take: a free port for the listener of this name.
    """

    upstreams: Mapping[str, int]
    take: Callable[[str], int]
    directory: Path


def address(port: int, host: str = "127.0.0.1") -> Message:
    return {"socket_address": {"address": host, "port_value": port}}


def typed(name: str, type_url: str, **fields: Any) -> Message:
    """A named extension with its configuration."""
    return {"name": name, "typed_config": {"@type": type_url, **fields}}


def http_filter(name: str, message: str, **fields: Any) -> Message:
    """``http_filter("rbac", "RBAC", rules=...)``."""
    return typed(f"envoy.filters.http.{name}", f"{HTTP_FILTERS}.{name}.v3.{message}", **fields)


def per_filter(name: str, message: str, **fields: Any) -> Message:
    """An entry of ``typed_per_filter_config``."""
    return {f"envoy.filters.http.{name}": {"@type": f"{HTTP_FILTERS}.{name}.v3.{message}", **fields}}


def network_filter(name: str, message: str, **fields: Any) -> Message:
    return typed(f"envoy.filters.network.{name}", f"{NETWORK_FILTERS}.{name}.v3.{message}", **fields)


def listener_filter(name: str, message: str, **fields: Any) -> Message:
    return typed(f"envoy.filters.listener.{name}", f"{LISTENER_FILTERS}.{name}.v3.{message}", **fields)


def router(**fields: Any) -> Message:
    return http_filter("router", "Router", **fields)


def access_log(site: Site, logged: Mapping[str, str] = LOGGED, file: str = "access.log") -> Message:
    return typed(
        "envoy.access_loggers.file", FILE_LOG, path=str(site.directory / file), log_format={"json_format": dict(logged)}
    )


def route(match: Message | str, action: Message | str = "a", **fields: Any) -> Message:
    """A route; a string for the match is a prefix, for the action a cluster."""
    matched = {"prefix": match} if isinstance(match, str) else match
    act = {"route": {"cluster": action}} if isinstance(action, str) else action
    return {"match": matched, **act, **fields}


def to(cluster: str = "a", **fields: Any) -> Message:
    """A route action to a cluster."""
    return {"route": {"cluster": cluster, **fields}}


def say(status: int, body: str = "") -> Message:
    """A direct response."""
    return {"direct_response": {"status": status, **({"body": {"inline_string": body}} if body else {})}}


def virtual_host(name: str, domains: Sequence[str], routes: Sequence[Message], **fields: Any) -> Message:
    return {"name": name, "domains": list(domains), "routes": list(routes), **fields}


def manager(
    site: Site,
    routes: Sequence[Message] = (),
    *,
    filters: Sequence[Message] = (),
    hosts: Sequence[Message] = (),
    route_config: Message | None = None,
    **fields: Any,
) -> Message:
    """The HTTP connection manager, with the router last and every line logged."""
    config = {
        "name": "local",
        "virtual_hosts": list(hosts) or [virtual_host("all", ["*"], routes or [route("/")])],
        **(route_config or {}),
    }
    return network_filter(
        "http_connection_manager",
        "HttpConnectionManager",
        **{
            "stat_prefix": "ingress",
            "route_config": config,
            "http_filters": [*filters, router()],
            "delayed_close_timeout": "0.1s",
            "access_log": [access_log(site)],
            **fields,
        },
    )


def listener(site: Site, name: str, *filters: Message, **fields: Any) -> Message:
    """A listener with one filter chain, or with those that ``fields`` gives."""
    chains = {"filter_chains": [{"filters": list(filters)}]} if filters else {}
    return {"name": name, "address": address(site.take(name)), **chains, **fields}


def endpoint(site: Site, upstream: str, **fields: Any) -> Message:
    return {"endpoint": {"address": address(site.upstreams[upstream])}, **fields}


def cluster(site: Site, name: str, upstreams: Sequence[str] | None = None, **fields: Any) -> Message:
    """A static cluster of upstreams; of the one with the cluster's own name when none are given."""
    named = upstreams if upstreams is not None else [] if "load_assignment" in fields else [name]
    endpoints = [endpoint(site, upstream) for upstream in named]
    return {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}] if endpoints else []},
        **fields,
    }


def bootstrap(site: Site, listeners: Sequence[Message], clusters: Sequence[Message] = (), **fields: Any) -> Message:
    """The whole, with clusters ``a``, ``b``, ``c``, ``refused`` and ``empty`` unless those names are given."""
    given = {one["name"] for one in clusters}
    usual = [cluster(site, name) for name in ("a", "b", "c", "refused") if name not in given]
    if "empty" not in given:
        usual.append(cluster(site, "empty", []))
    return {
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": address(site.take("admin"))},
        "static_resources": {"listeners": list(listeners), "clusters": [*usual, *clusters]},
        **fields,
    }
