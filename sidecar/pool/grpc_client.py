"""The sidecar's own gRPC client: calls over the HTTP client's streams.

Source: "gRPC over HTTP/2" and "HTTP to gRPC Status Code Mapping"; where these leave a choice, Envoy's
``Grpc::AsyncClient``. We offer no message compression, so that a compressed message is an error, as it is there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from sidecar.codec.grpc import FramingError, MessageReader, frame
from sidecar.core import response_flags as flag
from sidecar.core.client import GrpcError, GrpcOptions, GrpcReply, GrpcSink, RequestFailed, UnarySink
from sidecar.core.grpc import grpc_status_of, parse_grpc_status
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.pool.client import RoutedHttpClient, WholeExchange
from sidecar.pool.client_stream import PacedStream

_UNKNOWN: Final = 2
_DEADLINE_EXCEEDED: Final = 4
_RESOURCE_EXHAUSTED: Final = 8
_INTERNAL: Final = 13

_TOO_LATE = flag.UPSTREAM_REQUEST_TIMEOUT | flag.UPSTREAM_MAX_STREAM_DURATION_REACHED
_CONNECTION_LOST = flag.UPSTREAM_CONNECTION_TERMINATION | flag.UPSTREAM_CONNECTION_FAILURE
_UNITS = ((b"m", 0.001), (b"S", 1.0), (b"M", 60.0), (b"H", 3600.0))
_DIGITS = 10**8
_COMPRESSED = "a compressed message, which was not asked for"


def grpc_timeout(seconds: float) -> bytes:
    """A duration as the value of ``grpc-timeout``: at most eight digits and a unit, milliseconds as far as they go."""
    for unit, size in _UNITS:
        number = max(1, round(seconds / size))
        if number < _DIGITS:
            return b"%d%b" % (number, unit)
    return b"%dH" % (_DIGITS - 1)


def error_in(head: ResponseHead, trailers: Sequence[Field] | None) -> GrpcError | None:
    """What the server says that became of the call, None for OK.

    ``trailers`` are those that came, or the head's own fields where these end the response; None if it ended otherwise.
    """
    index = {} if trailers is None else dict(trailers)
    status = index.get(b"grpc-status")
    if status is None:
        if head.status != 200:
            return GrpcError(grpc_status_of(head.status), f"HTTP status {head.status}", trailers or ())
        return GrpcError(_UNKNOWN, "the response ended without a grpc-status", trailers or ())
    number = parse_grpc_status(status)
    if number == 0:
        return None
    message = unquote_to_bytes(index.get(b"grpc-message", b"")).decode("utf-8", "replace")
    return GrpcError(number if number > 0 else _UNKNOWN, message, trailers or ())


def error_of(failure: RequestFailed, started: bool) -> GrpcError:
    """What a call ends with for which there is no response, or, if it has ``started``, not all of one."""
    if failure.flags & _TOO_LATE:
        status = _DEADLINE_EXCEEDED
    elif failure.details == "response_payload_too_large":
        status = _RESOURCE_EXHAUSTED
    elif not started or failure.flags & _CONNECTION_LOST:
        status = grpc_status_of(failure.status)
    else:
        status = _INTERNAL
    return GrpcError(status, str(failure), (), failure)


def carries_messages(head: ResponseHead) -> bool:
    """Whether the body behind ``head`` is one of gRPC."""
    content_type = head.index.get(b"content-type", b"")
    return head.status == 200 and content_type.startswith(b"application/grpc")


class UnaryExchange(WholeExchange):
    """A unary call."""

    __slots__ = ()

    def deliver(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> None:
        sink: UnarySink = self.finish()
        try:
            outcome = self._outcome(head, body, trailers)
            if isinstance(outcome, GrpcError):
                sink.on_error(outcome)
            else:
                sink.on_reply(outcome)
        except Exception:
            self.sink_failed()

    def broke(self, failure: RequestFailed) -> None:
        sink: UnarySink = self.finish()
        try:
            sink.on_error(error_of(failure, self.response is not None))
        except Exception:
            self.sink_failed()

    def _outcome(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> GrpcReply | GrpcError:
        if trailers is None and (not body or head.status != 200):
            trailers = head.fields
        error = error_in(head, trailers)
        if error is not None:
            return error
        assert trailers is not None  # there was a status in them
        reader = MessageReader(self.client.options.max_response_bytes)
        try:
            messages = reader.feed(body)
        except FramingError as problem:
            return GrpcError(_INTERNAL, str(problem), trailers)
        if len(messages) != 1 or reader.unfinished:
            return GrpcError(_INTERNAL, f"{len(messages)} messages in the reply to a unary call", trailers)
        compressed, message = messages[0]
        if compressed:
            return GrpcError(_INTERNAL, _COMPRESSED, trailers)
        return GrpcReply(message, head.fields, trailers)


class StreamedCall(PacedStream):
    """A call with both directions open: the ``GrpcStream``."""

    __slots__ = ("closing", "held", "reader")

    sink: GrpcSink

    def __init__(self, client: RoutedHttpClient, request: RequestHead, sink: GrpcSink, max_message_bytes: int) -> None:
        PacedStream.__init__(self, client, request, sink)
        self.reader = MessageReader(max_message_bytes)
        self.held: deque[bytes] = deque()  # messages that had been read when the sink wanted no more
        self.closing: tuple[GrpcError | None, Sequence[Field]] | None = None  # how it ended, behind what is held

    # what the caller may ask for

    def send(self, message: bytes) -> None:
        self.send_data(frame(message), False)

    def half_close(self) -> None:
        self.send_data(b"", True)

    def pause(self) -> None:
        self.pause_response()

    def resume(self) -> None:
        if not self.paused or self.over:
            return
        self.paused = False
        held = self.held
        while held:
            self._pass_on(held.popleft())
            if self.paused or self.over:
                return
        if self.closing is not None:
            self._close(*self.closing)
        elif self.upstream is not None:
            self.upstream.resume_response()
        self.settle()

    # the router's side

    def on_response_head(self, head: ResponseHead, end: bool) -> None:
        self.response = head
        self.response_code = head.status
        if end or not carries_messages(head):
            self._hang_up()
            self._close(error_in(head, head.fields), head.fields)
            return
        if self.paused:
            self.upstream.pause_response()  # what was paused before, if anything, was another attempt's connection
        try:
            self.sink.on_initial_metadata(head.fields)
        except Exception:
            self.sink_failed()

    def on_response(self, head: ResponseHead, body: bytes) -> None:
        self.on_response_head(head, False)
        if not self.over:
            self.on_response_data(body, True)

    def on_response_data(self, data: bytes, end: bool) -> None:
        self.bytes_sent += len(data)
        try:
            messages = self.reader.feed(data)
        except FramingError as problem:
            self._hang_up()
            self._close(GrpcError(_RESOURCE_EXHAUSTED, str(problem)), ())
            return
        for compressed, message in messages:
            if compressed:
                self._hang_up()
                self._close(GrpcError(_INTERNAL, _COMPRESSED), ())
                return
            if self.paused:
                self.held.append(message)
            else:
                self._pass_on(message)
                if self.over:
                    return
        if end:
            assert self.response is not None
            self._close(error_in(self.response, None), ())

    def on_response_trailers(self, trailers: list[Field]) -> None:
        self.response_trailers = trailers
        assert self.response is not None
        error = error_in(self.response, trailers)
        if error is None and self.reader.unfinished:
            error = GrpcError(_INTERNAL, "the response ended within a message", trailers)
        self._close(error, trailers)

    def broke(self, failure: RequestFailed) -> None:
        self._close(error_of(failure, self.response is not None), ())

    # within

    def _pass_on(self, message: bytes) -> None:
        try:
            self.sink.on_message(message)
        except Exception:
            self.sink_failed()

    def _hang_up(self) -> None:
        """What the server has yet to say is of no interest."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.cancel()

    def _close(self, error: GrpcError | None, trailers: Sequence[Field]) -> None:
        if self.held:
            self.closing = (error, trailers)
            self.stop()
            return
        sink: GrpcSink = self.finish()
        try:
            sink.on_close(error, trailers)
        except Exception:
            self.sink_failed()


