"""Requests, one by one: what is taken, with which framing, and what is refused with which status (RFC 9112)."""

from __future__ import annotations

import pytest

from sidecar.codec.http1_reader import DONE
from tests.sidecar.codec.recording import one_by_one, read_request

HOST = b"Host: a\r\n"


def taken(data: bytes) -> list[object]:
    """The only message of ``data``, which must read the same whole and byte by byte."""
    whole, bytewise = read_request([data]), read_request(one_by_one(data))
    assert whole.error is None and bytewise.error is None
    assert whole.messages == bytewise.messages
    assert whole.complete
    return whole.messages[0]


def refused(data: bytes, status: int = 400) -> str:
    whole, bytewise = read_request([data]), read_request(one_by_one(data))
    assert whole.error is not None and whole.error.status == status
    assert bytewise.error is not None and bytewise.error.status == status
    assert not any(message[3] for message in whole.messages + bytewise.messages), "a refused message was completed"
    return whole.error.details


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"HEAD /a?b=c HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"M-SEARCH /%20 HTTP/1.1",
        b"GET / HTTP/1.0",
        b"PATCH /#f HTTP/1.1",
        b"\r\n\r\nGET / HTTP/1.1",  # empty lines before it (RFC 9112 section 2.2)
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1",
    ],
)
def test_request_line(line: bytes) -> None:
    head = taken(line + b"\r\n" + HOST + b"\r\n")[0]
    method, target, version = line.strip().split(b" ")
    assert head[:4] == (method, target, b"a", 11 if version == b"HTTP/1.1" else 10)  # type: ignore[index]


@pytest.mark.parametrize(
    ("line", "authority", "path"),
    [
        (b"DELETE http://b.example/x HTTP/1.1", b"b.example", b"/x"),
        (b"GET HTTPS://b.example:8443?q HTTP/1.1", b"b.example:8443", b"/?q"),
        (b"CONNECT a.example:443 HTTP/1.1", b"a.example:443", b""),
    ],
)
def test_a_target_with_an_authority_outranks_host(line: bytes, authority: bytes, path: bytes) -> None:
    head = taken(line + b"\r\n" + HOST + b"\r\n")[0]
    assert head[1:3] == (path, authority)  # type: ignore[index]


@pytest.mark.parametrize("line", [b"GET / HTTP/1.2", b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"GET /"])
def test_versions_that_are_not_served(line: bytes) -> None:
    refused(line + b"\r\n" + HOST + b"\r\n", 426)


