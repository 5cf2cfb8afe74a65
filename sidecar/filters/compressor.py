"""The compressor filter: compresses responses for clients that accept it, and requests where configured.

Source: Envoy's ``extensions.filters.http.compressor.v3.Compressor``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sidecar.config.filters.compressor import Compressor, CompressorPerRoute, DirectionConfig
from sidecar.core.head import Head, RequestHead, ResponseHead
from sidecar.core.http_filter import FilterStream
from sidecar.core.matching import parse_unsigned
from sidecar.filters.accept_encoding import Choice, choose_coding
from sidecar.filters.content_coding import Encoder, compile_encoder
from sidecar.filters.context import FilterContext, NamedFilter

_COMPRESSORS = "compressors of this stream"
_CHOICE = "content coding of this stream"


class CompressorStats(Protocol):
    """What the filter counts in one direction."""

    compressed: int
    content_length_too_small: int
    not_compressed: int
    total_compressed_bytes: int
    total_uncompressed_bytes: int


class CompressorResponseStats(Protocol):
    """What it counts of the clients' wishes."""

    header_compressor_overshadowed: int
    header_compressor_used: int
    header_identity: int
    header_not_valid: int
    header_wildcard: int
    no_accept_header: int
    not_compressed_etag: int


class _State:
    """What the filter knows of one stream."""

    __slots__ = ("accept_encoding", "request", "response")

    def __init__(self, accept_encoding: bytes | None) -> None:
        self.accept_encoding = accept_encoding
        self.request: Encoder | None = None
        self.response: Encoder | None = None


def has_token(value: bytes | None, token: bytes) -> bool:
    """Whether a comma-separated header names ``token`` (lower case), in any case."""
    return value is not None and any(part.strip().lower() == token for part in value.split(b","))


def _content_type_fits(config: DirectionConfig, head: Head) -> bool:
    content_type = head.get(b"content-type")
    return content_type is None or content_type.partition(b";")[0].strip().lower() in config.content_type


def _transfer_encoding_fits(head: Head) -> bool:
    value = head.get(b"transfer-encoding")
    return value is None or not any(has_token(value, coding) for coding in (b"gzip", b"deflate"))


