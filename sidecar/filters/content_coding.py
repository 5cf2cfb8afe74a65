"""Content codings: gzip, brotli and zstd, one object for each body. The libraries are loaded when one is configured.

Source: RFC 1952 (gzip), RFC 7932 (brotli), RFC 8878 (zstd); the settings are those of ``envoy.extensions.compression``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

from sidecar.config.filters.compression import (
    BrotliCompressor,
    BrotliDecompressor,
    CompressorLibrary,
    DecompressorLibrary,
    GzipCompressor,
    GzipDecompressor,
    ZstdCompressor,
    ZstdDecompressor,
)

_STRATEGIES = {
    "FILTERED": zlib.Z_FILTERED,
    "HUFFMAN_ONLY": zlib.Z_HUFFMAN_ONLY,
    "RLE": zlib.Z_RLE,
    "FIXED": zlib.Z_FIXED,
}
_GZIP = 16  # added to zlib's window bits
_DEFAULT_RATIO = 100
_ALWAYS_ALLOWED = 64 * 1024  # bytes that any body may inflate to, however short it is
_ZSTD_PIECE = 256  # bytes of input at a time: the library cannot bound its output
_ZSTD_WINDOW = 1 << 23  # what RFC 8878 asks decoders to take


class Encoder(Protocol):
    """Compresses one body."""

    def encode(self, data: bytes, end: bool) -> bytes:
        """What ``data`` becomes, flushed, so that the receiver can use it at once."""
        ...


class CodingError(Exception):
    """A body is not what its content coding says, or inflates beyond its limit."""


class Decoder(Protocol):
    """Decompresses one body."""

    def decode(self, data: bytes, end: bool) -> bytes:
        """What ``data`` becomes. Raises CodingError."""
        ...


class _GzipEncoder:
    __slots__ = ("_compressor",)

    def __init__(self, config: GzipCompressor) -> None:
        strategy = _STRATEGIES.get(config.compression_strategy, zlib.Z_DEFAULT_STRATEGY)
        self._compressor = zlib.compressobj(
            config.compression_level, zlib.DEFLATED, config.window_bits + _GZIP, config.memory_level, strategy
        )

    def encode(self, data: bytes, end: bool) -> bytes:
        compressor = self._compressor
        return compressor.compress(data) + compressor.flush(zlib.Z_FINISH if end else zlib.Z_SYNC_FLUSH)


class _BrotliEncoder:
    __slots__ = ("_compressor",)

    def __init__(self, config: BrotliCompressor, library: Any) -> None:
        modes = {"TEXT": library.MODE_TEXT, "FONT": library.MODE_FONT}
        self._compressor = library.Compressor(
            mode=modes.get(config.encoder_mode, library.MODE_GENERIC),
            quality=config.quality,
            lgwin=config.window_bits,
            lgblock=config.input_block_bits,
        )

    def encode(self, data: bytes, end: bool) -> bytes:
        compressor = self._compressor
        compressed: bytes = compressor.process(data)
        rest: bytes = compressor.finish() if end else compressor.flush()
        return compressed + rest


class _ZstdEncoder:
    __slots__ = ("_compressor", "_flush_block")

    def __init__(self, compressor: Any, flush_block: int) -> None:
        self._compressor = compressor.compressobj()
        self._flush_block = flush_block

    def encode(self, data: bytes, end: bool) -> bytes:
        compressor = self._compressor
        compressed: bytes = compressor.compress(data)
        rest: bytes = compressor.flush() if end else compressor.flush(self._flush_block)
        return compressed + rest


class _Bound:
    """How far a body may inflate: ``ratio`` times what has come of it."""

    __slots__ = ("_came", "_gave", "_ratio")

    def __init__(self, ratio: int) -> None:
        self._ratio = ratio
        self._came = 0
        self._gave = 0

    def came(self, data: bytes) -> None:
        self._came += len(data)

    def room(self) -> int:
        """One byte more than may be given now, so that who gives as much has given too much."""
        return max(self._came * self._ratio, _ALWAYS_ALLOWED) - self._gave + 1

    def give(self, data: bytes, room: int) -> bytes:
        if len(data) >= room:
            raise CodingError(f"inflates more than {self._ratio} times")
        self._gave += len(data)
        return data


class _GzipDecoder:
    __slots__ = ("_bound", "_decompressor", "_window")

    def __init__(self, config: GzipDecompressor) -> None:
        self._window = config.window_bits + _GZIP
        self._bound = _Bound(config.max_inflate_ratio)
        self._decompressor = zlib.decompressobj(self._window)

    def decode(self, data: bytes, end: bool) -> bytes:
        try:
            inflated = self._inflate(data)
        except zlib.error as error:
            raise CodingError(str(error)) from error
        if end and not self._decompressor.eof:
            raise CodingError("ends too early")
        return inflated

    def _inflate(self, data: bytes) -> bytes:
        pieces = []
        self._bound.came(data)
        while data:
            if self._decompressor.eof:  # another member follows
                self._decompressor = zlib.decompressobj(self._window)
            room = self._bound.room()
            pieces.append(self._bound.give(self._decompressor.decompress(data, room), room))
            data = self._decompressor.unused_data
        return b"".join(pieces)


class _BrotliDecoder:
    __slots__ = ("_bound", "_decompressor", "_error")

    def __init__(self, library: Any) -> None:
        self._decompressor = library.Decompressor()
        self._error = library.error
        self._bound = _Bound(_DEFAULT_RATIO)

    def decode(self, data: bytes, end: bool) -> bytes:
        self._bound.came(data)
        room = self._bound.room()
        try:
            inflated: bytes = self._decompressor.process(data, output_buffer_limit=room) if data else b""
        except self._error as error:
            raise CodingError("is no brotli stream") from error
        if end and not self._decompressor.is_finished() and len(inflated) < room:
            raise CodingError("ends too early")
        return self._bound.give(inflated, room)


class _ZstdDecoder:
    __slots__ = ("_bound", "_decompressor", "_error", "_make")

    def __init__(self, library: Any) -> None:
        self._make = library.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj
        self._error = library.ZstdError
        self._decompressor = self._make()
        self._bound = _Bound(_DEFAULT_RATIO)

    def decode(self, data: bytes, end: bool) -> bytes:
        pieces = []
        try:
            for start in range(0, len(data), _ZSTD_PIECE):
                piece = data[start : start + _ZSTD_PIECE]
                self._bound.came(piece)
                while piece:
                    if self._decompressor.eof:  # another frame follows
                        self._decompressor = self._make()
                    room = self._bound.room()
                    pieces.append(self._bound.give(self._decompressor.decompress(piece), room))
                    piece = self._decompressor.unused_data
        except self._error as error:
            raise CodingError("is no zstd stream") from error
        if end and not self._decompressor.eof:
            raise CodingError("ends too early")
        return b"".join(pieces)


def compile_encoder(config: CompressorLibrary) -> tuple[str, bytes, Callable[[], Encoder]]:
    """The library's word in statistics, the content coding, and what makes an encoder for a body.

    Raises ValueError when the library is not installed.
    """
    match config:
        case GzipCompressor():
            return "gzip", b"gzip", lambda: _GzipEncoder(config)
        case BrotliCompressor():
            library = _library("brotli")
            return "brotli", b"br", lambda: _BrotliEncoder(config, library)
        case ZstdCompressor():
            compressor, flush_block = _zstd_compressor(config)
            return "zstd", b"zstd", lambda: _ZstdEncoder(compressor, flush_block)


def compile_decoder(config: DecompressorLibrary) -> tuple[str, bytes, Callable[[], Decoder]]:
    """As ``compile_encoder``, for decompressing."""
    match config:
        case GzipDecompressor():
            return "gzip", b"gzip", lambda: _GzipDecoder(config)
        case BrotliDecompressor():
            brotli = _library("brotli")
            return "brotli", b"br", lambda: _BrotliDecoder(brotli)
        case ZstdDecompressor():
            zstandard = _library("zstandard")
            return "zstd", b"zstd", lambda: _ZstdDecoder(zstandard)


def _zstd_compressor(config: ZstdCompressor) -> tuple[Any, int]:
    library = _library("zstandard")
    strategy = getattr(library, f"STRATEGY_{config.strategy}", None)
    given = {} if strategy is None else {"strategy": strategy}
    parameters = library.ZstdCompressionParameters.from_level(
        config.compression_level, write_checksum=config.enable_checksum, **given
    )
    return library.ZstdCompressor(compression_params=parameters), library.COMPRESSOBJ_FLUSH_BLOCK


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise ValueError(f"the configuration asks for {name}, which is not installed: pip install {name}") from error
