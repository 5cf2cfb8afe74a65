"""The gRPC bridge for HTTP/1.1: framing of bare messages, whatever the pieces; the rest runs beside Envoy."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.codec.grpc import frame
from sidecar.config.filters.grpc_http1_bridge import GrpcHttp1Bridge
from sidecar.core.grpc import CONVERTED
from sidecar.core.head import RequestHead
from sidecar.filters.registry import make_filter
from tests.sidecar.filters.streams import FakeStream, FakeWorker, make_context

CALL, MESSAGE = b"application/grpc", b"application/x-protobuf"


def stream_of(content_type: bytes, version: int = 11, **config: bool) -> Any:
    worker = FakeWorker()
    filter = make_filter(GrpcHttp1Bridge(**config), "bridge", make_context(worker))
    head = RequestHead(b"POST", b"/s/m?q", b"a", [(b"content-type", content_type), (b"content-length", b"5")], version)
    return FakeStream(worker, [filter], head)


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"llo"], [b"hello", b""], [b"h", b"e", b"l", b"l", b"o"]])
def test_a_bare_message_gets_its_prefix(pieces: list[bytes]) -> None:
    stream = stream_of(MESSAGE, upgrade_protobuf_to_grpc=True).ask(pieces)
    assert stream.sent == frame(b"hello")
    assert stream.request.fields == [(b"content-type", CALL)]
    assert CONVERTED in stream.data


def test_a_bare_message_has_a_limit() -> None:
    stream = stream_of(MESSAGE, upgrade_protobuf_to_grpc=True).ask([b"x" * 65536] * 16)
    assert len(stream.sent) == 5 + (1 << 20)
    stream = stream_of(MESSAGE, upgrade_protobuf_to_grpc=True).ask([b"x" * 65536] * 16 + [b"y"])
    assert stream.replied == (413, b"Payload Too Large", "request_payload_too_large")
    assert stream.sent == b""


@pytest.mark.parametrize("size", [1, 3, 5, 7, 100])
def test_and_the_answer_loses_it(size: int) -> None:
    stream = stream_of(MESSAGE, upgrade_protobuf_to_grpc=True).ask(b"hello")
    wire = frame(b"reply")
    stream.answer(200, [(b"content-type", CALL)], [b"not yet"])
    assert stream.response_at == 0, "the head waits"
    stream.response_trailers = [(b"grpc-status", b"7"), (b"grpc-message", b"no")]
    for at in range(0, len(wire), size):
        stream.receive(wire[at : at + size], False)
    stream.receive(b"", True)
    assert stream.got == b"reply"
    assert stream.response is not None
    assert (stream.response.status, stream.response_code) == (503, 503)
    assert stream.response.get(b"grpc-status") == b"7"
    assert stream.response.get(b"grpc-message") == b"no"
    assert stream.response.get(b"content-length") == b"5"


def test_http2_clients_have_trailers() -> None:
    stream = stream_of(CALL, 20).ask(frame(b"hello"))
    stream.answer(200, [(b"content-type", CALL)], frame(b"reply"))
    assert stream.response_at == -1
    assert stream.got == frame(b"reply")
    stream = stream_of(MESSAGE, 20, upgrade_protobuf_to_grpc=True).ask(b"hello")
    assert stream.sent == b"hello"
    assert stream.request.get(b"content-type") == MESSAGE


def test_the_query_may_be_cut_off() -> None:
    assert stream_of(CALL).ask(b"x").request.path == b"/s/m?q"
    assert stream_of(CALL, ignore_query_parameters=True).ask(b"x").request.path == b"/s/m"
    assert stream_of(MESSAGE, ignore_query_parameters=True).ask(b"x").request.path == b"/s/m?q"
