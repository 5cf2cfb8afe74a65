"""Properties of the readers: however the bytes are cut, the same messages; and the same messages as h11 reads."""

from __future__ import annotations

import time
from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.codec.http1_reader import DONE
from sidecar.codec.wire import FieldLines
from tests.sidecar.codec.recording import cut, one_by_one, read_request, read_response

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
RESERVED = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect",
}  # fmt: skip
NAME = TOKEN.filter(lambda name: name.lower() not in RESERVED)
VALUE = st.from_regex(rb"\A(?:[!-~](?:[ -~\t]{0,20}[!-~])?)?\Z")
FIELDS = st.lists(st.tuples(NAME, VALUE), max_size=6)
BODY = st.binary(max_size=200)
PLACES = st.lists(st.integers(0, 2000), max_size=12)


def render(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """(field line, body on the wire, body)."""
    body = draw(BODY)
    if draw(st.booleans()):
        return b"Content-Length: %d\r\n" % len(body), body, body
    wire = b""
    for piece in cut(body, draw(PLACES)):
        if piece:
            extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b"']))
            wire += b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)
    trailers = draw(st.lists(st.tuples(NAME, VALUE), max_size=2))
    return b"Transfer-Encoding: chunked\r\n", wire + b"0\r\n" + render(trailers) + b"\r\n", body


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(a request as bytes, its body)."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS"]))
    target = b"/" + draw(st.from_regex(rb"\A[a-z0-9%?=&./]{0,20}\Z"))
    field, wire, body = draw(framed()) if method != b"GET" else (b"", b"", b"")
    fields = b"Host: a.example\r\n" + render(draw(FIELDS)) + field
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, fields, wire), body


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """(method of the request, a response as bytes, its body)."""
    status = draw(st.sampled_from([200, 201, 204, 301, 304, 404, 500, 503]))
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD"]))
    field, wire, body = draw(framed())
    if method == b"HEAD" or status in (204, 304):
        wire = body = b""
    if status == 204:
        field = b""
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"]))
    head = b"HTTP/1.1 %d Reason\r\n%b%b\r\n" % (status, render(draw(FIELDS)), field)
    return method, interim + head + wire, body


@given(requests(), PLACES, st.binary(max_size=40))
def test_requests_read_the_same_however_cut(request: tuple[bytes, bytes], places: list[int], rest: bytes) -> None:
    data, body = request
    whole = read_request([data])
    assert whole.error is None and whole.complete and whole.messages[0][1] == body
    for pieces in (one_by_one(data), cut(data, places)):
        outcome = read_request(pieces)
        assert outcome.error is None and outcome.messages == whole.messages
    for pieces in ([data + rest], cut(data + rest, places)):
        outcome = read_request(pieces)
        assert outcome.messages == whole.messages and outcome.rest == rest


@given(st.lists(requests(), min_size=1, max_size=5), PLACES)
def test_pipelined_requests(pipeline: list[tuple[bytes, bytes]], places: list[int]) -> None:
    data = b"".join(request for request, _ in pipeline)
    for pieces in ([data], cut(data, places), one_by_one(data)):
        outcome = read_request(pieces, pipelined=True)
        assert outcome.error is None
        assert [message[1] for message in outcome.messages] == [body for _, body in pipeline]
        assert all(message[3] for message in outcome.messages)


def h11_events(role: Any, data: bytes, method: bytes = b"GET") -> list[Any]:
    peer = h11.Connection(role, max_incomplete_event_size=1 << 20)
    if role is h11.CLIENT:
        peer.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        peer.send(h11.EndOfMessage())
    peer.receive_data(data)
    events: list[Any] = []
    while True:
        event = peer.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            return events
        events.append(event)
        if isinstance(event, h11.EndOfMessage):
            return events


