"""What RFC 9113 has an endpoint do about each thing that a peer may do wrong: bytes in, error out, by section."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_frames import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from sidecar.codec.http2_head import INVALID_FIELD, VIOLATION
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_server import ServerConnection
from sidecar.codec.wire import Field

from .http2_recording import (
    REQUEST,
    RESPONSE,
    Recording,
    block,
    client,
    data,
    frame,
    headers,
    outcome,
    request,
    response,
    sent,
    server,
)

FINE = ("fine",)


def connection(code: int) -> tuple[Any, ...]:
    return ("connection", code)


def stream(code: int, stream_id: int = 1) -> tuple[Any, ...]:
    return ("stream", stream_id, code)


OPEN = headers(1, end=False)
POST = [(b":method", b"POST"), *REQUEST[1:]]

# What a client sends behind its preface and settings, and what a server makes of it.
SERVER: dict[str, tuple[bytes, tuple[Any, ...]]] = {
    # 4.1, 4.2: frames
    "4.1 unknown type": (frame(0xBE, 0xFF, 1, b"abc") + headers(1), FINE),
    "4.1 unknown flags": (frame(HEADERS, 0xC5 - 0x80, 1, block(REQUEST)), FINE),
    "4.1 reserved bit": (frame(HEADERS, 5, 0x80000001, block(REQUEST)), FINE),
    "4.2 DATA too large": (OPEN + frame(DATA, 0, 1, b"x" * 16385), connection(FRAME_SIZE_ERROR)),
    "4.2 HEADERS too large": (frame(HEADERS, 5, 1, b"x" * 16385), connection(FRAME_SIZE_ERROR)),
    "4.2 unknown type too large": (frame(0xBE, 0, 0, b"x" * 16385), connection(FRAME_SIZE_ERROR)),
    # 4.3: header blocks
    "4.3 broken block": (frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"), connection(COMPRESSION_ERROR)),
    "4.3 broken block, trailers": (OPEN + frame(HEADERS, 5, 1, b"\x80"), connection(COMPRESSION_ERROR)),
    "4.3 broken block on a reset stream": (
        OPEN + rst_stream(1, 8) + frame(HEADERS, 5, 1, b"\x80"), connection(COMPRESSION_ERROR)),
    "4.3 other frame inside": (frame(HEADERS, 1, 1, block(REQUEST)) + frame(PING, 0, 0, b"x" * 8),
                               connection(PROTOCOL_ERROR)),
    "4.3 unknown frame inside": (frame(HEADERS, 1, 1, block(REQUEST)) + frame(0xBE), connection(PROTOCOL_ERROR)),
    "4.3 CONTINUATION of another stream": (
        frame(HEADERS, 1, 1, block(REQUEST)) + frame(CONTINUATION, 4, 3), connection(PROTOCOL_ERROR)),
    "4.3 other HEADERS inside": (frame(HEADERS, 1, 1, block(REQUEST)) + headers(3), connection(PROTOCOL_ERROR)),
    # 5.1: states of streams
    "5.1 idle: DATA": (data(1, b"x"), connection(PROTOCOL_ERROR)),
    "5.1 idle: RST_STREAM": (rst_stream(1, 8), connection(PROTOCOL_ERROR)),
    "5.1 idle: WINDOW_UPDATE": (window_update(1, 1), connection(PROTOCOL_ERROR)),
    "5.1 idle: CONTINUATION": (frame(CONTINUATION, 4, 1), connection(PROTOCOL_ERROR)),
    "5.1 idle: PRIORITY": (frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"), FINE),
    "5.1 half-closed (remote): DATA": (headers(1) + data(1, b"x"), stream(STREAM_CLOSED)),
    "5.1 half-closed (remote): HEADERS": (headers(1) + headers(1), stream(STREAM_CLOSED)),
    "5.1 half-closed (remote): CONTINUATION": (headers(1) + frame(CONTINUATION, 4, 1), connection(PROTOCOL_ERROR)),
    "5.1 half-closed (remote): WINDOW_UPDATE": (headers(1) + window_update(1, 1), FINE),
    "5.1 half-closed (remote): PRIORITY": (headers(1) + frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"), FINE),
    "5.1 half-closed (remote): RST_STREAM": (headers(1) + rst_stream(1, 8), FINE),
    "5.1 reset by the peer: DATA": (OPEN + rst_stream(1, 8) + data(1, b"x"), stream(STREAM_CLOSED)),
    "5.1 reset by the peer: HEADERS": (OPEN + rst_stream(1, 8) + headers(1), stream(STREAM_CLOSED)),
    "5.1 reset by the peer: RST_STREAM": (OPEN + rst_stream(1, 8) + rst_stream(1, 8), FINE),
    "5.1 reset by the peer: WINDOW_UPDATE": (OPEN + rst_stream(1, 8) + window_update(1, 1), FINE),
    # 5.1.1: numbers of streams
    "5.1.1 even": (headers(2), connection(PROTOCOL_ERROR)),
    "5.1.1 skipped": (headers(5) + headers(3), connection(PROTOCOL_ERROR)),
    "5.1.1 zero": (headers(0), connection(PROTOCOL_ERROR)),
    # 5.3: priority, deprecated
    "5.3 HEADERS that depends on itself": (
        frame(HEADERS, 0x25, 1, b"\0\0\0\1\x10" + block(REQUEST)), FINE),
    "5.3 PRIORITY that depends on itself": (frame(PRIORITY, 0, 1, b"\0\0\0\1\x10"), FINE),
    # 6.1: DATA
    "6.1 stream 0": (data(0, b"x"), connection(PROTOCOL_ERROR)),
    "6.1 as much padding as payload": (OPEN + frame(DATA, 8, 1, b"\x04xxxx"), FINE),
    "6.1 more padding than payload": (OPEN + frame(DATA, 8, 1, b"\x05xxxx"), connection(PROTOCOL_ERROR)),
    "6.1 padded and empty": (OPEN + frame(DATA, 8, 1, b""), connection(FRAME_SIZE_ERROR)),
    # 6.2: HEADERS
    "6.2 more padding than payload": (
        frame(HEADERS, 0xD, 1, b"\xff" + block(REQUEST)), connection(PROTOCOL_ERROR)),
    "6.2 padding": (frame(HEADERS, 0xD, 1, b"\x02" + block(REQUEST) + b"\0\0"), FINE),
    "6.2 padding and priority": (frame(HEADERS, 0x2D, 1, b"\x02\0\0\0\0\x10" + block(REQUEST) + b"\0\0"), FINE),
    "6.2 too short for its priority": (frame(HEADERS, 0x25, 1, b"\0\0"), connection(FRAME_SIZE_ERROR)),
    # 6.3: PRIORITY
    "6.3 stream 0": (frame(PRIORITY, 0, 0, b"\0\0\0\0\x10"), connection(PROTOCOL_ERROR)),
    "6.3 size": (OPEN + frame(PRIORITY, 0, 1, b"\0\0\0\0"), stream(FRAME_SIZE_ERROR)),
    # 6.4: RST_STREAM
    "6.4 stream 0": (rst_stream(0, 8), connection(PROTOCOL_ERROR)),
    "6.4 size": (OPEN + frame(RST_STREAM, 0, 1, b"\0\0\0"), connection(FRAME_SIZE_ERROR)),
    "6.4 unknown code": (OPEN + rst_stream(1, 0xFFFFFFFF), FINE),
    # 6.5: SETTINGS
    "6.5 stream": (frame(SETTINGS, 0, 1), connection(PROTOCOL_ERROR)),
    "6.5 ACK with payload": (frame(SETTINGS, 1, 0, b"x"), connection(FRAME_SIZE_ERROR)),
    "6.5 size": (frame(SETTINGS, 0, 0, b"\0" * 5), connection(FRAME_SIZE_ERROR)),
    "6.5 ACK of nothing": (frame(SETTINGS, 1), FINE),
    "6.5.2 ENABLE_PUSH": (settings([(ENABLE_PUSH, 2)]), connection(PROTOCOL_ERROR)),
    "6.5.2 INITIAL_WINDOW_SIZE": (settings([(INITIAL_WINDOW_SIZE, 1 << 31)]), connection(FLOW_CONTROL_ERROR)),
    "6.5.2 MAX_FRAME_SIZE small": (settings([(MAX_FRAME_SIZE, 16383)]), connection(PROTOCOL_ERROR)),
    "6.5.2 MAX_FRAME_SIZE large": (settings([(MAX_FRAME_SIZE, 1 << 24)]), connection(PROTOCOL_ERROR)),
    "6.5.2 unknown": (settings([(0xFE, 7), (0, 0xFFFFFFFF)]), FINE),
    "6.5.2 same twice": (settings([(INITIAL_WINDOW_SIZE, 1), (INITIAL_WINDOW_SIZE, 2)]), FINE),
    # 6.6: PUSH_PROMISE
    "6.6 by a client": (OPEN + frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2"), connection(PROTOCOL_ERROR)),
    # 6.7: PING
    "6.7 stream": (frame(PING, 0, 1, b"x" * 8), connection(PROTOCOL_ERROR)),
    "6.7 size": (frame(PING, 0, 0, b"x" * 6), connection(FRAME_SIZE_ERROR)),
    "6.7 ACK of nothing": (frame(PING, 1, 0, b"x" * 8), FINE),
    # 6.8: GOAWAY
    "6.8 stream": (frame(GOAWAY, 0, 1, b"\0" * 8), connection(PROTOCOL_ERROR)),
    "6.8 size": (frame(GOAWAY, 0, 0, b"\0" * 7), connection(FRAME_SIZE_ERROR)),
    # 6.9: WINDOW_UPDATE
    "6.9 zero": (window_update(0, 0), connection(PROTOCOL_ERROR)),
    "6.9 zero, stream": (OPEN + window_update(1, 0), stream(PROTOCOL_ERROR)),
    "6.9 size": (frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), connection(FRAME_SIZE_ERROR)),
    "6.9.1 too much": (window_update(0, 0x7FFFFFFF), connection(FLOW_CONTROL_ERROR)),
    "6.9.1 too much, stream": (OPEN + window_update(1, 0x7FFFFFFF), stream(FLOW_CONTROL_ERROR)),
    "6.9.2 too much by a setting": (
        OPEN + window_update(1, 0x7FFF0000) + settings([(INITIAL_WINDOW_SIZE, 0x7FFFFFFF)]),
        connection(FLOW_CONTROL_ERROR)),
    # 6.10: CONTINUATION
    "6.10 behind the end of the block": (OPEN + frame(CONTINUATION, 4, 1), connection(PROTOCOL_ERROR)),
    "6.10 stream 0": (frame(HEADERS, 1, 1, block(REQUEST)) + frame(CONTINUATION, 4, 0), connection(PROTOCOL_ERROR)),
    "6.10 in pieces": (
        frame(HEADERS, 1, 1, block(REQUEST)[:2]) + frame(CONTINUATION, 0, 1, block(REQUEST)[2:3])
        + frame(CONTINUATION, 4, 1, block(REQUEST)[3:]), FINE),
    # 8.1: messages
    "8.1 trailers that do not end the stream": (OPEN + headers(1, [(b"a", b"b")], end=False), stream(PROTOCOL_ERROR)),
    "8.1 trailers": (OPEN + headers(1, [(b"a", b"b")]), FINE),
    "8.1.1 more than Content-Length": (
        headers(1, [*POST, (b"content-length", b"1")], end=False) + data(1, b"xx", True), stream(PROTOCOL_ERROR)),
    "8.1.1 less than Content-Length": (
        headers(1, [*POST, (b"content-length", b"3")], end=False) + data(1, b"xx", True), stream(PROTOCOL_ERROR)),
    "8.1.1 less than Content-Length, in two": (
        headers(1, [*POST, (b"content-length", b"5")], end=False) + data(1, b"xx") + data(1, b"xx", True),
        stream(PROTOCOL_ERROR)),
    "8.1.1 less than Content-Length, trailers": (
        headers(1, [*POST, (b"content-length", b"3")], end=False) + data(1, b"xx") + headers(1, [(b"a", b"b")]),
        stream(PROTOCOL_ERROR)),
    "8.1.1 Content-Length without a body": (headers(1, [*POST, (b"content-length", b"3")]), stream(PROTOCOL_ERROR)),
    "8.1.1 Content-Length of nothing": (headers(1, [*POST, (b"content-length", b"0")]), FINE),
    "8.1.1 Content-Length as it is": (
        headers(1, [*POST, (b"content-length", b"4")], end=False) + data(1, b"xx") + data(1, b"xx", True), FINE),
    "8.3 pseudo-header in trailers": (OPEN + headers(1, [(b":path", b"/")]), stream(PROTOCOL_ERROR)),
}  # fmt: skip


@pytest.mark.parametrize(("payload", "expected"), SERVER.values(), ids=SERVER)
@pytest.mark.parametrize("cut", ["whole", "bytes"])
def test_what_a_client_may_do_wrong(payload: bytes, expected: tuple[Any, ...], cut: str) -> None:
    ours, sink = server(stream_error_on_invalid_http_messaging=True)
    if cut == "whole":
        assert outcome(ours, payload) == expected
    else:
        outcomes = [outcome(ours, payload[at : at + 1]) for at in range(len(payload))]
        assert [found for found in outcomes if found != FINE][:1] == ([expected] if expected != FINE else [])
    if expected[0] == "connection":
        calls = len(sink.calls)
        ours.receive(headers(101))
        assert len(sink.calls) == calls, "something was taken behind the error"
    elif expected[0] == "stream":
        assert outcome(ours, headers(101)) == FINE
        assert sink.calls[-1][:2] == ("head", 101), "the connection did not go on"


REQUESTS: dict[str, tuple[list[Field], bool]] = {
    "plain": (REQUEST, True),
    "8.2 upper case": ([*REQUEST, (b"X-a", b"1")], False),
    "8.2 space in a name": ([*REQUEST, (b"x a", b"1")], False),
    "8.2 no name": ([*REQUEST, (b"", b"1")], False),
    "8.2 colon in a name": ([*REQUEST, (b"a:b", b"1")], False),
    "8.2.1 NUL": ([*REQUEST, (b"a", b"1\x002")], False),
    "8.2.1 CR": ([*REQUEST, (b"a", b"1\r2")], False),
    "8.2.1 LF": ([*REQUEST, (b"a", b"1\n2")], False),
    "8.2.1 space before": ([*REQUEST, (b"a", b" 1")], False),
    "8.2.1 tab behind": ([*REQUEST, (b"a", b"1\t")], False),
    "8.2.1 blank": ([*REQUEST, (b"a", b" ")], False),
    "8.2.1 spaces inside": ([*REQUEST, (b"a", b"1 \t 2")], True),
    "8.2.1 empty": ([*REQUEST, (b"a", b"")], True),
    "8.2.1 beyond ASCII": ([*REQUEST, (b"a", b"\xc3\xa4")], True),
    "8.2.1 LF in the path": ([*REQUEST[:2], (b":path", b"/\nx"), *REQUEST[3:]], False),
    "8.2.1 space in the path": ([*REQUEST[:2], (b":path", b"/a HTTP/1.1"), *REQUEST[3:]], False),
    "8.2.1 CR in the authority": ([*REQUEST[:3], (b":authority", b"a\rb")], False),
    "8.2.1 space in the method": ([(b":method", b"GET /x"), *REQUEST[1:]], False),
    "8.2.2 Connection": ([*REQUEST, (b"connection", b"close")], False),
    "8.2.2 Proxy-Connection": ([*REQUEST, (b"proxy-connection", b"close")], False),
    "8.2.2 Keep-Alive": ([*REQUEST, (b"keep-alive", b"timeout=1")], False),
    "8.2.2 Transfer-Encoding": ([*REQUEST, (b"transfer-encoding", b"chunked")], False),
    "8.2.2 Upgrade": ([*REQUEST, (b"upgrade", b"websocket")], False),
    "8.2.2 TE other than trailers": ([*REQUEST, (b"te", b"trailers, deflate")], False),
    "8.2.2 TE: trailers": ([*REQUEST, (b"te", b"trailers")], True),
    "8.3 unknown": ([*REQUEST, (b":x", b"1")], False),
    "8.3 of a response": ([*REQUEST, (b":status", b"200")], False),
    "8.3 behind a field": ([*REQUEST[:3], (b"a", b"b"), REQUEST[3]], False),
    "8.3 all behind a field": ([(b"a", b"b"), *REQUEST], False),
    "8.3 twice": ([*REQUEST, (b":path", b"/")], False),
    "8.3.1 no method": (REQUEST[1:], False),
    "8.3.1 no scheme": ([REQUEST[0], *REQUEST[2:]], False),
    "8.3.1 no path": ([*REQUEST[:2], REQUEST[3]], False),
    "8.3.1 empty path": ([*REQUEST[:2], (b":path", b""), REQUEST[3]], False),
    "8.3.1 relative path": ([*REQUEST[:2], (b":path", b"a"), REQUEST[3]], False),
    "8.3.1 asterisk": ([(b":method", b"OPTIONS"), REQUEST[1], (b":path", b"*"), REQUEST[3]], True),
    "8.3.1 asterisk without OPTIONS": ([*REQUEST[:2], (b":path", b"*"), REQUEST[3]], False),
    "8.3.1 Host alone": ([*REQUEST[:3], (b"host", b"b")], True),
    "8.3.1 Host twice": ([*REQUEST[:3], (b"host", b"b"), (b"host", b"b")], False),
    "8.3.1 no authority": (REQUEST[:3], False),
    "8.3.1 empty authority": ([*REQUEST[:3], (b":authority", b"")], False),
    "8.3.1 userinfo": ([*REQUEST[:3], (b":authority", b"u@a")], False),
    "8.3.1 broken scheme": ([REQUEST[0], (b":scheme", b"ht tp"), *REQUEST[2:]], False),
    "8.5 CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"a:1")], True),
    "8.5 CONNECT without authority": ([(b":method", b"CONNECT")], False),
    "8.5 CONNECT with path": ([(b":method", b"CONNECT"), *REQUEST[1:]], False),
    "8.5 CONNECT with scheme": ([(b":method", b"CONNECT"), REQUEST[1], REQUEST[3]], False),
    "8441 4 protocol that was not offered": ([(b":method", b"CONNECT"), (b":protocol", b"websocket"), *REQUEST[1:]], False),
    "8441 4 protocol without CONNECT": ([*REQUEST, (b":protocol", b"websocket")], False),
    "9110 8.6 two lengths": ([*REQUEST, (b"content-length", b"0"), (b"content-length", b"0")], False),
    "9110 8.6 list of lengths": ([*REQUEST, (b"content-length", b"0, 0")], False),
    "9110 8.6 sign": ([*REQUEST, (b"content-length", b"+0")], False),
    "9110 8.6 underscore": ([*REQUEST, (b"content-length", b"0_0")], False),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "good"), REQUESTS.values(), ids=REQUESTS)
def test_which_requests_are_malformed(fields: list[Field], good: bool) -> None:
    ours, sink = server(stream_error_on_invalid_http_messaging=True)
    assert outcome(ours, headers(1, fields)) == (FINE if good else stream(PROTOCOL_ERROR))
    assert sink.names() == (["head"] if good else ["refused"])
    ours, sink = server()  # by default such a message ends the connection, as in Envoy
    assert outcome(ours, headers(1, fields)) == (FINE if good else connection(PROTOCOL_ERROR))


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("8.2 upper case", INVALID_FIELD),
        ("8.2.1 NUL", INVALID_FIELD),
        ("8.2.2 Connection", INVALID_FIELD),
        ("8.2.2 TE other than trailers", INVALID_FIELD),
        ("8.3 unknown", INVALID_FIELD),
        ("8.3 behind a field", INVALID_FIELD),
        ("8.3.1 no path", VIOLATION),
        ("8.3.1 empty path", INVALID_FIELD),
        ("8.3.1 relative path", VIOLATION),
        ("8.3.1 asterisk without OPTIONS", VIOLATION),
        ("8.3.1 no authority", VIOLATION),
        ("8.5 CONNECT with path", VIOLATION),
        ("9110 8.6 two lengths", INVALID_FIELD),
    ],
)
def test_details_are_those_that_envoy_logs(name: str, details: str) -> None:
    ours, _ = server()
    with pytest.raises(Http2Error, match=details):
        ours.receive(headers(1, REQUESTS[name][0]))


def test_a_bad_value_in_the_dynamic_table_is_bad_every_time() -> None:
    ours, _ = server(stream_error_on_invalid_http_messaging=True)
    insert = block(REQUEST) + b"\x40\x01a\x021\n"
    assert outcome(ours, frame(HEADERS, 5, 1, insert)) == stream(PROTOCOL_ERROR)
    assert outcome(ours, frame(HEADERS, 5, 3, block(REQUEST) + b"\xbe")) == stream(PROTOCOL_ERROR, 3)
    assert outcome(ours, headers(5)) == FINE


# What a server answers to a GET on stream 1 that has been sent as a whole, and what a client makes of it.
CLIENT: dict[str, tuple[bytes, tuple[Any, ...]]] = {
    "response": (headers(1, RESPONSE), FINE),
    "informational first": (headers(1, [(b":status", b"103")], end=False) + headers(1, RESPONSE), FINE),
    "trailers": (headers(1, RESPONSE, end=False) + data(1, b"x") + headers(1, [(b"a", b"b")]), FINE),
    "8.1 DATA first": (data(1, b"x"), stream(PROTOCOL_ERROR)),
    "8.1 informational that ends": (headers(1, [(b":status", b"103")]), stream(PROTOCOL_ERROR)),
    "8.1 DATA behind informational": (headers(1, [(b":status", b"100")], end=False) + data(1, b"x"), stream(PROTOCOL_ERROR)),
    "8.1 second head that does not end": (headers(1, RESPONSE, end=False) * 2, stream(PROTOCOL_ERROR)),
    "8.1.1 less than Content-Length": (
        headers(1, [*RESPONSE, (b"content-length", b"2")], end=False) + data(1, b"x", True), stream(PROTOCOL_ERROR)),
    "8.1.1 more than Content-Length": (
        headers(1, [*RESPONSE, (b"content-length", b"1")], end=False) + data(1, b"xx"), stream(PROTOCOL_ERROR)),
    "8.1.1 Content-Length without a body": (headers(1, [*RESPONSE, (b"content-length", b"2")]), stream(PROTOCOL_ERROR)),
    "8.1.1 304 with Content-Length": (headers(1, [(b":status", b"304"), (b"content-length", b"2")]), FINE),
    "8.1.1 204 with a body": (headers(1, [(b":status", b"204")], end=False) + data(1, b"x"), stream(PROTOCOL_ERROR)),
    "8.2 upper case": (headers(1, [*RESPONSE, (b"A", b"b")]), stream(PROTOCOL_ERROR)),
    "8.2.2 Connection": (headers(1, [*RESPONSE, (b"connection", b"close")]), stream(PROTOCOL_ERROR)),
    "8.2.2 Transfer-Encoding": (headers(1, [*RESPONSE, (b"transfer-encoding", b"chunked")]), stream(PROTOCOL_ERROR)),
    "8.3 of a request": (headers(1, [*RESPONSE, (b":path", b"/")]), stream(PROTOCOL_ERROR)),
    "8.3.2 no status": (headers(1, [(b"a", b"b")]), stream(PROTOCOL_ERROR)),
    "8.3.2 status of two digits": (headers(1, [(b":status", b"20")]), stream(PROTOCOL_ERROR)),
    "8.3.2 status of four digits": (headers(1, [(b":status", b"0200")]), stream(PROTOCOL_ERROR)),
    "8.3.2 status twice": (headers(1, RESPONSE * 2), stream(PROTOCOL_ERROR)),
    "8.6 101": (headers(1, [(b":status", b"101")], end=False), stream(PROTOCOL_ERROR)),
    "8.4 push": (frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2" + block(REQUEST)), connection(PROTOCOL_ERROR)),
    "5.1.1 stream of the server": (headers(2, RESPONSE), connection(PROTOCOL_ERROR)),
    "5.1.1 stream that was not opened": (headers(3, RESPONSE), connection(PROTOCOL_ERROR)),
    "5.1 closed: DATA": (headers(1, RESPONSE) + data(1, b"x"), connection(STREAM_CLOSED)),
    "5.1 closed: HEADERS": (headers(1, RESPONSE) + headers(1, RESPONSE), connection(STREAM_CLOSED)),
    "5.1 closed: WINDOW_UPDATE": (headers(1, RESPONSE) + window_update(1, 5), FINE),
    "5.1 closed: RST_STREAM": (headers(1, RESPONSE) + rst_stream(1, 0), FINE),
    "5.1 reset by the peer: DATA": (rst_stream(1, 8) + data(1, b"x"), stream(STREAM_CLOSED)),
    "6.5.2 push": (settings([(ENABLE_PUSH, 1)]), connection(PROTOCOL_ERROR)),
    "8441 3 taken back": (
        settings([(ENABLE_CONNECT_PROTOCOL, 1)]) + settings([(ENABLE_CONNECT_PROTOCOL, 0)]), connection(PROTOCOL_ERROR)),
    "8441 3 neither 0 nor 1": (settings([(ENABLE_CONNECT_PROTOCOL, 2)]), connection(PROTOCOL_ERROR)),
    "4.3 broken block": (frame(HEADERS, 5, 1, b"\x80"), connection(COMPRESSION_ERROR)),
}  # fmt: skip


@pytest.mark.parametrize(("payload", "expected"), CLIENT.values(), ids=CLIENT)
@pytest.mark.parametrize("cut", ["whole", "bytes"])
def test_what_a_server_may_do_wrong(payload: bytes, expected: tuple[Any, ...], cut: str) -> None:
    ours, sink = client(stream_error_on_invalid_http_messaging=True)
    ours.open(request(), True)
    sent(ours)
    if cut == "whole":
        assert outcome(ours, payload) == expected
    else:
        outcomes = [outcome(ours, payload[at : at + 1]) for at in range(len(payload))]
        assert [found for found in outcomes if found != FINE][:1] == ([expected] if expected != FINE else [])
    if expected[0] == "stream" and "reset by the peer" not in str(sink.calls):
        assert 1 in sink.resets


def test_a_response_to_head_has_no_body_whatever_its_length_says() -> None:
    for ending in (
        headers(1, [*RESPONSE, (b"content-length", b"9")]),
        headers(1, [*RESPONSE, (b"content-length", b"9")], end=False) + data(1, b"", True),
    ):
        ours, sink = client()
        ours.open(request(method=b"HEAD"), True)
        sent(ours)
        assert outcome(ours, ending) == FINE
        assert 1 in sink.ended
    ours, _ = client()
    ours.open(request(method=b"HEAD"), True)
    sent(ours)
    assert outcome(ours, headers(1, RESPONSE, end=False) + data(1, b"x")) == stream(PROTOCOL_ERROR)


LENGTH_OF_5 = (b"content-length", b"5")


@pytest.mark.parametrize(
    "ending",
    [
        headers(1, [*REQUEST, LENGTH_OF_5], end=False) + data(1, b"abc", True),
        headers(1, [*REQUEST, LENGTH_OF_5], end=False) + data(1, b"abcdef"),
    ],
    ids=["too short", "too long"],
)
def test_a_wrong_length_ends_the_stream_even_where_malformed_messages_end_the_connection(ending: bytes) -> None:
    ours, _ = server()
    assert outcome(ours, ending) == stream(PROTOCOL_ERROR)
    assert outcome(ours, headers(3, REQUEST)) == FINE


def test_trailers_have_no_content_length() -> None:
    ours, sink = server()
    trailers = headers(1, [(b"content-length", b"5"), (b"a", b"b")])
    assert outcome(ours, headers(1, REQUEST, end=False) + data(1, b"abc") + trailers) == FINE
    assert sink.trailers[1] == [(b"a", b"b")]


def test_streams_that_we_have_reset_ignore_what_was_under_way() -> None:
    ours, sink = server()
    assert outcome(ours, OPEN) == FINE
    ours.reset(1, 2)
    assert [found[:3] for found in sent(ours)] == [("RST_STREAM", 0, 1)]
    late = data(1, b"x" * 100) + headers(1, [(b"a", b"b")]) + window_update(1, 5) + rst_stream(1, 8)
    assert outcome(ours, late) == FINE
    assert sink.names() == ["head"]
    assert ours.window_in + ours.unreturned == ours.options.initial_connection_window_size


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"x"])
def test_a_wrong_preface_is_refused_as_soon_as_it_differs(hello: bytes) -> None:
    ours = ServerConnection(Http2Options(), Texts())
    ours.sink = Recording()
    assert outcome(ours, hello) == connection(PROTOCOL_ERROR)


@pytest.mark.parametrize("first", [headers(1), frame(PING, 0, 0, b"x" * 8), frame(SETTINGS, 1), frame(0xBE)])
def test_settings_must_come_first(first: bytes) -> None:
    ours = ServerConnection(Http2Options(), Texts())
    ours.sink = Recording()
    assert outcome(ours, PREFACE + first) == connection(PROTOCOL_ERROR)
    theirs = ClientConnection(Http2Options(), Texts())
    theirs.sink = Recording()
    assert outcome(theirs, first) == connection(PROTOCOL_ERROR)


def test_more_streams_than_offered_are_refused_and_the_table_stays_in_step() -> None:
    ours, sink = server(max_concurrent_streams=2)
    assert outcome(ours, headers(1) + headers(3)) == FINE
    assert outcome(ours, frame(HEADERS, 5, 5, block(REQUEST) + b"\x40\x01a\x01b")) == stream(REFUSED_STREAM, 5)
    ours.send_head(1, response(), True)
    sent(ours)
    assert outcome(ours, frame(HEADERS, 5, 7, block(REQUEST) + b"\xbe")) == FINE
    assert sink.heads[7].fields == [(b"a", b"b")]


def test_the_windows_that_we_have_given_are_held() -> None:
    ours, _ = server(initial_stream_window_size=65535, initial_connection_window_size=70000)
    assert outcome(ours, OPEN + headers(3, end=False) + data(1, b"x" * 16384) * 3 + data(1, b"x" * 16383)) == FINE
    assert outcome(ours, data(1, b"x")) == stream(FLOW_CONTROL_ERROR)
    assert outcome(ours, data(3, b"x" * 4464)) == FINE
    assert outcome(ours, data(3, b"x")) == connection(FLOW_CONTROL_ERROR)


def test_goaway_of_a_client_is_told() -> None:
    ours, sink = server()
    assert outcome(ours, goaway(0, 11, b"why")) == FINE
    assert sink.calls == [("goaway", 0, 11, b"why")]
