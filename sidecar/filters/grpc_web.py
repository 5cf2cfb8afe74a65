"""The gRPC-Web filter: calls of browsers, which have neither HTTP/2 frames nor trailers, become calls of gRPC.

The trailers of a response go to the browser as a last frame of the body; in text mode all frames are base64. Nothing is
buffered but up to two octets between pieces of text, and a page that came in place of a gRPC response.
Source: Envoy's gRPC-Web filter; gRPC's PROTOCOL-WEB.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64

from sidecar.codec.grpc import MessageCounter
from sidecar.core.grpc import CONVERTED, grpc_message, grpc_status_of, is_grpc_response
from sidecar.core.head import Field, ResponseHead
from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.grpc_stats import CallCounts, CallStats, charge, charge_trailers

_TEXT_TYPES = frozenset((b"application/grpc-web-text", b"application/grpc-web-text+proto"))
_TYPES = _TEXT_TYPES | {b"application/grpc-web", b"application/grpc-web+proto"}
_TRAILERS_FLAG = b"\x80"
_LONGEST_PAGE = 16384


class _Call:
    """What the filter keeps of a call. ``page`` is what came in place of a gRPC response, None without one."""

    __slots__ = ("carried", "messages", "page", "stats", "text", "text_wanted", "undecoded")

    def __init__(self, stats: CallCounts | None, text: bool, text_wanted: bool) -> None:
        self.stats = stats
        self.text = text
        self.text_wanted = text_wanted
        self.undecoded = b""
        self.carried = b""
        self.messages = MessageCounter()
        self.page: bytearray | None = None


class GrpcWebFilter(NamedFilter):
    """Translates; other requests pass."""

    __slots__ = ("_stats",)

    lets_pass = True

    def __init__(self, name: str, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        self._stats = CallStats(context, "grpc-web", lambda service, method: (service, method))

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Make a call of a request of gRPC-Web."""
        request = stream.request
        content_type = request.index.get(b"content-type")
        if content_type not in _TYPES:
            return None
        text_wanted = request.index.get(b"accept") in _TEXT_TYPES
        stream.data[self] = _Call(self._stats.of(stream), content_type in _TEXT_TYPES, text_wanted)
        stream.data[CONVERTED] = True
        request.remove(b"content-length")
        request.set(b"content-type", b"application/grpc")
        request.set(b"te", b"trailers")
        request.set(b"grpc-accept-encoding", b"identity")
        return None

    def on_request_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Decode a body that is text."""
        call: _Call | None = stream.data.get(self)
        if call is None or not call.text:
            return data
        data = call.undecoded + data
        whole = len(data) & ~3
        call.undecoded = data[whole:]
        details = "grpc_base_64_decode_failed_bad_size"
        try:
            decoded = a2b_base64(data[:whole], strict_mode=True)
            if not end or not call.undecoded:
                return decoded
        except Error:
            details = "grpc_base_64_decode_failed"
        stream.reply(400, b"Bad gRPC-web request, invalid base64 data.", details=details)
        return b""

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Name the type that the browser asked for, and hold back what is no gRPC response."""
        call: _Call | None = stream.data.get(self)
        response = stream.response
        if call is None or response is None:
            return None
        if call.stats is not None:
            charge(call.stats, response.index.get(b"grpc-status"))
        if response.index.get(b"content-length") == b"0" and stream.response_trailers is None:
            end = True
        call.page = None if end or _speaks_grpc(response) else bytearray()
        if not end:
            response.remove(b"content-length")
        response.set(
            b"content-type", b"application/grpc-web-text+proto" if call.text_wanted else b"application/grpc-web+proto"
        )
        return None if call.page is None else PAUSE

    def on_response_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Encode frames, and the trailers as one more."""
        call: _Call | None = stream.data.get(self)
        if call is None:
            return data
        trailers = stream.response_trailers if end else None
        if trailers is not None and call.stats is not None:
            charge_trailers(call.stats, trailers)
        if call.page is not None:
            call.page += data[: _LONGEST_PAGE - len(call.page)]
            if end:
                self._replace(stream, bytes(call.page))
            return b""
        if call.text_wanted:
            data = self._encode(call, data, end)
        if trailers:
            frame = trailers_frame(trailers)
            data += b64encode(frame) if call.text_wanted else frame
            trailers.clear()
        return data

    def _encode(self, call: _Call, data: bytes, end: bool) -> bytes:
        """Base64, padded where a message ends and nowhere else."""
        call.messages.feed(data)
        data = call.carried + data
        whole = len(data) if end or call.messages.complete else len(data) // 3 * 3
        call.carried = data[whole:]
        return b64encode(data[:whole])

    def _replace(self, stream: FilterStream, page: bytes) -> None:
        """A page becomes the message of a failed call."""
        response = stream.response
        if response is not None:
            response.set(b"grpc-message", grpc_message(page))
            response.set(b"grpc-status", b"%d" % grpc_status_of(response.status))
            response.set(b"content-length", b"0")
        stream.resume_response()


def trailers_frame(trailers: list[Field]) -> bytes:
    """The frame that carries trailers in a body."""
    block = b"".join([b"%b:%b\r\n" % field for field in trailers])
    return _TRAILERS_FLAG + len(block).to_bytes(4, "big") + block


def _speaks_grpc(response: ResponseHead) -> bool:
    content_type = response.index.get(b"content-type", b"").partition(b";")[0].lower()
    return is_grpc_response(response, False) or content_type in _TYPES
