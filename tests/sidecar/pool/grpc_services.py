"""A real gRPC server whose methods take and give plain bytes, and what its handlers saw."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="needs grpcio")

PIECE = b"x" * 65536


class Service:
    """``/test.Service/``. Events are set by its threads; ``stop`` ends it without grace."""

    def __init__(self, certificate: tuple[bytes, bytes] | None = None, clients: bytes | None = None) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.remaining: list[float | None] = []
        self.begun, self.cancelled, self.go_on = threading.Event(), threading.Event(), threading.Event()
        self.sent = self.received = 0
        self.pool = ThreadPoolExecutor(16)
        self.server = grpc.server(self.pool, options=[("grpc.so_reuseport", 0)])
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Compressed": grpc.unary_unary_rpc_method_handler(self.compressed),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Pour": grpc.unary_stream_rpc_method_handler(self.pour),
            "Swallow": grpc.stream_unary_rpc_method_handler(self.swallow),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
        if certificate is None:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            chain, key = certificate
            credentials = grpc.ssl_server_credentials([(key, chain)], clients, require_client_auth=clients is not None)
            self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()

    def _saw(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())

    def echo(self, request: bytes, context: Any) -> bytes:
        """The message back, with metadata before and behind it."""
        self._saw(context)
        context.send_initial_metadata((("x-initial", "1"), ("x-initial-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing-bin", b"\x01\xfe"),))
        return request

    def compressed(self, request: bytes, context: Any) -> bytes:
        """The message back, compressed whether the client wants it so or not."""
        context.set_compression(grpc.Compression.Gzip)
        return request

    def fail(self, request: bytes, context: Any) -> bytes:
        """Ends with the status and the message that the request says."""
        status, _, message = request.decode().partition(" ")
        codes = {code.value[0]: code for code in grpc.StatusCode}
        context.abort(codes[int(status)], message)
        raise AssertionError

    def wait(self, request: bytes, context: Any) -> bytes:
        """Answers when the test says so."""
        self._saw(context)
        context.add_callback(self.cancelled.set)
        self.begun.set()
        self.go_on.wait(20)
        return request

    def count(self, request: bytes, context: Any) -> Iterator[bytes]:
        """So many messages, and a failure behind them for a negative number."""
        number = int(request)
        for at in range(abs(number)):
            yield b"%d" % at
        if number < 0:
            context.abort(grpc.StatusCode.DATA_LOSS, "lost ☃ 100%\n")

    def sum(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b"%d" % sum(map(int, requests))

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Each message back, at once."""
        context.add_callback(self.cancelled.set)
        self.begun.set()
        for request in requests:
            self.received += 1
            if request == b"enough":
                return
            yield request

    def pour(self, request: bytes, context: Any) -> Iterator[bytes]:
        """So many large messages."""
        for _ in range(int(request)):
            self.sent += 1
            yield PIECE

    def swallow(self, requests: Iterator[bytes], context: Any) -> bytes:
        """Reads once the test says so."""
        self.begun.set()
        self.go_on.wait(20)
        for request in requests:
            self.received += len(request)
        return b"%d" % self.received

    def stop(self) -> None:
        self.go_on.set()
        self.server.stop(None).wait()
        self.pool.shutdown(wait=False)


@contextmanager
def service(*arguments: Any) -> Iterator[Service]:
    """A server that is gone in the end."""
    made = Service(*arguments)
    try:
        yield made
    finally:
        made.stop()


def path(method: str) -> bytes:
    return b"/test.Service/" + method.encode()
