"""Bootstraps with HTTP/2 on both sides, as dicts that the sidecar and real Envoy both take."""

from __future__ import annotations

from typing import Any

from tests.sidecar.bootstraps import address, to_cluster
from tests.sidecar.transport.certificates import Authority
from tests.sidecar.transport.serving import inline, trusted

Document = dict[str, Any]
_TYPE = "type.googleapis.com/envoy.extensions."
_TLS = _TYPE + "transport_sockets.tls.v3."
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

AUTHORITY = Authority()
SERVER = AUTHORITY.issue("server", ["server.example", "localhost", "127.0.0.1"], kind="rsa")


def to(cluster: str, prefix: str = "/", *, marked: str = "", **route: Any) -> Document:
    """A route without a deadline, for calls that last; ``marked``: only for requests with this ``x-mark``."""
    made = to_cluster(cluster)
    made["match"] = {"prefix": prefix}
    if marked:
        made["match"]["headers"] = [{"name": "x-mark", "string_match": {"exact": marked}}]
    made["route"].update({"timeout": "0s", **route})
    return made


def listener(name: str, port: int, routes: list[Document], *, tls: bool = False, **manager: Any) -> Document:
    """A listener with an HTTP connection manager that takes what HTTP the client speaks; with TLS by its ALPN."""
    typed = {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router"}}],
        **manager,
    }
    chain: Document = {"filters": [{"name": "http", "typed_config": typed}]}
    if tls:
        common = {"tls_certificates": [inline(SERVER)], "alpn_protocols": ["h2", "http/1.1"]}
        context = {"@type": _TLS + "DownstreamTlsContext", "common_tls_context": common}
        chain["transport_socket"] = {"name": "tls", "typed_config": context}
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def cluster(
    name: str,
    port: int,
    *,
    http2: bool = True,
    tls: bool = False,
    protocol: Document | None = None,
    common: Document | None = None,
    **fields: Any,
) -> Document:
    """A cluster of one loopback endpoint. ``protocol`` is its ``Http2ProtocolOptions``."""
    version = {"http2_protocol_options": protocol or {}} if http2 else {"http_protocol_options": {}}
    options: Document = {"@type": "type.googleapis.com/" + _OPTIONS, "explicit_http_config": version}
    if common:
        options["common_http_protocol_options"] = common
    made: Document = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
        "typed_extension_protocol_options": {_OPTIONS: options},
        **fields,
    }
    if tls:
        inside = {"validation_context": trusted(AUTHORITY), "alpn_protocols": ["h2"]}
        context = {"@type": _TLS + "UpstreamTlsContext", "common_tls_context": inside, "sni": "server.example"}
        made["transport_socket"] = {"name": "tls", "typed_config": context}
    return made


def bootstrap(listeners: list[Document], clusters: list[Document], admin: int) -> Document:
    """The whole."""
    return {
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }
