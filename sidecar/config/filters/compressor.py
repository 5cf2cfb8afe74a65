"""Compressing bodies: `extensions.filters.http.compressor.v3.Compressor`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.filters.compression import CompressorLibrary, GzipCompressor, parse_compressor_library

TYPE = "envoy.extensions.filters.http.compressor.v3.Compressor"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute"

DEFAULT_CONTENT_TYPES = frozenset(
    {
        b"text/html",
        b"text/plain",
        b"text/css",
        b"text/javascript",
        b"text/x-javascript",
        b"text/ecmascript",
        b"text/js",
        b"text/jscript",
        b"text/x-js",
        b"text/xml",
        b"application/javascript",
        b"application/x-javascript",
        b"application/ecmascript",
        b"application/json",
        b"application/x-json",
        b"application/xml",
        b"application/xhtml+xml",
        b"image/svg+xml",
    }
)
"""What is compressed when the configuration names no content types (observed of Envoy 1.40)."""

_LEGACY = ("content_length", "content_type", "disable_on_etag_header", "remove_accept_encoding_header")


@dataclass(frozen=True, slots=True)
class DirectionConfig:
    """Compress bodies of at least `min_content_length` bytes of these content types (lower case, no parameters)."""

    enabled: bool = True
    min_content_length: int = 30
    content_type: frozenset[bytes] = DEFAULT_CONTENT_TYPES


@dataclass(frozen=True, slots=True)
class ResponseDirectionConfig:
    """What more there is to say about responses. `status_header_enabled` adds `x-envoy-compression-status`."""

    common_config: DirectionConfig = DirectionConfig()
    disable_on_etag_header: bool = False
    remove_accept_encoding_header: bool = False
    uncompressible_response_codes: frozenset[int] = frozenset()
    status_header_enabled: bool = False


@dataclass(frozen=True, slots=True)
class Compressor:
    """Requests are compressed only if `request_direction_config` is not None.

    `choose_first`: of several compressors that the client likes equally, the first in the chain is taken.
    """

    compressor_library: CompressorLibrary
    response_direction_config: ResponseDirectionConfig = ResponseDirectionConfig()
    request_direction_config: DirectionConfig | None = None
    choose_first: bool = False


@dataclass(frozen=True, slots=True)
class CompressorPerRoute:
    """Switches the filter off, or overrides what is not None. Not disabled, it compresses responses in any case."""

    disabled: bool
    remove_accept_encoding_header: bool | None = None
    compressor_library: CompressorLibrary | None = None


def parse_compressor(node: Node) -> Compressor:
    """`Compressor`, its deprecated fields included; they count where there is no `response_direction_config`."""
    library, request = node.child("compressor_library"), node.child("request_direction_config")
    return Compressor(
        GzipCompressor() if library is None else parse_compressor_library(library),
        _parse_response_direction(node),
        None if request is None else _parse_direction(request.child("common_config")),
        node.get("choose_first"),
    )


def _parse_response_direction(node: Node) -> ResponseDirectionConfig:
    response = node.child("response_direction_config")
    if response is not None:
        for field in (*_LEGACY, "runtime_enabled"):
            node.ignore(field, "response_direction_config is set, and counts")
        return ResponseDirectionConfig(
            _parse_direction(response.child("common_config")),
            response.get("disable_on_etag_header"),
            response.get("remove_accept_encoding_header"),
            frozenset(response.get("uncompressible_response_codes")),
            response.get("status_header_enabled"),
        )
    return ResponseDirectionConfig(
        DirectionConfig(
            node.runtime_value("runtime_enabled", True),
            node.wrapped("content_length", 30),
            _content_types(node.get("content_type")),
        ),
        node.get("disable_on_etag_header"),
        node.get("remove_accept_encoding_header"),
    )


def _parse_direction(node: Node | None) -> DirectionConfig:
    if node is None:
        return DirectionConfig()
    return DirectionConfig(
        node.runtime_value("enabled", True),
        node.wrapped("min_content_length", 30),
        _content_types(node.get("content_type")),
    )


def _content_types(names: Iterable[str]) -> frozenset[bytes]:
    return frozenset(name.lower().encode() for name in names) or DEFAULT_CONTENT_TYPES


def parse_compressor_per_route(node: Node) -> CompressorPerRoute:
    """`CompressorPerRoute`."""
    overrides = node.child("overrides")
    if overrides is None:
        return CompressorPerRoute(node.get("disabled"))
    library, response = overrides.child("compressor_library"), overrides.child("response_direction_config")
    return CompressorPerRoute(
        False,
        None if response is None else response.wrapped("remove_accept_encoding_header", None),
        None if library is None else parse_compressor_library(library),
    )
