"""The gRPC bridge for HTTP/1.1: unary calls for clients that read no trailers.

A response waits for its trailers, whose status and message go into its head: with 503 where the call failed. It is whole
then, and has a length. Source: Envoy's gRPC HTTP/1.1 bridge filter.
"""

from __future__ import annotations

from typing import Any

from sidecar.codec.grpc import PREFIX_SIZE, frame
from sidecar.config.filters.grpc_http1_bridge import GrpcHttp1Bridge
from sidecar.core.grpc import CONVERTED, is_grpc, is_grpc_response, parse_grpc_status
from sidecar.core.head import Field, ResponseHead
from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.core.matching import path_only
from sidecar.filters.context import NamedFilter

_PROTOBUF = b"application/x-protobuf"
_HTTP2 = 20
_FAILED = 503
_LARGEST_MESSAGE = 1 << 20  # of those that come without a prefix, in bytes: Envoy's default limit for buffers


class _Call:
    """What the filter keeps of a call. ``bare``: the client's message has no prefix, and the server's is to lose it."""

    __slots__ = ("bare", "prefix_left", "received", "size", "waiting")

    def __init__(self, bare: bool) -> None:
        self.bare = bare
        self.received: list[bytes] = []
        self.prefix_left = 0
        self.size = 0
        self.waiting = False


class GrpcHttp1BridgeFilter(NamedFilter):
    """Bridges the calls that come by HTTP/1; others pass."""

    __slots__ = ("_ignore_query", "_upgrade")

    lets_pass = True

    def __init__(self, name: str, config: GrpcHttp1Bridge) -> None:
        NamedFilter.__init__(self, name)
        self._upgrade = config.upgrade_protobuf_to_grpc
        self._ignore_query = config.ignore_query_parameters

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Make a call of a protobuf message, where that is wanted."""
        request = stream.request
        if request.version >= _HTTP2:
            return None
        bare = self._upgrade and request.index.get(b"content-type") == _PROTOBUF
        if bare:
            request.set(b"content-type", b"application/grpc")
            request.remove(b"content-length")
            stream.data[CONVERTED] = True
        if is_grpc(request):
            if self._ignore_query:
                request.path = path_only(request.path)
            stream.data[self] = _Call(bare)
        return None

    def on_request_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Keep a message without prefix until it is whole and its length known; 413 when it is too large."""
        call: _Call | None = stream.data.get(self)
        if call is None or not call.bare:
            return data
        call.received.append(data)
        call.size += len(data)
        if call.size > _LARGEST_MESSAGE:
            call.received.clear()
            stream.reply(413, b"Payload Too Large", details="request_payload_too_large")
            return b""
        return frame(b"".join(call.received)) if end else b""

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Hold the response back for its trailers."""
        call: _Call | None = stream.data.get(self)
        if call is None or end:
            return None
        response = stream.response
        call.waiting = True
        call.size = 0
        call.prefix_left = (
            PREFIX_SIZE if call.bare and response is not None and is_grpc_response(response, False) else 0
        )
        return PAUSE

    def on_response_data(self, stream: Any, data: bytes, end: bool) -> bytes:
        """At the end, let the response go: changed, where there are trailers."""
        call: _Call | None = stream.data.get(self)
        if call is None or not call.waiting:
            return data
        trailers = stream.response_trailers
        if call.prefix_left:
            left = call.prefix_left
            call.prefix_left = max(0, left - len(data))
            data = data[left:]
        call.size += len(data)
        if end:
            call.waiting = False
            response = stream.response
            if trailers is not None:
                _conclude(response, trailers)
                stream.response_code = response.status
            if trailers is not None or b"content-length" in response.index:
                response.set(b"content-length", b"%d" % call.size)
            stream.resume_response()
        return data


def _conclude(response: ResponseHead, trailers: list[Field]) -> None:
    """What the trailers say of the call goes into the head."""
    found: dict[bytes, Any] = dict(trailers)
    status, message = found.get(b"grpc-status"), found.get(b"grpc-message")
    if status is not None:
        if parse_grpc_status(status) != 0:
            response.status = _FAILED
        response.set(b"grpc-status", status)
    if message is not None:
        response.set(b"grpc-message", message)
