"""How a cluster's endpoints are spoken to: `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`.

The fields of `Cluster` that it replaces are read here too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.config.core_types import has_plain_transport_socket
from sidecar.config.fields import Node
from sidecar.config.http2_protocol_options import HTTP2_DEFAULTS, Http2ProtocolOptions, parse_http2_protocol_options
from sidecar.config.protocol_options import (
    HTTP1_DEFAULTS,
    UPSTREAM_DEFAULTS,
    Http1ProtocolOptions,
    HttpProtocolOptions,
    parse_http1_protocol_options,
    parse_upstream_protocol_options,
)

if TYPE_CHECKING:
    from sidecar.config.match_predicate import MatchPredicate
    from sidecar.config.tls import UpstreamTlsContext

HTTP_PROTOCOL_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_REPLACED = (
    "common_http_protocol_options", "http_protocol_options", "http2_protocol_options", "upstream_http_protocol_options",
    "protocol_selection",
)  # fmt: skip
"""The fields of `Cluster` that the extension says better."""


@dataclass(frozen=True, slots=True)
class UpstreamHttpProtocolOptions:
    """What TLS to an endpoint takes from the request.

    `auto_sni` sends the request's host as the server name, `auto_san_validation` asks for a certificate for it; both
    look into `override_auto_sni_header` first where it is not empty (a name in lower case).
    """

    auto_sni: bool = False
    auto_san_validation: bool = False
    override_auto_sni_header: bytes = b""


NO_UPSTREAM_HTTP_OPTIONS = UpstreamHttpProtocolOptions()

_upstream_http_options = lru_cache(maxsize=64)(UpstreamHttpProtocolOptions)
"""Equal ones are one object."""


class UpstreamProtocols(NamedTuple):
    """`upstream_protocol` is http1, http2, downstream (the client's own), or auto (what ALPN agrees on).

    `error_matcher` says which responses are errors for outlier detection; None: those of 500 and more.
    """

    upstream_protocol: str = "http1"
    common_http_protocol_options: HttpProtocolOptions = UPSTREAM_DEFAULTS
    http_protocol_options: Http1ProtocolOptions = HTTP1_DEFAULTS
    http2_options: Http2ProtocolOptions = HTTP2_DEFAULTS
    upstream_http_options: UpstreamHttpProtocolOptions = NO_UPSTREAM_HTTP_OPTIONS
    error_matcher: MatchPredicate | None = None


def parse_upstream_protocols(
    cluster: Node, transport_socket: UpstreamTlsContext | None, *, by_requests: bool = False
) -> UpstreamProtocols:
    """What a `Cluster` says about HTTP, in its `typed_extension_protocol_options` or in its own deprecated fields.

    `transport_socket` is what its own was read as: without TLS, or without certificates to trust, some of it is refused.
    `by_requests`: requests name the hosts. Then the names of TLS, too, are theirs unless something else is said.
    """
    extension = None
    for key, packed in cluster.map("typed_extension_protocol_options").items():
        extension = packed.unpacked((HTTP_PROTOCOL_OPTIONS,))
        if key != HTTP_PROTOCOL_OPTIONS:
            packed.refuse(f"{key!r} names no protocol options", do=f"make the key {HTTP_PROTOCOL_OPTIONS}")
    built = _parse_deprecated(cluster)
    if extension is not None:
        _refuse_replaced(cluster)
        built = _parse_extension(extension)
    elif by_requests and not cluster.has("upstream_http_protocol_options"):
        built = built._replace(upstream_http_options=_upstream_http_options(True, True))
    plain = has_plain_transport_socket(cluster)
    if built.upstream_protocol == "auto" and plain:
        cluster.refuse("is required for auto_config: its ALPN chooses", "transport_socket", "set explicit_http_config")
    if built.upstream_http_options.auto_san_validation:
        if (plain and not by_requests) or (
            transport_socket is not None and transport_socket.common_tls_context.validation_context is None
        ):
            cluster.refuse(
                "does not verify certificates, and auto_san_validation asks for it: anybody could claim a name",
                "transport_socket",
                "add a trusted_ca",
            )
    return built


def _refuse_replaced(cluster: Node) -> None:
    for name in _REPLACED:
        if cluster.has(name):
            cluster.refuse(
                "is overridden by typed_extension_protocol_options", name, "move it there, or remove it here"
            )
    # istiod's bootstrap has it beside the extension, in which Envoy alone looks.
    cluster.ignore("max_requests_per_connection", "typed_extension_protocol_options says what holds")


def _parse_extension(extension: Node) -> UpstreamProtocols:
    protocol, http1, http2 = _parse_choice(extension)
    return UpstreamProtocols(
        protocol,
        parse_upstream_protocol_options(extension.child("common_http_protocol_options")),
        parse_http1_protocol_options(http1, upstream=True),
        parse_http2_protocol_options(http2),
        _parse_upstream_http_options(extension.child("upstream_http_protocol_options")),
        _parse_error_matcher(extension.child("outlier_detection")),
    )


def _parse_error_matcher(node: Node | None) -> MatchPredicate | None:
    matcher = None if node is None else node.child("error_matcher")
    if matcher is None:
        return None
    from sidecar.config.match_predicate import parse_match_predicate  # only for those who use it

    return parse_match_predicate(matcher)


def _parse_choice(node: Node) -> tuple[str, Node | None, Node | None]:
    """The protocol, and the options of HTTP/1 and of HTTP/2."""
    match node.which("upstream_protocol_options"):
        case "explicit_http_config":
            explicit = node.child("explicit_http_config")
            if explicit is not None and explicit.which("protocol_config") == "http2_protocol_options":
                return "http2", None, explicit.child("http2_protocol_options")
            return "http1", None if explicit is None else explicit.child("http_protocol_options"), None
        case "use_downstream_protocol_config":
            return ("downstream", *_both(node.child("use_downstream_protocol_config")))
        case "auto_config":
            return ("auto", *_both(node.child("auto_config")))
    return "http1", None, None


def _both(node: Node | None) -> tuple[Node | None, Node | None]:
    if node is None:
        return None, None
    return node.child("http_protocol_options"), node.child("http2_protocol_options")


def _parse_deprecated(cluster: Node) -> UpstreamProtocols:
    common = parse_upstream_protocol_options(cluster.child("common_http_protocol_options"))
    requests = cluster.wrapped("max_requests_per_connection", None)
    if requests is not None and not common.max_requests_per_connection:
        common = replace(common, max_requests_per_connection=requests)
    http1, http2 = cluster.child("http_protocol_options"), cluster.child("http2_protocol_options")
    protocol = "http1" if http2 is None else "http2"
    if cluster.enum("protocol_selection") == "USE_DOWNSTREAM_PROTOCOL":
        protocol = "downstream"
    elif http1 is not None and http2 is not None:
        cluster.refuse("is set together with http_protocol_options", "http2_protocol_options", "keep one of them")
    return UpstreamProtocols(
        protocol,
        common,
        parse_http1_protocol_options(http1, upstream=True),
        parse_http2_protocol_options(http2),
        _parse_upstream_http_options(cluster.child("upstream_http_protocol_options")),
    )


def _parse_upstream_http_options(node: Node | None) -> UpstreamHttpProtocolOptions:
    if node is None:
        return NO_UPSTREAM_HTTP_OPTIONS
    return _upstream_http_options(
        node.get("auto_sni"),
        node.get("auto_san_validation"),
        node.get("override_auto_sni_header").lower().encode(),
    )
