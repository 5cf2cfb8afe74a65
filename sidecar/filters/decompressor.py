"""The decompressor filter: hands on bodies without their content coding, and tells upstreams that they may compress.

Source: Envoy's ``extensions.filters.http.decompressor.v3.Decompressor``. Unlike Envoy, which hands on what it has got
when a body is corrupt or inflates too far, this filter ends the exchange.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.config.filters.decompressor import Decompressor, DirectionConfig
from sidecar.core.head import Head
from sidecar.core.http_filter import FilterStream
from sidecar.filters.compressor import has_token
from sidecar.filters.content_coding import CodingError, Decoder, compile_decoder
from sidecar.filters.context import FilterContext, NamedFilter

DETAILS = "decompression_failed"


class DecompressorStats(Protocol):
    """What the filter counts in one direction."""

    decompressed: int
    not_decompressed: int
    total_compressed_bytes: int
    total_uncompressed_bytes: int


def add_encoding(accept_encoding: bytes | None, coding: bytes) -> bytes:
    """``accept_encoding`` with ``coding`` at its end, and nowhere else."""
    tokens = [token.strip() for token in (accept_encoding or b"").split(b",")]
    others = [token for token in tokens if token and token.partition(b";")[0].strip() != coding]
    return b",".join([*others, coding])


class DecompressorFilter(NamedFilter):
    """One library in the chain, for both directions."""

    __slots__ = ("_advertises", "_coding", "_make", "_request", "_response", "request_stats", "response_stats")

    lets_pass = True

    def __init__(self, name: str, config: Decompressor, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        word, self._coding, self._make = compile_decoder(config.decompressor_library)
        self._request = config.request_direction_config
        self._response = config.response_direction_config
        self._advertises = config.advertise_accept_encoding and self._response.enabled
        self.request_stats: DecompressorStats = context.stats("decompressor", "", word, "request")
        self.response_stats: DecompressorStats = context.stats("decompressor", "", word, "response")

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Advertise the coding upstream, and decide about the request's body."""
        request = stream.request
        if self._advertises:
            request.set(b"accept-encoding", add_encoding(request.get(b"accept-encoding"), self._coding))
        if not end:
            self._begin(stream, request, self._request, self.request_stats, "request")
        return None

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Decide about the response's body."""
        response = stream.response
        if not end and response is not None:
            self._begin(stream, response, self._response, self.response_stats, "response")
        return None

    def _begin(
        self, stream: FilterStream, head: Head, config: DirectionConfig, stats: DecompressorStats, direction: str
    ) -> None:
        encodings = head.get(b"content-encoding") or b""
        first, _, rest = encodings.partition(b",")
        transformable = config.ignore_no_transform_header or not has_token(head.get(b"cache-control"), b"no-transform")
        if not config.enabled or not transformable or first.strip().lower() != self._coding:
            stats.not_decompressed += 1
            return
        stats.decompressed += 1
        stream.data[self, direction] = self._make()
        head.remove(b"content-length")
        if rest.strip():
            head.set(b"content-encoding", rest.strip())
        else:
            head.remove(b"content-encoding")

    def on_request_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Decompress the request's body; one that cannot be gets 400."""
        decoder: Decoder | None = stream.data.get((self, "request"))
        if decoder is None:
            return data
        try:
            return _decode(decoder, self.request_stats, data, end)
        except CodingError as error:
            stream.reply(400, f"Request body {error}".encode(), details=DETAILS)
            return b""

    def on_response_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Decompress the response's body; one that cannot be ends the stream."""
        decoder: Decoder | None = stream.data.get((self, "response"))
        if decoder is None:
            return data
        try:
            return _decode(decoder, self.response_stats, data, end)
        except CodingError:
            stream.reset(DETAILS)
            return b""


def _decode(decoder: Decoder, stats: DecompressorStats, data: bytes, end: bool) -> bytes:
    stats.total_compressed_bytes += len(data)
    decoded = decoder.decode(data, end)
    stats.total_uncompressed_bytes += len(decoded)
    return decoded