@pytest.mark.parametrize(
    "line",
    [
        b"GET ftp://b/ HTTP/1.1",
        b"GET http:///x HTTP/1.1",
        b"GET http://b:99999/ HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.1 ",
        b"GET  / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.1\t",
        b"GET",
        b"GET / x HTTP/1.1",
        b"get / HTTP/1.1",
        b"FOO / HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /a\rb HTTP/1.1",
        b"\rGET / HTTP/1.1",
        b"\r\n" * 40 + b"GET / HTTP/1.1",
        b"PRI * HTTP/2.0",
    ],
)
def test_bad_request_line(line: bytes) -> None:
    refused(line + b"\r\n" + HOST + b"\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: a\nX: b\r\n",
        b"Host: a\r\nX: a\rb\r\n",
        b"Host: a\r\nX: a\x00b\r\n",
        b"Host: a\r\nX: a\x0bb\r\n",
        b"Host: a\r\nX: a\x7fb\r\n",
        b"Host: a\r\nX : b\r\n",
        b"Host: a\r\nX\t: b\r\n",
        b"Host: a\r\n: b\r\n",
        b"Host: a\r\nX\r\n",
        b"Host: a\r\n X: b\r\n",
        b"Host: a\r\nX: a\r\n b\r\n",  # obs-fold
        b"Host: a\r\nX\xc3\xa9: b\r\n",
        b"Host: a\r\n(X): b\r\n",
        b"Host: a\r\nhost: b\r\n",
        b"Host: a\r\nhost: a\r\n",
        b"X: a\r\nHost: a\r\nY: b\r\nHOST: a\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: a\xffb\r\n",
        b"Host: a?b\r\n",
        b"Host: a#b\r\n",
        b"X: a\r\n",  # no Host in HTTP/1.1
    ],
)
def test_bad_field_lines(lines: bytes) -> None:
    refused(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")


def test_fields_keep_order_and_repetition() -> None:
    head = taken(b"GET / HTTP/1.1\r\nB: 1\r\nHost: a\r\nA:2\r\nB: \t3 4\t \r\nC:\r\nD: \xff\r\n\r\n")[0]
    assert head[4] == ((b"b", b"1"), (b"a", b"2"), (b"b", b"3 4"), (b"c", b""), (b"d", b"\xff"))  # type: ignore[index]


CL5 = b"Content-Length: 5\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
CHUNKED_BODY = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("fields", "body", "expected"),
    [
        (CL5, b"hello", b"hello"),
        (b"content-length: 0\r\n", b"", b""),
        (b"Content-Length: 0005\r\n", b"hello", b"hello"),
        (TE, CHUNKED_BODY, b"hello"),
        (b"transfer-encoding: CHUNKED\r\n", CHUNKED_BODY, b"hello"),
        (b"Transfer-Encoding:\tchunked \r\n", CHUNKED_BODY, b"hello"),
        (TE, b"0\r\n\r\n", b""),
        (TE, b"00000005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (TE, b'5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
        (TE, b"5 ;a\r\nhello\r\n0\r\n\r\n", b"hello"),
        (TE, b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    ],
)
def test_framing(fields: bytes, body: bytes, expected: bytes) -> None:
    assert taken(b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body)[1] == expected


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (CL5 + TE, 400),
        (TE + CL5, 400),
        (CL5 + CL5, 400),
        (CL5 + b"Content-Length: 6\r\n", 400),
        (b"Content-Length: 5, 5\r\n", 400),
        (b"Content-Length: 5,\r\n", 400),
        (b"Content-Length:\r\n", 400),
        (b"Content-Length: -5\r\n", 400),
        (b"Content-Length: +5\r\n", 400),
        (b"Content-Length: 0x5\r\n", 400),
        (b"Content-Length: 5_0\r\n", 400),
        (b"Content-Length: 5 0\r\n", 400),
        (b"Content-Length: 5.0\r\n", 400),
        (b"Content-Length: \xb2\r\n", 400),
        (b"Content-Length: " + b"9" * 19 + b"\r\n", 400),
        (b"Content-Length: " + b"9" * 10_000 + b"\r\n", 400),
        (TE + TE, 501),
        (b"Transfer-Encoding: gzip\r\n", 501),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: chunked, chunked\r\n", 501),
        (b"Transfer-Encoding: chunked, identity\r\n", 501),
        (b"Transfer-Encoding: identity\r\n", 501),
        (b"Transfer-Encoding: xchunked\r\n", 501),
        (b'Transfer-Encoding: "chunked"\r\n', 501),
        (b"Transfer-Encoding:\r\n", 501),
        (b"Transfer-Encoding: chunked\x0b\r\n", 400),
        (b"Transfer-Encoding : chunked\r\n", 400),
        (b" Transfer-Encoding: chunked\r\n", 400),
        (b"X: y\r\n Transfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding\x00: chunked\r\n", 400),
    ],
)
def test_refused_framing(fields: bytes, status: int) -> None:
    refused(b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n", status)


def test_a_transfer_coding_in_http_10_is_refused() -> None:
    refused(b"POST / HTTP/1.0\r\n" + HOST + TE + b"\r\n")


def test_a_chunked_connect_is_refused() -> None:
    refused(b"CONNECT a:1 HTTP/1.1\r\n" + HOST + TE + b"\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"0X5\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\n0123456789012345\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\t\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";a\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello \r\n0\r\n\r\n",
        b"5\r\nhello\rX0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"\xb2\r\nhello\r\n0\r\n\r\n",
        b"F" * 16 + b"\r\nhello\r\n0\r\n\r\n",
        b"1" * 100 + b"\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: b\nC: d\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA : b\r\n\r\n",
        b"5\r\nhello\r\n0\r\n folded\r\n\r\n",
    ],
)
def test_refused_chunks(body: bytes) -> None:
    refused(b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n" + body)


def test_trailers_come_without_what_would_change_the_framing() -> None:
    message = taken(
        b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n2\r\nhi\r\n0\r\nA: 1\r\nContent-Length: 7\r\nHost: b\r\nB:2\r\n\r\n"
    )
    assert message[1:] == [b"hi", [(b"a", b"1"), (b"b", b"2")], True]


def test_head_limits() -> None:
    line = b"GET / HTTP/1.1\r\n" + HOST
    fits = b"X: " + b"y" * 100 + b"\r\n\r\n"
    size = len(line) + len(fits) - 4
    assert read_request([line + fits], max_head_bytes=size).complete
    for pieces in ([line + fits], one_by_one(line + fits)):
        error = read_request(pieces, max_head_bytes=size - 1).error
        assert error is not None and error.status == 431
    assert read_request([line + b"A: b\r\n\r\n"], max_fields=2).complete
    error = read_request([line + b"A: b\r\nC: d\r\n\r\n"], max_fields=2).error
    assert error is not None and error.status == 431


def test_trailer_limits() -> None:
    start = b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n0\r\n"
    for trailers in (b"A: " + b"b" * 500, b"\r\n".join([b"A: b"] * 6)):
        for pieces in ([start + trailers + b"\r\n\r\n"], one_by_one(start + trailers + b"\r\n\r\n")):
            error = read_request(pieces, max_head_bytes=200, max_fields=5).error
            assert error is not None and error.status == 431


@pytest.mark.parametrize("piece", [1 << 20, 1 << 14])
def test_a_20_mb_field_is_refused_when_the_limit_is_reached(piece: int) -> None:
    sent = 0
    data = b"GET / HTTP/1.1\r\n" + HOST + b"X: "

    def pieces() -> object:
        nonlocal sent
        yield data
        for _ in range(20 * (1 << 20) // piece):
            sent += piece
            yield b"y" * piece

    outcome = read_request(pieces())  # type: ignore[arg-type]
    assert outcome.error is not None and outcome.error.status == 431
    assert sent <= 60 * 1024 + piece
    assert outcome.reader.partial is None


def test_10_mb_of_chunk_extension_are_refused_early() -> None:
    data = b"POST / HTTP/1.1\r\n" + HOST + TE + b"\r\n5;"
    pieces = [data] + [b"x" * 65536] * 160
    outcome = read_request(pieces)
    assert outcome.error is not None and outcome.error.status == 400


def test_what_follows_a_message_waits() -> None:
    request = b"POST / HTTP/1.1\r\n" + HOST + CL5 + b"\r\nhello"
    outcome = read_request([request + b"GET /2 HT", b"TP/1.1\r\n"])
    assert outcome.complete and outcome.rest == b"GET /2 HTTP/1.1\r\n"
    assert outcome.reader.state == DONE and outcome.reader.held_size() == len(outcome.rest)


def test_nothing_is_taken_after_an_error() -> None:
    outcome = read_request([b"BAD\r\n\r\n"])
    calls = outcome.calls
    outcome.reader.receive(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert outcome.error is not None and outcome.calls == calls


@pytest.mark.parametrize(
    ("connection", "version", "kept"),
    [
        (None, b"1.1", True),
        (b"close", b"1.1", False),
        (b"Keep-Alive, CLOSE", b"1.1", False),
        (b"closed", b"1.1", True),
        (None, b"1.0", False),
        (b"keep-alive", b"1.0", True),
        (b"x, Keep-Alive", b"1.0", True),
    ],
)
def test_keep_alive(connection: bytes | None, version: bytes, kept: bool) -> None:
    field = b"" if connection is None else b"Connection: " + connection + b"\r\n"
    outcome = read_request([b"GET / HTTP/" + version + b"\r\n" + HOST + field + b"\r\n"])
    assert outcome.reader.keep_alive is kept
