"""How HTTP connections behave: `envoy.config.core.v3.HttpProtocolOptions` and `Http1ProtocolOptions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.core_types import seconds
from sidecar.config.fields import Node

_PRESERVE_CASE = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"


@dataclass(frozen=True, slots=True)
class HttpProtocolOptions:
    """Limits of a connection and its streams: durations in seconds, and 0 is no limit for all of them but the headers'.

    `max_stream_duration`, `max_connection_duration` and `headers_with_underscores_action` (ALLOW, REJECT_REQUEST,
    DROP_HEADER) are downstream's; `max_response_headers_kb` is upstream's; None is 80 for HTTP/1, and
    60 for HTTP/2.
    """

    idle_timeout: float = 3600.0
    max_connection_duration: float = 0.0
    max_headers_count: int = 100
    max_response_headers_kb: int | None = None
    max_stream_duration: float = 0.0
    headers_with_underscores_action: str = "ALLOW"
    max_requests_per_connection: int = 0


@dataclass(frozen=True, slots=True)
class ProperCaseWords:
    """Header names are sent with the first letter of each word in upper case."""


@dataclass(frozen=True, slots=True)
class PreserveCaseFormatter:
    """Header names are sent as they came in."""


HeaderKeyFormat: TypeAlias = ProperCaseWords | PreserveCaseFormatter


@dataclass(frozen=True, slots=True)
class Http1ProtocolOptions:
    """What the HTTP/1 codec accepts and sends. `header_key_format` None sends lower-case names.

    `default_host_for_http_10` is empty when requests without a host are to be refused.
    """

    allow_absolute_url: bool = True
    accept_http_10: bool = False
    default_host_for_http_10: bytes = b""
    header_key_format: HeaderKeyFormat | None = None
    enable_trailers: bool = False


DOWNSTREAM_DEFAULTS = HttpProtocolOptions()
UPSTREAM_DEFAULTS = HttpProtocolOptions()
HTTP1_DEFAULTS = Http1ProtocolOptions()


def parse_downstream_protocol_options(node: Node | None) -> HttpProtocolOptions:
    """`HttpProtocolOptions` of an HTTP connection manager."""
    if node is None:
        return DOWNSTREAM_DEFAULTS
    return HttpProtocolOptions(
        idle_timeout=seconds(node, "idle_timeout", 3600.0),
        max_connection_duration=seconds(node, "max_connection_duration", 0.0),
        max_headers_count=node.wrapped("max_headers_count", 100),
        max_stream_duration=seconds(node, "max_stream_duration", 0.0),
        headers_with_underscores_action=node.enum("headers_with_underscores_action"),
        max_requests_per_connection=node.wrapped("max_requests_per_connection", 0),
    )


def parse_upstream_protocol_options(node: Node | None) -> HttpProtocolOptions:
    """`HttpProtocolOptions` of a cluster."""
    if node is None:
        return UPSTREAM_DEFAULTS
    return HttpProtocolOptions(
        idle_timeout=seconds(node, "idle_timeout", 3600.0),
        max_connection_duration=seconds(node, "max_connection_duration", 0.0),
        max_headers_count=node.wrapped("max_headers_count", 100),
        max_response_headers_kb=node.wrapped("max_response_headers_kb", None),
        max_requests_per_connection=node.wrapped("max_requests_per_connection", 0),
    )


def parse_http1_protocol_options(node: Node | None, *, upstream: bool = False) -> Http1ProtocolOptions:
    """`Http1ProtocolOptions`, of which downstream and upstream have some for themselves."""
    if node is None:
        return HTTP1_DEFAULTS
    node.ignore("use_balsa_parser", "there is one HTTP/1 parser")
    header_key_format = _parse_header_key_format(node.child("header_key_format"))
    trailers = node.get("enable_trailers")
    if upstream:
        return Http1ProtocolOptions(
            header_key_format=header_key_format,
            enable_trailers=trailers,
        )
    return Http1ProtocolOptions(
        allow_absolute_url=node.wrapped("allow_absolute_url", True),
        accept_http_10=node.get("accept_http_10"),
        default_host_for_http_10=node.get("default_host_for_http_10").encode(),
        header_key_format=header_key_format,
        enable_trailers=trailers,
    )


def _parse_header_key_format(node: Node | None) -> HeaderKeyFormat | None:
    if node is None:
        return None
    if node.which("header_format") == "proper_case_words":
        node.child("proper_case_words")
        return ProperCaseWords()
    extension = node.child("stateful_formatter")
    formatter = None if extension is None else extension.extension(known=(_PRESERVE_CASE,))
    if formatter is None:
        return None
    return PreserveCaseFormatter()
