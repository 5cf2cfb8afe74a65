"""Decompressing bodies: `extensions.filters.http.decompressor.v3.Decompressor`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.filters.compression import DecompressorLibrary, GzipDecompressor, parse_decompressor_library

TYPE = "envoy.extensions.filters.http.decompressor.v3.Decompressor"


@dataclass(frozen=True, slots=True)
class DirectionConfig:
    """Whether bodies of one direction are decompressed; `ignore_no_transform_header`: even against `no-transform`."""

    enabled: bool = True
    ignore_no_transform_header: bool = False


@dataclass(frozen=True, slots=True)
class Decompressor:
    """`advertise_accept_encoding`: tell the upstream in `accept-encoding` that it may compress."""

    decompressor_library: DecompressorLibrary
    request_direction_config: DirectionConfig = DirectionConfig()
    response_direction_config: DirectionConfig = DirectionConfig()
    advertise_accept_encoding: bool = True


def parse_decompressor(node: Node) -> Decompressor:
    """`Decompressor`."""
    library = node.child("decompressor_library")
    request, response = node.child("request_direction_config"), node.child("response_direction_config")
    return Decompressor(
        GzipDecompressor() if library is None else parse_decompressor_library(library),
        _parse_direction(request),
        _parse_direction(response),
        True if request is None else request.wrapped("advertise_accept_encoding", True),
    )


def _parse_direction(node: Node | None) -> DirectionConfig:
    common = None if node is None else node.child("common_config")
    if common is None:
        return DirectionConfig()
    return DirectionConfig(common.runtime_value("enabled", True), common.get("ignore_no_transform_header"))
