"""Hostile clients of HTTP/2: heads that are not allowed, bodies that disagree with them, and frames out of place.

Each malformed head is sent to a listener that ends the connection for it and leads to HTTP/2, and to one that ends only the
stream and leads to HTTP/1.1 (where it would smuggle). After each comes a good request, which shows what lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.differential.blocks import Message, Site
from tests.differential.http2_case import Http2Table
from tests.differential.http2_frames import (
    INITIAL_WINDOW_SIZE,
    PREFACE,
    FieldLine,
    block,
    data,
    frame,
    goaway,
    head,
    headers,
    ping,
    reset,
    settings,
    window,
)
from tests.differential.http2_frames import request as ask
from tests.differential.http2_steps import AwaitGoaway, AwaitStream

BOOTSTRAPS: dict[str, Callable[[Site], Message]] = {}

table = Http2Table("http2-malformed", "http2")
CASES = table.cases

AFTER = ask(3, path="/after")
WAYS = {"http": "", "lenient-down": "-lenient-down"}


def message(name: str, sent: bytes) -> None:
    """These frames on stream 1, and a good request after them, in both ways."""
    for listener, suffix in WAYS.items():
        table.frames(f"{name}{suffix}", sent + AFTER, listener=listener, unordered=True, deadline=0.4, partial=False)


def given(name: str, fields: Sequence[FieldLine], body: bytes | None = None) -> None:
    """A request whose head is exactly this."""
    message(name, headers(1, fields, end=body is None) + (data(1, body) if body is not None else b""))


def with_field(name: str, *fields: FieldLine, method: str = "GET", body: bytes | None = None) -> None:
    """A good request with these fields besides."""
    given(name, head(method, fields=fields), body)


METHOD = (":method", "GET")
SCHEME = (":scheme", "http")
AUTHORITY = (":authority", "a.test")
PATH = (":path", "/")

given("no-method", [SCHEME, AUTHORITY, PATH])
given("no-scheme", [METHOD, AUTHORITY, PATH])
given("no-path", [METHOD, SCHEME, AUTHORITY])
given("no-authority", [METHOD, SCHEME, PATH])
given("no-fields", [])
given("no-pseudo-fields", [("x-a", "1")])
given("two-methods", [METHOD, METHOD, SCHEME, AUTHORITY, PATH])
given("two-schemes", [METHOD, SCHEME, SCHEME, AUTHORITY, PATH])
given("two-paths", [METHOD, SCHEME, AUTHORITY, PATH, (":path", "/other")])
given("two-authorities", [METHOD, SCHEME, AUTHORITY, (":authority", "b.test"), PATH])
given("two-equal-authorities", [METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH])
given("empty-method", [(":method", ""), SCHEME, AUTHORITY, PATH])
given("empty-scheme", [METHOD, (":scheme", ""), AUTHORITY, PATH])
given("empty-path", [METHOD, SCHEME, AUTHORITY, (":path", "")])
given("empty-authority", [METHOD, SCHEME, (":authority", ""), PATH])
given("pseudo-after-a-field", [METHOD, SCHEME, AUTHORITY, ("x-a", "1"), PATH])
given("pseudo-unknown", [METHOD, SCHEME, AUTHORITY, PATH, (":what", "1")])
given("pseudo-of-a-response", [METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")])
given("pseudo-protocol-without-connect", [METHOD, SCHEME, AUTHORITY, PATH, (":protocol", "websocket")])
given("pseudo-in-capitals", [(":METHOD", "GET"), SCHEME, AUTHORITY, PATH])
given("pseudo-empty-name", [METHOD, SCHEME, AUTHORITY, PATH, (":", "x")])
given("method-with-space", [(":method", "GET /smuggled HTTP/1.1"), SCHEME, AUTHORITY, PATH])
given("method-with-crlf", [(":method", "GET / HTTP/1.1\r\nx: y"), SCHEME, AUTHORITY, PATH])
given("method-with-nul", [(":method", "GE\x00T"), SCHEME, AUTHORITY, PATH])
given("method-with-colon", [(":method", "GET:"), SCHEME, AUTHORITY, PATH])
given("method-very-long", [(":method", "A" * 300), SCHEME, AUTHORITY, PATH])
given("method-high-byte", [(":method", "GE\xff"), SCHEME, AUTHORITY, PATH])
given("path-with-space", [METHOD, SCHEME, AUTHORITY, (":path", "/a b")])
given("path-smuggles-a-version", [METHOD, SCHEME, AUTHORITY, (":path", "/ HTTP/1.1")])
given("path-with-crlf", [METHOD, SCHEME, AUTHORITY, (":path", "/ HTTP/1.1\r\nhost: b.test\r\n\r\nGET /smuggled")])
given("path-with-lf", [METHOD, SCHEME, AUTHORITY, (":path", "/a\nb")])
given("path-with-cr", [METHOD, SCHEME, AUTHORITY, (":path", "/a\rb")])
given("path-with-nul", [METHOD, SCHEME, AUTHORITY, (":path", "/a\x00b")])
given("path-with-tab", [METHOD, SCHEME, AUTHORITY, (":path", "/a\tb")])
given("path-with-delete", [METHOD, SCHEME, AUTHORITY, (":path", "/a\x7fb")])
given("path-with-bell", [METHOD, SCHEME, AUTHORITY, (":path", "/a\x07b")])
given("path-with-high-byte", [METHOD, SCHEME, AUTHORITY, (":path", "/a\xffb")])
given("path-with-quote", [METHOD, SCHEME, AUTHORITY, (":path", '/a"b')])
given("path-with-braces", [METHOD, SCHEME, AUTHORITY, (":path", "/{a}|b^c`d")])
given("path-with-backslash", [METHOD, SCHEME, AUTHORITY, (":path", "/a\\b")])
given("path-without-slash", [METHOD, SCHEME, AUTHORITY, (":path", "path")])
given("path-question-mark-first", [METHOD, SCHEME, AUTHORITY, (":path", "?a=b")])
given("path-asterisk-on-get", [METHOD, SCHEME, AUTHORITY, (":path", "*")])
given("path-absolute", [METHOD, SCHEME, AUTHORITY, (":path", "http://b.test/x")])
given("path-bad-escape", [METHOD, SCHEME, AUTHORITY, (":path", "/%zz")])
given("path-escaped-nul", [METHOD, SCHEME, AUTHORITY, (":path", "/%00")])
given("path-with-fragment", [METHOD, SCHEME, AUTHORITY, (":path", "/a#b")])
given("scheme-with-space", [METHOD, (":scheme", "ht tp"), AUTHORITY, PATH])
given("scheme-with-crlf", [METHOD, (":scheme", "http\r\nx: y"), AUTHORITY, PATH])
given("scheme-is-a-url", [METHOD, (":scheme", "http://b.test/?"), AUTHORITY, PATH])
given("authority-with-space", [METHOD, SCHEME, (":authority", "a test"), PATH])
given("authority-with-crlf", [METHOD, SCHEME, (":authority", "a.test\r\nx: y"), PATH])
given("authority-with-lf", [METHOD, SCHEME, (":authority", "a.test\nx: y"), PATH])
given("authority-with-nul", [METHOD, SCHEME, (":authority", "a.test\x00"), PATH])
given("authority-with-slash", [METHOD, SCHEME, (":authority", "a.test/x"), PATH])
given("authority-with-userinfo", [METHOD, SCHEME, (":authority", "user@a.test"), PATH])
given("authority-with-bad-port", [METHOD, SCHEME, (":authority", "a.test:x"), PATH])
given("authority-with-comma", [METHOD, SCHEME, (":authority", "a.test, b.test"), PATH])
given("authority-with-underscore", [METHOD, SCHEME, (":authority", "a_b.test"), PATH])
given("authority-high-byte", [METHOD, SCHEME, (":authority", "a\xff.test"), PATH])
given("host-instead-of-authority", [METHOD, SCHEME, PATH, ("host", "b.test")])
given("host-and-no-authority-empty", [METHOD, SCHEME, PATH, ("host", "")])
given("two-hosts-instead-of-authority", [METHOD, SCHEME, PATH, ("host", "b.test"), ("host", "c.test")])
with_field("host-beside-authority", ("host", "b.test"))
with_field("host-equal-to-authority", ("host", "a.test"))
with_field("host-beside-authority-twice", ("host", "b.test"), ("host", "c.test"))
with_field("host-with-crlf", ("host", "b.test\r\nx: y"))

with_field("connection", ("connection", "close"))
with_field("connection-keep-alive", ("connection", "keep-alive"))
with_field("connection-names-a-field", ("connection", "x-hop"), ("x-hop", "1"))
with_field("keep-alive", ("keep-alive", "timeout=5"))
with_field("proxy-connection", ("proxy-connection", "keep-alive"))
with_field("transfer-encoding-chunked", ("transfer-encoding", "chunked"), method="POST", body=b"0\r\n\r\nGET /s")
with_field("transfer-encoding-identity", ("transfer-encoding", "identity"), method="POST", body=b"x")
with_field(
    "transfer-encoding-and-length",
    ("transfer-encoding", "chunked"),
    ("content-length", "3"),
    method="POST",
    body=b"abc",
)
with_field("transfer-encoding-underscored", ("transfer_encoding", "chunked"), method="POST", body=b"abc")
with_field("upgrade", ("upgrade", "websocket"))
with_field("upgrade-with-connection", ("connection", "upgrade"), ("upgrade", "websocket"))
with_field("http2-settings", ("http2-settings", "AAA"))
with_field("te-gzip", ("te", "gzip"))
with_field("te-trailers-and-more", ("te", "trailers, deflate"))
with_field("te-empty", ("te", ""))
with_field("te-in-capitals", ("te", "Trailers"))

with_field("name-in-capitals", ("X-Upper", "1"))
with_field("name-empty", ("", "1"))
with_field("name-with-space", ("x space", "1"))
with_field("name-with-colon", ("x:y", "1"))
with_field("name-with-crlf", ("x\r\ny", "1"))
with_field("name-with-lf", ("x\ny", "1"))
with_field("name-with-nul", ("x\x00y", "1"))
with_field("name-with-high-byte", ("x\xff", "1"))
with_field("name-with-delete", ("x\x7f", "1"))
with_field("name-with-brackets", ("x(y)", "1"))
with_field("name-is-a-field-line", ("x: y\r\nhost", "b.test"))
with_field("value-with-crlf", ("x-a", "a\r\nx-b: c"))
with_field("value-with-smuggled-request", ("x-a", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: b.test\r\n\r\n"))
with_field("value-with-lf", ("x-a", "a\nb"))
with_field("value-with-cr", ("x-a", "a\rb"))
with_field("value-with-nul", ("x-a", "a\x00b"))
with_field("value-with-bell", ("x-a", "a\x07b"))
with_field("value-with-delete", ("x-a", "a\x7fb"))
with_field("value-with-leading-space", ("x-a", " a"))
with_field("value-with-trailing-space", ("x-a", "a "))
with_field("value-with-tabs-around", ("x-a", "\ta\t"))
with_field("cookie-with-crlf", ("cookie", "a=1\r\nx: y"))
with_field("cookie-crumb-with-nul", ("cookie", "a=1"), ("cookie", "b=\x00"))

with_field("length-too-small", ("content-length", "3"), method="POST", body=b"abcde")
with_field("length-too-large", ("content-length", "9"), method="POST", body=b"abcde")
with_field("length-0-with-a-body", ("content-length", "0"), method="POST", body=b"abcde")
with_field("length-without-a-body", ("content-length", "5"), method="POST")
with_field("length-twice-equal", ("content-length", "5"), ("content-length", "5"), method="POST", body=b"abcde")
with_field("length-twice-differing", ("content-length", "5"), ("content-length", "3"), method="POST", body=b"abcde")
with_field("length-list", ("content-length", "5, 5"), method="POST", body=b"abcde")
with_field("length-negative", ("content-length", "-5"), method="POST", body=b"abcde")
with_field("length-with-plus", ("content-length", "+5"), method="POST", body=b"abcde")
with_field("length-with-letters", ("content-length", "5x"), method="POST", body=b"abcde")
with_field("length-with-zeros", ("content-length", "0005"), method="POST", body=b"abcde")
with_field("length-empty", ("content-length", ""), method="POST", body=b"abcde")
with_field("length-enormous", ("content-length", "99999999999999999999"), method="POST", body=b"abcde")
with_field("length-with-underscore", ("content-length", "0_5"), method="POST", body=b"abcde")
with_field("length-with-space", ("content-length", " 5"), method="POST", body=b"abcde")
with_field("length-on-get-without-body", ("content-length", "5"))


def trailed(name: str, *trailers: FieldLine, end: bool = True) -> None:
    """A request with a body and these trailers."""
    sent = headers(1, head("POST"), end=False) + data(1, b"body", end=False) + headers(1, trailers, end=end)
    message(f"trailers-{name}", sent)


trailed("fine", ("x-t", "1"), ("x-t", "2"))
trailed("empty")
trailed("with-pseudo", (":path", "/other"))
trailed("with-status", (":status", "200"))
trailed("with-capitals", ("X-T", "1"))
trailed("with-crlf", ("x-t", "a\r\nb"))
trailed("with-nul", ("x-t", "a\x00b"))
trailed("with-connection", ("connection", "close"))
trailed("with-transfer-encoding", ("transfer-encoding", "chunked"))
trailed("with-content-length", ("content-length", "4"))
trailed("with-host", ("host", "b.test"))
trailed("with-cookies", ("cookie", "a=1"), ("cookie", "b=2"))
trailed("with-empty-name", ("", "1"))
trailed("without-end", ("x-t", "1"), end=False)
message("trailers-without-data", headers(1, head("POST"), end=False) + headers(1, [("x-t", "1")]))
message(
    "trailers-and-length-too-large",
    headers(1, head("POST", fields=[("content-length", "9")]), end=False)
    + data(1, b"abc", end=False)
    + headers(1, [("x-t", "1")]),
)


def frames(name: str, *sent: bytes, listener: str = "http") -> None:
    """Frames that break the rules of the connection, and a good request after them."""
    table.frames(f"frames-{name}", *sent, AFTER, listener=listener, unordered=True, deadline=0.4)


HALF = headers(1, head("POST"), end=False)
frames("data-on-stream-0", frame(0, 1, 0, b"x"))
frames("data-on-an-idle-stream", data(1, b"x"))
frames("data-after-the-end", ask(1, "POST", body=b"a") + data(1, b"x"))
frames("data-padding-too-long", HALF + frame(0, 0x9, 1, b"\x05abc"))
frames("data-padding-of-all", HALF + frame(0, 0x9, 1, b"\x03abc"))
frames("data-too-large", HALF + frame(0, 0x1, 1, bytes(16385)))
frames("headers-on-stream-0", frame(1, 0x5, 0, block(head())))
frames("headers-on-an-even-stream", ask(2))
table.frames("frames-headers-with-a-lower-number", ask(5), AwaitStream(5), ask(3), AwaitGoaway(), deadline=0.4)
table.frames("frames-headers-on-a-finished-stream", ask(1), AwaitStream(1), ask(1), AwaitGoaway(), deadline=0.4)
table.frames("frames-data-on-a-finished-stream", ask(1), AwaitStream(1), data(1, b"x"), AFTER, deadline=0.4)
frames("headers-padding-too-long", frame(1, 0xD, 1, b"\xff" + block(head())))
frames("headers-cut-short-in-priority", frame(1, 0x25, 1, b"\x00\x00"))
frames("headers-that-depend-on-themselves", frame(1, 0x25, 1, b"\x00\x00\x00\x01\x10" + block(head())))
frames("continuation-without-headers", frame(9, 0x4, 1, block(head())))
frames("continuation-on-another-stream", frame(1, 0x1, 1, block(head())[:5]) + frame(9, 0x4, 5, block(head())[5:]))
frames("continuation-interrupted-by-ping", frame(1, 0x1, 1, block(head())[:5]) + ping())
frames("continuation-interrupted-by-unknown", frame(1, 0x1, 1, block(head())[:5]) + frame(0x99, 0, 1, b"x"))
frames("priority-on-stream-0", frame(2, 0, 0, bytes(5)))
frames("priority-cut-short", frame(2, 0, 1, bytes(4)))
frames("priority-on-itself", frame(2, 0, 1, b"\x00\x00\x00\x01\x10"))
frames("reset-on-stream-0", frame(3, 0, 0, bytes(4)))
frames("reset-on-an-idle-stream", reset(1))
frames("reset-cut-short", HALF + frame(3, 0, 1, bytes(3)))
frames("settings-on-a-stream", frame(4, 0, 1))
frames("settings-cut-short", frame(4, 0, 0, bytes(5)))
frames("settings-ack-with-payload", frame(4, 1, 0, bytes(6)))
frames("settings-window-too-large", settings({INITIAL_WINDOW_SIZE: 0x80000000}))
frames("settings-push-of-2", frame(4, 0, 0, b"\x00\x02\x00\x00\x00\x02"))
frames("settings-frame-size-too-small", frame(4, 0, 0, b"\x00\x05\x00\x00\x00\x01"))
frames("settings-connect-protocol-of-2", frame(4, 0, 0, b"\x00\x08\x00\x00\x00\x02"))
frames("settings-ack-unasked", frame(4, 1, 0) + frame(4, 1, 0))
frames("push-promise-from-the-client", frame(5, 0x4, 1, b"\x00\x00\x00\x02" + block(head())))
frames("ping-on-a-stream", frame(6, 0, 1, bytes(8)))
frames("ping-cut-short", frame(6, 0, 0, bytes(7)))
frames("ping-ack-unasked", frame(6, 1, 0, bytes(8)))
frames("goaway-on-a-stream", frame(7, 0, 1, bytes(8)))
frames("goaway-cut-short", frame(7, 0, 0, bytes(7)))
frames("goaway-with-a-code", goaway(0x2))
frames("window-of-0", frame(8, 0, 0, bytes(4)))
frames("window-of-0-on-a-stream", HALF + frame(8, 0, 1, bytes(4)))
frames("window-cut-short", frame(8, 0, 0, bytes(3)))
frames("window-on-an-idle-stream", window(1, 10))
frames("window-overflow", window(0, 0x7FFFFFFF))
frames("window-overflow-on-a-stream", HALF + window(1, 0x7FFFFFFF))
frames("window-after-the-end", ask(1), window(1, 10))
frames("unknown-type-on-stream-0", frame(0xBB, 0, 0, b"x" * 100))
frames("unknown-type-on-an-idle-stream", frame(0xBB, 0, 7, b"x" * 100))
frames("frame-too-large", frame(0xBB, 0, 0, bytes(16385)))
frames("reserved-bit-of-the-stream", frame(6, 0, 0x80000000, bytes(8)))
frames("unknown-flags", frame(1, 0xD5 & ~0x08, 1, block(head())))
frames("hpack-index-of-nothing", frame(1, 0x5, 1, b"\xff\xff\x7f"))
frames("hpack-index-0", frame(1, 0x5, 1, b"\x80"))
frames("hpack-integer-overflow", frame(1, 0x5, 1, b"\xff" + b"\xff" * 10 + b"\x01"))
frames("hpack-string-cut-short", frame(1, 0x5, 1, b"\x00\x0aabc"))
frames("hpack-huffman-padding-of-zeros", frame(1, 0x5, 1, block(head()) + b"\x00\x01x\x81\x18"))
frames("hpack-huffman-end-of-string", frame(1, 0x5, 1, block(head()) + b"\x00\x01x\x84\xff\xff\xff\xff"))
frames("hpack-table-size-too-large", frame(1, 0x5, 1, b"\x3f\xff\xff\x03" + block(head())))
frames("hpack-table-size-in-the-middle", frame(1, 0x5, 1, block(head()) + b"\x20"))
frames("hpack-table-size-at-the-beginning", frame(1, 0x5, 1, b"\x20" + block(head())))
frames("preface-twice", PREFACE)
