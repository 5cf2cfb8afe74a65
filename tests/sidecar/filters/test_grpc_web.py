"""gRPC-Web: bodies in pieces, trailers in the body, and what cannot be decoded."""

from __future__ import annotations

from base64 import b64decode, b64encode
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.codec.grpc import frame
from sidecar.config.filters.grpc_web import GrpcWeb
from sidecar.core.head import Field
from sidecar.filters.grpc_web import trailers_frame
from sidecar.filters.registry import make_filter
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

WEB, TEXT = b"application/grpc-web+proto", b"application/grpc-web-text"
TRAILERS = [(b"grpc-status", b"0"), (b"grpc-message", b"fine")]


def ask(content_type: bytes, body: bytes | list[bytes], *fields: Field) -> Any:
    worker = FakeWorker()
    filter = make_filter(GrpcWeb(), "grpc_web", make_context(worker))
    head = get(b"/Service/Method", (b"content-type", content_type), (b"content-length", b"9"), *fields, method=b"POST")
    return FakeStream(worker, [filter], head).ask(body)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


def test_the_host_is_sent_a_call() -> None:
    stream = ask(WEB, frame(b"hello"))
    assert stream.sent == frame(b"hello")
    assert stream.request.fields == [
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-accept-encoding", b"identity"),
    ]


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 100), max_size=6))
def test_text_is_decoded_however_it_is_cut(message: bytes, cuts: list[int]) -> None:
    assert ask(TEXT, pieces_of(b64encode(frame(message)), cuts)).sent == frame(message)


@pytest.mark.parametrize("body", [b"!!!!", b"AAA", b"AAAA=", b"AA==AAAA", [b"AAAA", b"A"]])
def test_what_is_no_base64_is_refused(body: bytes | list[bytes]) -> None:
    stream = ask(TEXT, body)
    assert stream.replied is not None
    assert stream.replied[:2] == (400, b"Bad gRPC-web request, invalid base64 data.")


def test_trailers_are_the_last_frame() -> None:
    stream = ask(WEB, frame(b""))
    stream.response_trailers = list(TRAILERS)
    stream.answer(200, [(b"content-type", b"application/grpc")], [frame(b"reply"), b""])
    assert stream.got == frame(b"reply") + b"\x80\0\0\0\x22grpc-status:0\r\ngrpc-message:fine\r\n"
    assert stream.response_trailers == []
    assert stream.response is not None
    assert stream.response.get(b"content-type") == WEB


@given(st.lists(st.binary(max_size=20), max_size=5), st.lists(st.integers(0, 120), max_size=6))
def test_text_responses_are_decodable_group_by_group_however_they_are_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    stream = ask(TEXT, b64encode(frame(b"")), (b"accept", TEXT))
    stream.response_trailers = list(TRAILERS)
    wire = b"".join(map(frame, messages))
    stream.answer(200, [(b"content-type", b"application/grpc")], [*pieces_of(wire, cuts), b""])
    decoded = b"".join(b64decode(stream.got[at : at + 4], validate=True) for at in range(0, len(stream.got), 4))
    assert decoded == wire + trailers_frame(TRAILERS)


def test_no_message_waits_for_its_end() -> None:
    stream = ask(TEXT, b64encode(frame(b"")), (b"accept", TEXT))
    stream.answer(200, [(b"content-type", b"application/grpc")], [frame(b"x" * 1000)[:500], b"x" * 505])
    assert len(stream.pieces[0][1]) == 664, "two octets at most stay behind"


def test_of_a_page_16_kilobytes_are_kept() -> None:
    stream = ask(WEB, frame(b""))
    stream.answer(502, [(b"content-type", b"text/html")], [b"page", b""])
    assert stream.response_at == 0, "the head waits"
    for _ in range(1000):
        stream.receive(b"page" * 1000, False)
    stream.receive(b"", True)
    assert stream.got == b""
    assert len(stream.response.get(b"grpc-message")) == 16384
    assert stream.response.get(b"grpc-status") == b"14"


def test_other_requests_pass() -> None:
    stream = ask(b"application/grpc", frame(b"hello"))
    assert stream.request.get(b"te") is None
    stream.response_trailers = list(TRAILERS)
    stream.answer(200, [(b"content-type", b"application/grpc")], [frame(b"reply"), b""])
    assert stream.got == frame(b"reply")
    assert stream.response_trailers == TRAILERS
