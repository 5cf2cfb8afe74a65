"""Hostile upstreams: responses that are broken, ambiguous, or too large. Runs on the plain bootstrap."""

from __future__ import annotations

from collections.abc import Callable

from tests.differential.blocks import Message, Site
from tests.differential.case import AwaitResponses, Close, ReadBody, Reply, Table, UpstreamStep, request

BOOTSTRAPS: dict[str, Callable[[Site], Message]] = {}

table = Table("hostile-upstream", "plain")
CASES = table.cases


def answer(name: str, data: bytes, *, method: str = "GET", close: bool = False, deadline: float = 5.0) -> None:
    """A case of one response as written; it says by a second request whether the connection stayed in step."""
    steps: tuple[UpstreamStep, ...] = (ReadBody(), data, Close()) if close else (ReadBody(), data)
    table.add(name, request(method, "/"), methods=[method], upstream=Reply(steps), deadline=deadline)


OK_LINE = b"HTTP/1.1 200 OK\r\n"

answer("garbage", b"garbage\r\n\r\n")
answer("garbage-and-close", b"garbage", close=True)
answer("binary", bytes(range(256)))
answer("status-not-a-number", b"HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n")
answer("status-two-digits", b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", deadline=0.3)
answer("status-four-digits", b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n")
answer("status-zero", b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n", deadline=0.3)
answer("status-600", b"HTTP/1.1 600 Odd\r\ncontent-length: 0\r\n\r\n")
answer("status-999", b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n")
answer("status-without-reason", b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n")
answer("status-with-empty-reason", b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n")
answer("version-2", b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n")
answer("version-1-2", b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n")
answer("version-lower-case", b"http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
answer("icy", b"ICY 200 OK\r\ncontent-length: 0\r\n\r\n")
answer("leading-empty-line", b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
answer("bare-lf", b"HTTP/1.1 200 OK\ncontent-length: 0\n\n")
answer("reason-with-nul", b"HTTP/1.1 200 O\x00K\r\ncontent-length: 0\r\n\r\n")
answer("reason-with-bare-cr", b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n")
answer("header-without-colon", OK_LINE + b"broken\r\ncontent-length: 0\r\n\r\n")
answer("header-space-before-colon", OK_LINE + b"x-space : 1\r\ncontent-length: 0\r\n\r\n")
answer("header-empty-name", OK_LINE + b": 1\r\ncontent-length: 0\r\n\r\n")
answer("header-nul-in-value", OK_LINE + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n")
answer("header-bare-cr-in-value", OK_LINE + b"x: a\rb\r\ncontent-length: 0\r\n\r\n")
answer("header-obs-fold", OK_LINE + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n")
answer("header-high-bytes", OK_LINE + b"x: caf\xe9\r\ncontent-length: 0\r\n\r\n")
answer("header-control", OK_LINE + b"x: a\x07b\r\ncontent-length: 0\r\n\r\n")
answer("header-underscore", OK_LINE + b"x_y: 1\r\ncontent-length: 0\r\n\r\n")
answer("header-connection-upgrade", OK_LINE + b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n")
answer("switching-unasked", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
answer("length-and-chunked", OK_LINE + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
answer("chunked-and-length", OK_LINE + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
answer("two-lengths", OK_LINE + b"content-length: 3\r\ncontent-length: 5\r\n\r\nabcde")
answer("two-equal-lengths", OK_LINE + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc")
answer("length-list", OK_LINE + b"content-length: 3, 3\r\n\r\nabc")
answer("length-negative", OK_LINE + b"content-length: -3\r\n\r\nabc")
answer("length-with-plus", OK_LINE + b"content-length: +3\r\n\r\nabc")
answer("length-with-underscore", OK_LINE + b"content-length: 1_0\r\n\r\n0123456789")
answer("length-not-a-number", OK_LINE + b"content-length: abc\r\n\r\nabc")
answer("length-empty", OK_LINE + b"content-length:\r\n\r\nabc", close=True)
answer("length-enormous", OK_LINE + b"content-length: 99999999999999999999\r\n\r\nabc")
answer("encoding-unknown", OK_LINE + b"transfer-encoding: zip\r\n\r\nabc", close=True)
answer("encoding-gzip-chunked", OK_LINE + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
answer("encoding-chunked-twice", OK_LINE + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n")
answer("encoding-identity", OK_LINE + b"transfer-encoding: identity\r\n\r\nabc", close=True)
answer("chunked-on-http-1-0", b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", close=True)
answer("chunk-size-bad", OK_LINE + b"transfer-encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n")
answer("chunk-size-negative", OK_LINE + b"transfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n")
answer("chunk-size-overflow", OK_LINE + b"transfer-encoding: chunked\r\n\r\n10000000000000000\r\nabc\r\n")
answer("chunk-too-long", OK_LINE + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n")
answer("chunk-bare-lf", OK_LINE + b"transfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n")
answer("chunk-extension", OK_LINE + b"transfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n")
answer("more-than-its-length", OK_LINE + b"content-length: 3\r\n\r\nabcdef")
answer("two-responses", OK_LINE + b"content-length: 1\r\n\r\na" + OK_LINE + b"content-length: 1\r\n\r\nb")
answer("head-with-body", OK_LINE + b"content-length: 3\r\n\r\nabc", method="HEAD")
answer("204-with-body", b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc")
answer("204-chunked", b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
answer("304-with-body", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\nabc")
answer("100-for-ever", b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + OK_LINE + b"content-length: 0\r\n\r\n")
answer("100-then-nothing", b"HTTP/1.1 100 Continue\r\n\r\n", close=True)
answer("199", b"HTTP/1.1 199 Odd\r\n\r\n" + OK_LINE + b"content-length: 0\r\n\r\n")
answer("headers-of-70-kb", OK_LINE + b"x-large: " + b"a" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n")
answer("headers-of-50-kb", OK_LINE + b"x-large: " + b"a" * 50_000 + b"\r\ncontent-length: 0\r\n\r\n")
answer(
    "headers-101", OK_LINE + b"".join(b"x-%d: 1\r\n" % number for number in range(101)) + b"content-length: 0\r\n\r\n"
)
answer("headers-99", OK_LINE + b"".join(b"x-%d: 1\r\n" % number for number in range(95)) + b"content-length: 0\r\n\r\n")
answer(
    "x-envoy-headers",
    OK_LINE + b"x-envoy-upstream-service-time: 5\r\nx-envoy-overloaded: 1\r\ncontent-length: 0\r\n\r\n",
)
answer("pseudo-header", OK_LINE + b":status: 500\r\ncontent-length: 0\r\n\r\n")

table.add(
    "in-step-after-head-with-body",
    request("HEAD", "/1"),
    AwaitResponses(1),
    request("GET", "/2"),
    methods=["HEAD", "GET"],
    upstream=[
        Reply((ReadBody(), OK_LINE + b"content-length: 3\r\n\r\n")),
        Reply((ReadBody(), OK_LINE + b"content-length: 2\r\n\r\nok")),
    ],
)
table.add(
    "in-step-after-204",
    request("GET", "/1"),
    AwaitResponses(1),
    request("GET", "/2"),
    upstream=[
        Reply((ReadBody(), b"HTTP/1.1 204 No Content\r\n\r\n")),
        Reply((ReadBody(), OK_LINE + b"content-length: 2\r\n\r\nok")),
    ],
)