class CompressorFilter(NamedFilter):
    """One library in the chain, for responses."""

    __slots__ = ("_make", "_response", "coding", "config", "response_stats", "stats")

    lets_pass = True

    def __init__(self, name: str, config: Compressor, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        word, self.coding, self._make = compile_encoder(config.compressor_library)
        self.config = config
        self._response = config.response_direction_config
        self.stats: CompressorStats = context.stats("compressor", "", word, "")
        self.response_stats: CompressorResponseStats = context.stats("compressor_response", "", word, "")

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Remember what the client accepts."""
        request = stream.request
        data = stream.data
        state = data[self] = _State(request.get(b"accept-encoding"))
        if self._response.common_config.enabled:
            data.setdefault(_COMPRESSORS, []).append(self)
            if self._response.remove_accept_encoding_header:
                request.remove(b"accept-encoding")
        self._begin_request(stream, state, end)
        return None

    def _begin_request(self, stream: FilterStream, state: _State, end: bool) -> None:
        """A place for those who compress requests."""

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Decide about the response."""
        response = stream.response
        if response is None:
            return None
        state: _State | None = stream.data.get(self)
        status = self._obstacle(response)
        compressible = status is None and not (
            has_token(response.get(b"cache-control"), b"no-transform") or b"content-encoding" in response.index
        )
        says_status = self._response.status_header_enabled
        asked = self._response.common_config.enabled and status != "ContentLengthTooSmall" and not end
        wanted = asked and (compressible or not says_status) and self._wanted(stream, state, response)
        if wanted and compressible and state is not None and _transfer_encoding_fits(response):
            self._compress(response, state)
        else:
            self.stats.not_compressed += 1
            if says_status and status is not None and self._response.common_config.enabled:
                response.set(b"x-envoy-compression-status", self.coding + b";" + status.encode())
        if compressible:
            vary = response.get(b"vary")
            if vary is None:
                response.add(b"vary", b"Accept-Encoding")
            elif not has_token(vary, b"accept-encoding"):
                response.set(b"vary", vary + b", Accept-Encoding")
        return None

    def _obstacle(self, response: ResponseHead) -> str | None:
        """Why the response is not for this filter, in the words of ``x-envoy-compression-status``."""
        config = self._response
        if not config.common_config.enabled or not _long_enough(config.common_config, response, self.stats):
            return "ContentLengthTooSmall"
        if not _content_type_fits(config.common_config, response):
            return "ContentTypeNotAllowed"
        if config.disable_on_etag_header and b"etag" in response.index:
            self.response_stats.not_compressed_etag += 1
            return "EtagNotAllowed"
        return "StatusCodeNotAllowed" if response.status in config.uncompressible_response_codes else None

    def _compress(self, response: ResponseHead, state: _State) -> None:
        state.response = self._make()
        self.stats.compressed += 1
        etag = response.get(b"etag")
        if etag is not None and etag[:2] not in (b"W/", b"w/"):
            response.remove(b"etag")
        length = response.get(b"content-length")
        response.remove(b"content-length")
        response.set(b"content-encoding", self.coding)
        if self._response.status_header_enabled:
            said = b"" if length is None else b";OriginalLength=" + length
            response.set(b"x-envoy-compression-status", self.coding + b";Compressed" + said)

    def _wanted(self, stream: FilterStream, state: _State | None, response: ResponseHead) -> bool:
        """Whether the client accepts this coding, and of those that it accepts this one is to be taken."""
        stats = self.response_stats
        if state is None or state.accept_encoding is None:
            stats.no_accept_header += 1
            return False
        choice: Choice | None = stream.data.get(_CHOICE)
        if choice is None:
            able = [
                one
                for one in stream.data[_COMPRESSORS]
                if _content_type_fits(one.config.response_direction_config.common_config, response)
            ]
            preferred = next((one.coding for one in reversed(able) if one.config.choose_first), b"")
            choice = choose_coding(state.accept_encoding, [one.coding for one in able], preferred)
            stream.data[_CHOICE] = choice
        chosen = choice.coding == self.coding
        match choice.outcome:
            case "compressor" if chosen:
                stats.header_compressor_used += 1
            case "compressor":
                stats.header_compressor_overshadowed += 1
            case "identity":
                stats.header_identity += 1
            case "wildcard":
                stats.header_wildcard += 1
            case "not_valid":
                stats.header_not_valid += 1
        return chosen

    def on_response_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Compress the response's body."""
        state: _State | None = stream.data.get(self)
        if state is None or state.response is None:
            return data
        return _encode(state.response, self.stats, data, end)


def _long_enough(config: DirectionConfig, head: Head, stats: CompressorStats) -> bool:
    length = head.get(b"content-length")
    if length is None:
        return True
    number = parse_unsigned(length)
    if number is not None and number >= config.min_content_length:
        return True
    stats.content_length_too_small += 1
    return False


def _encode(encoder: Encoder, stats: CompressorStats, data: bytes, end: bool) -> bytes:
    encoded = encoder.encode(data, end) if data or end else b""
    stats.total_uncompressed_bytes += len(data)
    stats.total_compressed_bytes += len(encoded)
    return encoded


class RequestCompressorFilter(CompressorFilter):
    """For requests too."""

    __slots__ = ("_request", "request_stats")

    def __init__(self, name: str, config: Compressor, request: DirectionConfig, context: FilterContext) -> None:
        CompressorFilter.__init__(self, name, config, context)
        word = compile_encoder(config.compressor_library)[0]
        self._request = request
        self.request_stats: CompressorStats = context.stats("compressor", "", word, "request")

    def _begin_request(self, stream: FilterStream, state: _State, end: bool) -> None:
        request = stream.request
        if end or not self._fits(request):
            self.request_stats.not_compressed += 1
            return
        state.request = self._make()
        self.request_stats.compressed += 1
        request.remove(b"content-length")
        request.set(b"content-encoding", self.coding)

    def _fits(self, request: RequestHead) -> bool:
        config = self._request
        return (
            b"upgrade" not in request.index
            and _long_enough(config, request, self.request_stats)
            and _content_type_fits(config, request)
            and b"content-encoding" not in request.index
            and _transfer_encoding_fits(request)
        )

    def on_request_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Compress the request's body."""
        state: _State | None = stream.data.get(self)
        if state is None or state.request is None:
            return data
        return _encode(state.request, self.request_stats, data, end)


def make_compressor(config: Compressor, name: str, context: FilterContext) -> NamedFilter:
    """The chain's own instance."""
    request = config.request_direction_config
    if request is not None and request.enabled:
        return RequestCompressorFilter(name, config, request, context)
    return CompressorFilter(name, config, context)


def make_route_compressor(
    base: Compressor, config: CompressorPerRoute, name: str, context: FilterContext
) -> NamedFilter:
    """A route's: nothing at all, or the chain's with overrides and the response direction on."""
    if config.disabled:
        return NamedFilter(name)
    response = base.response_direction_config
    response = replace(response, common_config=replace(response.common_config, enabled=True))
    if config.remove_accept_encoding_header is not None:
        response = replace(response, remove_accept_encoding_header=config.remove_accept_encoding_header)
    library = config.compressor_library or base.compressor_library
    return make_compressor(replace(base, compressor_library=library, response_direction_config=response), name, context)