@given(requests())
def test_requests_as_h11_reads_them(request: tuple[bytes, bytes]) -> None:
    data, _ = request
    events = h11_events(h11.SERVER, data)
    head, body, trailers, ended = read_request([data]).messages[0]
    assert head[0] == events[0].method and head[1] == events[0].target
    assert [(b"host", head[2]), *head[4]] == [(name, value) for name, value in events[0].headers]
    assert body == b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data))
    assert ended and [*(trailers or ())] == list(events[-1].headers)


@given(responses(), PLACES)
def test_responses_as_h11_reads_them(response: tuple[bytes, bytes, bytes], places: list[int]) -> None:
    method, data, body = response
    events = h11_events(h11.CLIENT, data, method)
    for pieces in ([data], cut(data, places), one_by_one(data)):
        outcome = read_response(pieces, method)
        assert outcome.error is None
        heads = [event for event in events if isinstance(event, h11.InformationalResponse | h11.Response)]
        assert [message[0][0] for message in outcome.messages] == [head.status_code for head in heads]
        assert [message[0][2] for message in outcome.messages] == [tuple(head.headers) for head in heads]
        assert outcome.messages[-1][1] == body and outcome.messages[-1][3]
        assert body == b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data))


class _Heads:
    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        self.body += data


@given(requests())
def test_requests_as_httptools_reads_them(request: tuple[bytes, bytes]) -> None:
    data, body = request
    seen = _Heads()
    httptools.HttpRequestParser(seen).feed_data(data)
    head = read_request([data]).messages[0][0]
    count = len(head[4]) + 1
    assert [(name, value.strip(b" \t")) for name, value in seen.fields[:count]] == [(b"host", head[2]), *head[4]]
    assert seen.body == body


@settings(max_examples=300)
@given(st.binary(max_size=300), PLACES)
def test_noise_raises_nothing_but_protocol_errors(data: bytes, places: list[int]) -> None:
    for pieces in ([data], cut(data, places)):
        read_request(pieces, pipelined=True)
        read_response(pieces, eof=True)


@settings(max_examples=300)
@given(requests(), st.integers(0, 10_000), st.binary(min_size=1, max_size=3), PLACES)
def test_a_damaged_request_reads_the_same_however_it_is_cut(
    request: tuple[bytes, bytes], at: int, noise: bytes, places: list[int]
) -> None:
    data = bytearray(request[0])
    place = at % len(data)
    data[place : place + 1] = noise
    damaged = bytes(data)
    ways = ([damaged], cut(damaged, places), one_by_one(damaged))
    outcomes = [read_request(pieces, pipelined=True) for pieces in ways]
    ended = [[message for message in outcome.messages if message[3]] for outcome in outcomes]
    assert ended[0] == ended[1] == ended[2]
    assert len({outcome.error is None for outcome in outcomes}) == 1


@pytest.mark.parametrize("line", [b"a: " + b"x" * 50_000 + b"\x00", b"a: " + b"x " * 25_000 + b"\x00", b"a" * 50_000])
def test_a_bad_line_costs_linear_time(line: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ValueError):
        FieldLines()[line]
    assert time.process_time() - began < 0.05


def test_many_tiny_chunks_take_several_turns_of_a_few_milliseconds() -> None:
    """256 KiB of one-byte chunks, which one read may bring."""
    chunks = (256 * 1024) // 6
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * chunks + b"0\r\n\r\n"
    outcome = read_request([data])
    assert outcome.complete and outcome.messages[0][1] == b"a" * chunks
    assert outcome.calls < chunks / 1000
    reader = outcome.reader
    reader.next_message()
    began = time.process_time()
    reader.receive(data)
    assert reader.interrupted and reader.state != DONE
    assert time.process_time() - began < 0.02  # a few milliseconds on an idle machine


def test_field_lines_stay_bounded() -> None:
    lines = FieldLines(100)
    for number in range(1000):
        assert lines[b"x-%d: a" % number] == (b"x-%d" % number, b"a")
        assert len(lines) <= 100
    lines.clear()
    assert lines[b"Cookie: secret"] == (b"cookie", b"secret")
    assert lines[b"X: " + b"y" * 300] == (b"x", b"y" * 300)
    assert not lines
