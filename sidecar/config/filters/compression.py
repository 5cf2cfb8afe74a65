"""The compression libraries and their settings: `envoy.extensions.compression.*`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class GzipCompressor:
    """zlib's settings. `compression_level` is zlib's number, -1 for its default; the strategy is Envoy's name."""

    memory_level: int = 5
    compression_level: int = -1
    compression_strategy: str = "DEFAULT_STRATEGY"
    window_bits: int = 12


@dataclass(frozen=True, slots=True)
class BrotliCompressor:
    """Brotli's settings; the mode is Envoy's name: DEFAULT, GENERIC, TEXT or FONT."""

    quality: int = 3
    encoder_mode: str = "DEFAULT"
    window_bits: int = 18
    input_block_bits: int = 24


@dataclass(frozen=True, slots=True)
class ZstdCompressor:
    """Zstandard's settings; the strategy is Envoy's name, DEFAULT for the level's own."""

    compression_level: int = 3
    enable_checksum: bool = False
    strategy: str = "DEFAULT"


@dataclass(frozen=True, slots=True)
class GzipDecompressor:
    """Bodies that grow more than `max_inflate_ratio` times are not inflated further."""

    window_bits: int = 15
    max_inflate_ratio: int = 100


@dataclass(frozen=True, slots=True)
class BrotliDecompressor:
    """Brotli has no settings that make a difference."""


@dataclass(frozen=True, slots=True)
class ZstdDecompressor:
    """Zstandard has no settings that make a difference."""


CompressorLibrary: TypeAlias = GzipCompressor | BrotliCompressor | ZstdCompressor
DecompressorLibrary: TypeAlias = GzipDecompressor | BrotliDecompressor | ZstdDecompressor

_CHUNKS = "what a library gives is sent as it comes"
_ZLIB_LEVELS = {"DEFAULT_COMPRESSION": -1, "BEST_SPEED": 1, "BEST_COMPRESSION": 9} | {
    f"COMPRESSION_LEVEL_{level}": level for level in range(1, 10)
}


def _parse_gzip_compressor(node: Node) -> CompressorLibrary:
    node.ignore("chunk_size", _CHUNKS)
    return GzipCompressor(
        node.wrapped("memory_level", 5),
        _ZLIB_LEVELS.get(node.enum("compression_level"), -1),
        node.enum("compression_strategy"),
        node.wrapped("window_bits", 12),
    )


def _parse_brotli_compressor(node: Node) -> CompressorLibrary:
    node.ignore("chunk_size", _CHUNKS)
    node.ignore("disable_literal_context_modeling", "the brotli library has no such setting")
    return BrotliCompressor(
        node.wrapped("quality", 3),
        node.enum("encoder_mode"),
        node.wrapped("window_bits", 18),
        node.wrapped("input_block_bits", 24),
    )


def _parse_zstd_compressor(node: Node) -> CompressorLibrary:
    node.ignore("chunk_size", _CHUNKS)
    return ZstdCompressor(
        node.wrapped("compression_level", 3),
        node.get("enable_checksum"),
        node.enum("strategy"),
    )


def _parse_gzip_decompressor(node: Node) -> DecompressorLibrary:
    node.ignore("chunk_size", _CHUNKS)
    return GzipDecompressor(
        node.wrapped("window_bits", 15),
        node.wrapped("max_inflate_ratio", 100),
    )


def _parse_brotli_decompressor(node: Node) -> DecompressorLibrary:
    node.ignore("chunk_size", _CHUNKS)
    node.ignore("disable_ring_buffer_reallocation", "the brotli library has no such setting")
    return BrotliDecompressor()


def _parse_zstd_decompressor(node: Node) -> DecompressorLibrary:
    node.ignore("chunk_size", _CHUNKS)
    return ZstdDecompressor()


_COMPRESSORS: Mapping[str, Callable[[Node], CompressorLibrary]] = {
    "envoy.extensions.compression.gzip.compressor.v3.Gzip": _parse_gzip_compressor,
    "envoy.extensions.compression.brotli.compressor.v3.Brotli": _parse_brotli_compressor,
    "envoy.extensions.compression.zstd.compressor.v3.Zstd": _parse_zstd_compressor,
}
_DECOMPRESSORS: Mapping[str, Callable[[Node], DecompressorLibrary]] = {
    "envoy.extensions.compression.gzip.decompressor.v3.Gzip": _parse_gzip_decompressor,
    "envoy.extensions.compression.brotli.decompressor.v3.Brotli": _parse_brotli_decompressor,
    "envoy.extensions.compression.zstd.decompressor.v3.Zstd": _parse_zstd_decompressor,
}


def parse_compressor_library(node: Node) -> CompressorLibrary:
    """The TypedExtensionConfig of a compressor; gzip stands in for one that is refused."""
    config = node.extension(known=_COMPRESSORS)
    parse = None if config is None else _COMPRESSORS.get(config.type_name)
    return GzipCompressor() if config is None or parse is None else parse(config)


def parse_decompressor_library(node: Node) -> DecompressorLibrary:
    """The TypedExtensionConfig of a decompressor; gzip stands in for one that is refused."""
    config = node.extension(known=_DECOMPRESSORS)
    parse = None if config is None else _DECOMPRESSORS.get(config.type_name)
    return GzipDecompressor() if config is None or parse is None else parse(config)
