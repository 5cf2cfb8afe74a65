"""The compressor's and the decompressor's directions, and the compressor's deprecated fields."""

from __future__ import annotations

from typing import Any

from sidecar.config.filters import compressor, decompressor
from sidecar.config.filters.compression import GzipCompressor, GzipDecompressor
from sidecar.config.filters.compressor import (
    DEFAULT_CONTENT_TYPES,
    Compressor,
    DirectionConfig,
    ResponseDirectionConfig,
)
from tests.sidecar.config.building import build, build_with_warnings

GZIP = "type.googleapis.com/envoy.extensions.compression.gzip."


def compressing(**fields: Any) -> dict[str, Any]:
    return {"compressor_library": {"name": "l", "typed_config": {"@type": GZIP + "compressor.v3.Gzip"}}, **fields}


def decompressing(**fields: Any) -> dict[str, Any]:
    return {"decompressor_library": {"name": "l", "typed_config": {"@type": GZIP + "decompressor.v3.Gzip"}}, **fields}


def test_only_responses_are_compressed_unless_requests_are_configured() -> None:
    found = build(compressor.TYPE, compressing(), compressor.parse_compressor)
    assert found == Compressor(GzipCompressor())
    assert found.response_direction_config.common_config == DirectionConfig(True, 30, DEFAULT_CONTENT_TYPES)
    assert found.request_direction_config is None
    found = build(compressor.TYPE, compressing(request_direction_config={}), compressor.parse_compressor)
    assert found.request_direction_config == DirectionConfig()


def test_both_directions() -> None:
    document = compressing(
        choose_first=True,
        request_direction_config={"common_config": {"enabled": {"default_value": False, "runtime_key": "k"}}},
        response_direction_config={
            "common_config": {"min_content_length": 100, "content_type": ["Text/HTML", "x/y"]},
            "disable_on_etag_header": True,
            "remove_accept_encoding_header": True,
            "uncompressible_response_codes": [206],
            "status_header_enabled": True,
        },
    )
    assert build(compressor.TYPE, document, compressor.parse_compressor) == Compressor(
        GzipCompressor(),
        ResponseDirectionConfig(
            DirectionConfig(True, 100, frozenset({b"text/html", b"x/y"})), True, True, frozenset({206}), True
        ),
        DirectionConfig(False),
        True,
    )


def test_deprecated_fields_count_without_a_response_direction() -> None:
    document = compressing(
        content_length=50,
        content_type=["a/b"],
        disable_on_etag_header=True,
        remove_accept_encoding_header=True,
        runtime_enabled={"default_value": False, "runtime_key": "k"},
    )
    found = build(compressor.TYPE, document, compressor.parse_compressor)
    assert found.response_direction_config == ResponseDirectionConfig(
        DirectionConfig(False, 50, frozenset({b"a/b"})), True, True
    )


def test_deprecated_fields_are_ignored_beside_a_response_direction() -> None:
    document = compressing(content_length=50, response_direction_config={})
    found, warnings = build_with_warnings(compressor.TYPE, document, compressor.parse_compressor)
    assert found == Compressor(GzipCompressor())
    assert len(warnings) == 1 and "content_length" in warnings[0]


def test_decompressor() -> None:
    document = decompressing(
        request_direction_config={
            "common_config": {"enabled": {"default_value": False, "runtime_key": "k"}},
            "advertise_accept_encoding": False,
        },
        response_direction_config={"common_config": {"ignore_no_transform_header": True}},
    )
    assert build(decompressor.TYPE, document, decompressor.parse_decompressor) == decompressor.Decompressor(
        GzipDecompressor(),
        decompressor.DirectionConfig(False, False),
        decompressor.DirectionConfig(True, True),
        False,
    )