class RoutedGrpcClient:
    """The ``GrpcClient`` of one cluster: ``whole`` carries its unary calls, ``streaming`` those that have no timeout."""

    __slots__ = ("authority", "options", "streaming", "streaming_fields", "whole", "whole_fields")

    def __init__(self, whole: RoutedHttpClient, streaming: RoutedHttpClient, options: GrpcOptions) -> None:
        self.whole = whole
        self.streaming = streaming
        self.options = options
        self.authority = options.authority or whole.cluster_name.encode()
        self.whole_fields = _fields(options, options.timeout or options.max_duration)
        self.streaming_fields = _fields(options, options.max_duration)

    def unary(self, path: bytes, message: bytes, sink: UnarySink, metadata: Sequence[Field] = ()) -> UnaryExchange:
        head = RequestHead(b"POST", path, self.authority, [*self.whole_fields, *metadata], 20)
        exchange = UnaryExchange(self.whole, head, sink)
        exchange.begin(False)
        exchange.send_data(frame(message), True)
        return exchange

    def stream(self, path: bytes, sink: GrpcSink, metadata: Sequence[Field] = ()) -> StreamedCall:
        head = RequestHead(b"POST", path, self.authority, [*self.streaming_fields, *metadata], 20)
        call = StreamedCall(self.streaming, head, sink, self.options.max_message_bytes)
        call.begin(False)
        return call

    async def call(self, path: bytes, message: bytes, metadata: Sequence[Field] = ()) -> GrpcReply:
        future: asyncio.Future[GrpcReply] = self.whole.worker.loop.create_future()
        exchange = self.unary(path, message, _Waiting(future), metadata)
        try:
            return await future
        finally:
            exchange.cancel()

    def __repr__(self) -> str:
        return f"<RoutedGrpcClient to {self.whole.cluster_name}>"


def _fields(options: GrpcOptions, deadline: float) -> list[Field]:
    """The fields that every call has, in Envoy's order."""
    fields: list[Field] = [(b"te", b"trailers")]
    if deadline:
        fields.append((b"grpc-timeout", grpc_timeout(deadline)))
    fields.append((b"content-type", b"application/grpc"))
    if options.user_agent:
        fields.append((b"user-agent", options.user_agent))
    return [*fields, *options.initial_metadata]


class _Waiting:
    """The sink of ``call``."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[GrpcReply]) -> None:
        self.future = future

    def on_reply(self, reply: GrpcReply) -> None:
        if not self.future.done():
            self.future.set_result(reply)

    def on_error(self, error: GrpcError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
