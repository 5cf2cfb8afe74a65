"""The server of the interoperability tests, on grpcio, with a few calls more that tests can look into."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.grpc import messages as m

TEST_SERVICE = "grpc.testing.TestService"
PLAIN_SERVICE = "mizzen.Plain"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
BIGGEST = 20 * 1024 * 1024
SIZES = [("grpc.max_receive_message_length", BIGGEST), ("grpc.max_send_message_length", BIGGEST)]
METADATA = [("grpc.max_metadata_size", 256 * 1024), ("grpc.absolute_max_metadata_size", 512 * 1024)]


def _echo_metadata(context: grpc.ServicerContext) -> None:
    metadata = dict(context.invocation_metadata())
    if ECHO_INITIAL in metadata:
        context.send_initial_metadata([(ECHO_INITIAL, metadata[ECHO_INITIAL])])
    if ECHO_TRAILING in metadata:
        context.set_trailing_metadata([(ECHO_TRAILING, metadata[ECHO_TRAILING])])


def _fail_as_asked(request: Any, context: grpc.ServicerContext) -> None:
    if request.HasField("response_status"):
        code = next(code for code in grpc.StatusCode if code.value[0] == request.response_status.code)
        context.abort(code, request.response_status.message)


class TestService:
    """What grpc.testing.TestService does. ``ended`` is told of each call that ends, with whether it was cancelled."""

    __test__ = False  # not one of pytest's

    def empty_call(self, request: Any, context: grpc.ServicerContext) -> Any:
        _echo_metadata(context)
        return m.Empty()

    def unary_call(self, request: Any, context: grpc.ServicerContext) -> Any:
        _echo_metadata(context)
        _fail_as_asked(request, context)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        return m.SimpleResponse(payload=m.payload(request.response_size))

    def streaming_output_call(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if any(one.compressed.value for one in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        yield from self._responses(request, context)

    def streaming_input_call(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        size = sum(len(request.payload.body) for request in requests)
        return m.StreamingInputCallResponse(aggregated_payload_size=size)

    def full_duplex_call(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        _echo_metadata(context)
        for request in requests:
            _fail_as_asked(request, context)
            yield from self._responses(request, context)

    def half_duplex_call(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in list(requests):
            yield from self._responses(request, context)

    def _responses(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for one in request.response_parameters:
            if one.interval_us:
                time.sleep(one.interval_us / 1e6)
            if not one.compressed.value:
                context.disable_next_message_compression()
            yield m.StreamingOutputCallResponse(payload=m.payload(one.size))


class Calls:
    """What the server saw of the calls of ``PLAIN_SERVICE``; tests wait on it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.seen: list[tuple[str, Any, float]] = []

    def note(self, event: str, value: Any = None) -> None:
        with self.changed:
            self.seen.append((event, value, time.monotonic()))
            self.changed.notify_all()

    def wait(self, event: str, value: Any = None, timeout: float = 10.0) -> float:
        """The time at which this happened; AssertionError when it does not."""

        def find() -> float | None:
            return next((when for name, what, when in self.seen if (name, what) == (event, value)), None)

        with self.changed:
            assert self.changed.wait_for(lambda: find() is not None, timeout), f"no {event} {value!r}: {self.seen}"
            found = find()
            assert found is not None
            return found


class PlainService:
    """Calls whose messages are bytes, so that a test says them as they are."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.release = threading.Event()

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Sends back all metadata whose name starts with ``x-``, at the beginning and in the end."""
        found = [(name, value) for name, value in context.invocation_metadata() if name.startswith("x-")]
        found = [one for one in found if not one[0].startswith(("x-envoy", "x-forwarded", "x-request-id"))]
        context.send_initial_metadata(found)
        context.set_trailing_metadata(found)
        return b""

    def deadline(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """The seconds that the caller still gives, or -1."""
        remaining = context.time_remaining()
        return b"-1" if remaining is None or remaining > 1e6 else b"%f" % remaining

    def forever(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """One message, then nothing until the call is over; its name, the request, is noted at begin and end."""
        over = threading.Event()
        calls = self.calls
        if not context.add_callback(lambda: (calls.note("over", request), over.set())):  # type: ignore[func-returns-value]
            over.set()
        calls.note("begun", request)
        yield b"first"
        over.wait(30)

    def collect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Notes each message as it comes, and the half close."""
        total = 0
        for request in requests:
            self.calls.note("message", request)
            total += len(request)
        self.calls.note("half closed")
        return b"%d" % total

    def converse(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answers each message with itself; after the half close a last one, ``bye``."""
        yield from requests
        yield b"bye"

    def pour(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """``count size``: so many messages of that size, noting how far it came."""
        count, size = map(int, request.split())
        message = bytes(size)
        for number in range(count):
            yield message
            self.calls.note("poured", number + 1)


def _typed(function: Callable[..., Any], kind: str, request: Any) -> Any:
    make = getattr(grpc, kind + "_rpc_method_handler")
    return make(
        function, request_deserializer=request.FromString, response_serializer=lambda one: one.SerializeToString()
    )


def _handlers(test: TestService, plain: PlainService) -> list[Any]:
    typed = {
        "EmptyCall": _typed(test.empty_call, "unary_unary", m.Empty),
        "UnaryCall": _typed(test.unary_call, "unary_unary", m.SimpleRequest),
        "StreamingOutputCall": _typed(test.streaming_output_call, "unary_stream", m.StreamingOutputCallRequest),
        "StreamingInputCall": _typed(test.streaming_input_call, "stream_unary", m.StreamingInputCallRequest),
        "FullDuplexCall": _typed(test.full_duplex_call, "stream_stream", m.StreamingOutputCallRequest),
        "HalfDuplexCall": _typed(test.half_duplex_call, "stream_stream", m.StreamingOutputCallRequest),
    }
    bare = {
        "Echo": grpc.unary_unary_rpc_method_handler(plain.echo),
        "Metadata": grpc.unary_unary_rpc_method_handler(plain.metadata),
        "Deadline": grpc.unary_unary_rpc_method_handler(plain.deadline),
        "Forever": grpc.unary_stream_rpc_method_handler(plain.forever),
        "Collect": grpc.stream_unary_rpc_method_handler(plain.collect),
        "Converse": grpc.stream_stream_rpc_method_handler(plain.converse),
        "Pour": grpc.unary_stream_rpc_method_handler(plain.pour),
    }
    return [
        grpc.method_handlers_generic_handler(TEST_SERVICE, typed),
        grpc.method_handlers_generic_handler(PLAIN_SERVICE, bare),
    ]


class Service:
    """A grpcio server on ``port``, or one of the system's choice; with TLS when it has a key and a certificate."""

    def __init__(
        self, port: int = 0, *, tls: tuple[bytes, bytes] | None = None, options: list[tuple[str, Any]] | None = None
    ) -> None:
        self.plain = PlainService()
        self.pool = ThreadPoolExecutor(128)
        self.server = grpc.server(self.pool, options=[("grpc.so_reuseport", 0), *SIZES, *METADATA, *(options or [])])
        self.server.add_generic_rpc_handlers(_handlers(TestService(), self.plain))
        where = f"127.0.0.1:{port}"
        if tls is None:
            self.port = self.server.add_insecure_port(where)
        else:
            self.port = self.server.add_secure_port(where, grpc.ssl_server_credentials([tls]))
        self.server.start()

    def stop(self, grace: float | None = None) -> None:
        """Returns when it has ended; without grace, calls that are under way end at once."""
        self.server.stop(grace).wait()
        self.pool.shutdown()
