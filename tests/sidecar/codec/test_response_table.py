"""Responses, one by one: statuses, framing, interim responses, tunnels, and what no proxy may take (RFC 9112)."""

from __future__ import annotations

import pytest

from sidecar.codec.http1_head import status_line
from sidecar.codec.http1_reader import DONE, TO_CLOSE, TUNNEL
from tests.sidecar.codec.recording import Outcome, one_by_one, read_response

OK = b"HTTP/1.1 200 OK\r\n"


def both(data: bytes, method: bytes = b"GET", eof: bool = False, upgrade: bool = False) -> Outcome:
    whole = read_response([data], method, eof, upgrade)
    bytewise = read_response(one_by_one(data), method, eof, upgrade)
    assert (whole.error is None) == (bytewise.error is None)
    if whole.error is None:
        assert whole.messages == bytewise.messages
        assert whole.rest == bytewise.rest
    return whole


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.1 200 ", 200),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/1.0 404 Not Found", 404),
        (b"HTTP/1.1 599 \xe4\xf6", 599),
        (b"HTTP/1.1 999 Odd", 999),
    ],
)
def test_status_line(line: bytes, status: int) -> None:
    outcome = both(line + b"\r\nContent-Length: 0\r\n\r\n")
    assert outcome.error is None and outcome.complete
    assert outcome.messages[0][0][0] == status


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 000 X",
        b"HTTP/1.1 099 X",
        b"HTTP/1.1 99 X",
        b"HTTP/1.1 1000 X",
        b"HTTP/1.1 2x0 X",
        b"HTTP/1.1 +20 X",
        b"HTTP/1.1 2_0 X",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/2 200 OK",
        b"HTTP/2.0 200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1",
        b"ICY 200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\nK",
    ],
)
def test_bad_status_line(line: bytes) -> None:
    assert both(line + b"\r\nContent-Length: 0\r\n\r\n").error is not None


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5x\r\n",
        b"Content-Length:\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"X: a\x00b\r\n",
        b"X: a\r\n b\r\n",
        b"X : a\r\n",
        b"X: a\nSet-Cookie: b\r\n",
    ],
)
def test_refused_fields(fields: bytes) -> None:
    outcome = both(OK + fields + b"\r\nhello")
    assert outcome.error is not None and not outcome.complete


@pytest.mark.parametrize(
    ("method", "status"),
    [(b"HEAD", 200), (b"GET", 304), (b"POST", 304), (b"HEAD", 404)],
)
@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_responses_without_a_body_whatever_their_fields_say(method: bytes, status: int, framing: bytes) -> None:
    outcome = both(b"HTTP/1.1 %d X\r\n" % status + framing + b"\r\nHTTP/1.1 200", method)
    assert outcome.error is None and outcome.complete
    assert outcome.messages[0][1] == b""
    assert outcome.rest == b"HTTP/1.1 200", "what follows is not taken as a body"


@pytest.mark.parametrize("status", [100, 103, 204])
def test_statuses_that_may_have_no_framing(status: int) -> None:
    line = b"HTTP/1.1 %d X\r\n" % status
    assert both(line + b"Content-Length: 5\r\n\r\nhello").error is not None
    assert both(line + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").error is not None
    outcome = both(line + b"Content-Length: 0\r\nA: b\r\n\r\n" + (OK if status == 204 else b""))
    assert outcome.error is None and outcome.messages[0][0][2] == ((b"a", b"b"),)
    assert outcome.messages[0][3] is (status == 204)


def test_interim_responses_go_before_the_final_one() -> None:
    outcome = both(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert outcome.error is None
    assert [message[0][0] for message in outcome.messages] == [100, 103, 200]
    assert outcome.messages[2][1:] == [b"hi", None, True]
    assert outcome.reader.state == DONE


def test_no_length_lasts_until_the_end_of_the_connection() -> None:
    outcome = both(OK + b"\r\nhello", eof=True)
    assert outcome.messages[0][1:] == [b"hello", None, True]
    assert not outcome.reader.keep_alive
    assert read_response([OK + b"\r\nhello"]).reader.state == TO_CLOSE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP",
        OK,
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_an_early_end_completes_nothing(data: bytes) -> None:
    outcome = read_response([data] if data else [], eof=True)
    assert not any(message[3] for message in outcome.messages)
    assert outcome.reader.state != DONE


def test_a_tunnel_only_after_an_upgrade_that_was_asked_for() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00\r\n\r\n"
    outcome = both(switching, upgrade=True)
    assert outcome.error is None and outcome.reader.state == TUNNEL
    assert outcome.messages[0][1] == b"\x81\x00\r\n\r\n"
    assert both(switching).error is not None


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_connect_that_succeeds_is_a_tunnel_whatever_its_fields_say(framing: bytes) -> None:
    outcome = both(OK + framing + b"\r\nhello", b"CONNECT")
    assert outcome.reader.state == TUNNEL
    assert outcome.messages[0][1:] == [b"hello", None, False]


def test_a_connect_that_fails_has_a_body() -> None:
    outcome = both(b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nhello", b"CONNECT")
    assert outcome.messages[0][1:] == [b"hello", None, True]


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", True),
        (OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", False),
    ],
)
def test_keep_alive(data: bytes, kept: bool) -> None:
    outcome = both(data)
    assert outcome.complete and outcome.reader.keep_alive is kept


def test_bytes_before_a_request_wait_and_are_no_response() -> None:
    outcome = read_response([OK + b"Content-Length: 0\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nevil"])
    assert outcome.complete and outcome.rest.endswith(b"evil")


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, b"OK"), (413, b"Payload Too Large"), (414, b"URI Too Long"), (416, b"Range Not Satisfiable"),
        (418, b"Unknown"), (422, b"Unprocessable Entity"), (451, b"Unknown"), (503, b"Service Unavailable"),
        (599, b"Last Unassigned Server Error Code"), (799, b"Unknown"),
    ],
)  # fmt: skip
def test_reason_phrases_are_envoys(status: int, phrase: bytes) -> None:
    assert status_line(status) == b"HTTP/1.1 %d %b\r\n" % (status, phrase)


def test_a_huge_head_is_refused() -> None:
    error = read_response([OK, b"X: " + b"y" * 70_000, b"y"]).error
    assert error is not None
    error = read_response([OK + b"X: y\r\n" * 101 + b"\r\n"]).error
    assert error is not None
