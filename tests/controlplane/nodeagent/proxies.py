"""Two proxies that speak mTLS with one another by what the node agent gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"


def of_agent(name: str) -> dict[str, Any]:
    source = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
    }
    return {"name": name, "sds_config": {"api_config_source": source, "resource_api_version": "V3"}}


def tls(peer: str, *, own: str = "default", roots: str = "ROOTCA") -> dict[str, Any]:
    """A common TLS context: our certificate, and who the peer must be."""
    names = {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}]}
    return {
        "tls_certificate_sds_secret_configs": [of_agent(own)],
        "combined_validation_context": {
            "default_validation_context": names,
            "validation_context_sds_secret_config": of_agent(roots),
        },
    }


def _agent_cluster(socket: Path) -> dict[str, Any]:
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": "sds-grpc",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            protocol: {
                "@type": f"type.googleapis.com/{protocol}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": _endpoint("sds-grpc", {"pipe": {"path": str(socket)}}),
    }


def _endpoint(cluster: str, address: dict[str, Any]) -> dict[str, Any]:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _bootstrap(name: str, admin: int, listener: dict[str, Any], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "node": {"id": name, "cluster": name},
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _listener(port: int, action: dict[str, Any], socket: dict[str, Any] | None = None) -> dict[str, Any]:
    manager = {
        "@type": f"type.googleapis.com/{MANAGER}",
        "stat_prefix": "test",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"type.googleapis.com/{ROUTER}"}}
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if socket is not None:
        chain["transport_socket"] = socket
    return {"name": "in", "address": _address(port), "filter_chains": [chain]}


def server(admin: int, port: int, socket: Path, peer: str, **names: str) -> dict[str, Any]:
    """Answers 200 to whoever is ``peer``."""
    context = {
        "@type": TLS + "DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": tls(peer, **names),
    }
    action = {"direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    listener = _listener(port, action, {"name": "envoy.transport_sockets.tls", "typed_config": context})
    return _bootstrap("server", admin, listener, [_agent_cluster(socket)])


def client(admin: int, port: int, upstream: int, socket: Path, peer: str, **names: str) -> dict[str, Any]:
    """Takes plaintext and goes on to ``peer``; a new connection for each request."""
    context = {"@type": TLS + "UpstreamTlsContext", "common_tls_context": tls(peer, **names)}
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster = {
        "name": "server",
        "type": "STATIC",
        "load_assignment": _endpoint("server", _address(upstream)),
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        "typed_extension_protocol_options": {
            protocol: {
                "@type": f"type.googleapis.com/{protocol}",
                "common_http_protocol_options": {"max_requests_per_connection": 1},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
    listener = _listener(port, {"route": {"cluster": "server", "timeout": "5s"}})
    return _bootstrap("client", admin, listener, [cluster, _agent_cluster(socket)])
