"""Hostile clients: what is not HTTP, what is two things at once, and what is too much. Runs on the plain bootstrap."""

from __future__ import annotations

from collections.abc import Callable

from tests.differential.blocks import Message, Site
from tests.differential.case import AwaitResponses, Finish, Send, Table, request

BOOTSTRAPS: dict[str, Callable[[Site], Message]] = {}

table = Table("malformed", "plain")
CASES = table.cases


def head(
    name: str, line: bytes, *headers: bytes, method: str = "GET", body: bytes = b"", host: bytes = b"Host: a.test"
) -> None:
    """A case of one request from its lines; after some come bytes that a proxy out of step would take for a request."""
    lines = [line, *([host] if host else []), *headers]
    table.add(name, Send(b"\r\n".join(lines) + b"\r\n\r\n" + body), methods=[method], partial=not body)


GET = b"GET / HTTP/1.1"
POST = b"POST / HTTP/1.1"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"

head("not-http", b"hello")
head("no-version", b"GET /")
head("http-0-9", b"GET / HTTP/0.9")
head("http-1-2", b"GET / HTTP/1.2")
head("http-2-0", b"GET / HTTP/2.0")
head("http-3-9", b"GET / HTTP/3.9")
head("version-lower-case", b"GET / http/1.1")
head("version-without-minor", b"GET / HTTP/1")
head("version-with-letters", b"GET / HTTP/1.x")
head("version-long", b"GET / HTTP/1.10")
head("two-spaces-before-target", b"GET  / HTTP/1.1")
head("two-spaces-after-target", b"GET /  HTTP/1.1")
head("space-at-end-of-line", b"GET / HTTP/1.1 ")
head("space-in-target", b"GET /a b HTTP/1.1")
head("tab-between", b"GET\t/\tHTTP/1.1")
head("leading-space", b" GET / HTTP/1.1")
head("leading-garbage", b"\x00GET / HTTP/1.1")
head("empty-target", b"GET HTTP/1.1")
head("target-without-slash", b"GET path HTTP/1.1")
head("target-question-mark", b"GET ?a=b HTTP/1.1")
head("target-asterisk-on-get", b"GET * HTTP/1.1")
head("target-with-nul", b"GET /a\x00b HTTP/1.1")
head("target-with-delete", b"GET /a\x7fb HTTP/1.1")
head("target-with-high-byte", b"GET /a\xffb HTTP/1.1")
head("target-with-bell", b"GET /a\x07b HTTP/1.1")
head("target-with-quote", b'GET /a"b HTTP/1.1')
head("target-with-braces", b"GET /{a}|b^c`d HTTP/1.1")
head("target-with-backslash", b"GET /a\\b HTTP/1.1")
head("target-bad-escape", b"GET /%zz HTTP/1.1")
head("target-escaped-nul", b"GET /%00 HTTP/1.1")
head("absolute-url-bad-port", b"GET http://a.test:abc/ HTTP/1.1")
head("absolute-url-no-host", b"GET http:///x HTTP/1.1")
head("absolute-url-other-scheme", b"GET ftp://a.test/x HTTP/1.1")
head("absolute-url-userinfo", b"GET http://user:pw@a.test/x HTTP/1.1")
head("method-bad-character", b"GE(T / HTTP/1.1")
head("method-with-colon", b"GET: / HTTP/1.1")
head("method-empty", b" / HTTP/1.1")
head("method-very-long", b"A" * 300 + b" / HTTP/1.1")
head("tls-hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03")
for name, beginning in {
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "nul": b"\x00",
    "space": b" GET",
    "after-empty-line": b"\r\n\x01",
}.items():
    table.add(f"begins-with-{name}", Send(beginning), AwaitResponses(1), methods=["GET"])
head("connect-not-enabled", b"CONNECT a.test:443 HTTP/1.1", method="CONNECT")
head("connect-with-path", b"CONNECT /path HTTP/1.1", method="CONNECT")
head("connect-without-port", b"CONNECT a.test HTTP/1.1", method="CONNECT")

head("no-host", GET, host=b"")
head("empty-host", GET, host=b"Host:")
head("two-hosts", GET, b"Host: b.test")
head("two-equal-hosts", GET, b"Host: a.test")
head("host-with-space", GET, host=b"Host: a test")
head("host-with-slash", GET, host=b"Host: a.test/x")
head("host-with-at", GET, host=b"Host: user@a.test")
head("host-with-bad-port", GET, host=b"Host: a.test:x")
head("host-with-comma", GET, host=b"Host: a.test, b.test")
head("host-with-underscore", GET, host=b"Host: a_b.test")

head("header-without-colon", GET, b"X-Broken")
head("header-empty-name", GET, b": value")
head("header-space-before-colon", GET, b"X-Space : 1")
head("header-tab-before-colon", GET, b"X-Tab\t: 1")
head("header-leading-space-first", b"GET / HTTP/1.1", host=b" Host: a.test")
head("header-space-in-name", GET, b"X Space: 1")
head("header-bad-name-character", GET, b"X@Y: 1")
head("header-name-in-brackets", GET, b"X(Y): 1")
head("header-high-byte-in-name", GET, b"X-\xff: 1")
head("header-nul-in-value", GET, b"X-Nul: a\x00b")
head("header-nul-in-name", GET, b"X\x00Nul: ab")
head("header-control-in-value", GET, b"X-Bell: a\x07b")
head("header-delete-in-value", GET, b"X-Del: a\x7fb")
head("header-bare-cr-in-value", GET, b"X-Cr: a\rb")
head("header-bare-cr-at-end", GET, b"X-Cr: a\r")
head("header-obs-fold-space", GET, b"X-Fold: a\r\n b")
head("header-obs-fold-tab", GET, b"X-Fold: a\r\n\tb")
head("header-obs-fold-empty", GET, b"X-Fold:\r\n b")
head("header-colon-first", GET, b":path: /x")
head("header-pseudo-authority", GET, b":authority: b.test")
table.add("bare-lf-everywhere", Send(b"GET / HTTP/1.1\nHost: a.test\n\n"), methods=["GET"])
table.add("bare-lf-after-request-line", Send(b"GET / HTTP/1.1\nHost: a.test\r\n\r\n"), methods=["GET"])
table.add("bare-lf-after-header", Send(b"GET / HTTP/1.1\r\nHost: a.test\nX-Y: 1\r\n\r\n"), methods=["GET"])
table.add("bare-lf-at-end", Send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\n"), methods=["GET"])
table.add("bare-cr-after-request-line", Send(b"GET / HTTP/1.1\rHost: a.test\r\n\r\n"), methods=["GET"])
table.add("cr-cr-lf", Send(b"GET / HTTP/1.1\r\r\nHost: a.test\r\n\r\n"), methods=["GET"])
table.add("many-empty-lines-first", Send(b"\r\n" * 20 + request("GET", "/")), methods=["GET"])
table.add("half-a-head-and-end", Send(b"GET / HTTP/1.1\r\nHo"), Finish(), methods=["GET"])
table.add("nothing-and-end", Send(b""), Finish(), methods=["GET"])
table.add(
    "half-a-body-and-end",
    Send(POST + b"\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nabc"),
    Finish(),
    methods=["POST"],
    partial=False,
)

head(
    "length-and-chunked",
    POST,
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    method="POST",
    body=b"0\r\n\r\n" + SMUGGLED,
)
head(
    "chunked-and-length",
    POST,
    b"Transfer-Encoding: chunked",
    b"Content-Length: 5",
    method="POST",
    body=b"0\r\n\r\n" + SMUGGLED,
)
head("two-lengths", POST, b"Content-Length: 3", b"Content-Length: 5", method="POST", body=b"abcde")
head("two-equal-lengths", POST, b"Content-Length: 3", b"Content-Length: 3", method="POST", body=b"abc")
head("length-list", POST, b"Content-Length: 3, 3", method="POST", body=b"abc")
head("length-list-differing", POST, b"Content-Length: 3, 5", method="POST", body=b"abcde")
head("length-negative", POST, b"Content-Length: -1", method="POST", body=SMUGGLED)
head("length-with-plus", POST, b"Content-Length: +3", method="POST", body=b"abc")
head("length-with-letters", POST, b"Content-Length: 3x", method="POST", body=b"abc")
head("length-hexadecimal", POST, b"Content-Length: 0x3", method="POST", body=b"abc")
head("length-with-underscore", POST, b"Content-Length: 1_0", method="POST", body=b"0123456789")
head("length-empty", POST, b"Content-Length:", method="POST")
head("length-with-inner-space", POST, b"Content-Length: 1 0", method="POST", body=b"0123456789")
head("length-with-vertical-tab", POST, b"Content-Length: \x0b3", method="POST", body=b"abc")
head("length-enormous", POST, b"Content-Length: 99999999999999999999", method="POST", body=b"abc")
head("length-with-zeros", POST, b"Content-Length: 0003", method="POST", body=b"abc")
head("encoding-unknown", POST, b"Transfer-Encoding: zip", method="POST", body=SMUGGLED)
head("encoding-identity", POST, b"Transfer-Encoding: identity", method="POST", body=SMUGGLED)
head("encoding-gzip-chunked", POST, b"Transfer-Encoding: gzip, chunked", method="POST", body=b"0\r\n\r\n")
head("encoding-chunked-gzip", POST, b"Transfer-Encoding: chunked, gzip", method="POST", body=b"0\r\n\r\n")
head("encoding-chunked-twice", POST, b"Transfer-Encoding: chunked, chunked", method="POST", body=b"0\r\n\r\n")
head(
    "encoding-on-two-lines",
    POST,
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked",
    method="POST",
    body=b"0\r\n\r\n",
)
head("encoding-quoted", POST, b'Transfer-Encoding: "chunked"', method="POST", body=b"0\r\n\r\n")
head("encoding-with-vertical-tab", POST, b"Transfer-Encoding: \x0bchunked", method="POST", body=b"0\r\n\r\n")
head("encoding-space-before-colon", POST, b"Transfer-Encoding : chunked", method="POST", body=b"0\r\n\r\n")
head("encoding-empty", POST, b"Transfer-Encoding:", method="POST", body=SMUGGLED)
head("encoding-with-parameter", POST, b"Transfer-Encoding: chunked;a=b", method="POST", body=b"0\r\n\r\n")
head("encoding-underscored", POST, b"Transfer_Encoding: chunked", b"Content-Length: 3", method="POST", body=b"abc")
table.add(
    "encoding-on-http-1-0",
    Send(b"POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    methods=["POST"],
)


def chunks(name: str, body: bytes) -> None:
    """A case of a chunked body, as written."""
    head(f"chunk-{name}", POST, b"Transfer-Encoding: chunked", method="POST", body=body)


chunks("size-empty", b"\r\n\r\n")
chunks("size-not-hexadecimal", b"xyz\r\nabc\r\n0\r\n\r\n")
chunks("size-negative", b"-3\r\nabc\r\n0\r\n\r\n")
chunks("size-with-plus", b"+3\r\nabc\r\n0\r\n\r\n")
chunks("size-with-prefix", b"0x3\r\nabc\r\n0\r\n\r\n")
chunks("size-with-underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n")
chunks("size-with-leading-space", b" 3\r\nabc\r\n0\r\n\r\n")
chunks("size-with-trailing-space", b"3 \r\nabc\r\n0\r\n\r\n")
chunks("size-with-zeros", b"0000003\r\nabc\r\n0\r\n\r\n")
chunks("size-overflow", b"10000000000000000\r\nabc\r\n0\r\n\r\n")
table.add(
    "chunk-size-largest",
    Send(POST + b"\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"),
    deadline=0.3,
)
chunks("too-long-for-its-size", b"3\r\nabcd\r\n0\r\n\r\n")
chunks("without-crlf-after-data", b"3\r\nabc0\r\n\r\n")
chunks("bare-lf-after-size", b"3\nabc\r\n0\r\n\r\n")
chunks("bare-lf-after-data", b"3\r\nabc\n0\r\n\r\n")
chunks("bare-lf-at-end", b"3\r\nabc\r\n0\r\n\n")
chunks("bare-cr-after-size", b"3\rabc\r\n0\r\n\r\n")
chunks("extension-quoted", b'3;a="b;c"\r\nabc\r\n0\r\n\r\n')
chunks("extension-with-bare-lf", b"3;a\nb\r\nabc\r\n0\r\n\r\n")
chunks("extension-with-bare-cr", b"3;a\rb\r\nabc\r\n0\r\n\r\n")
chunks("extension-with-nul", b"3;a\x00b\r\nabc\r\n0\r\n\r\n")
chunks("extension-empty", b"3;\r\nabc\r\n0\r\n\r\n")
chunks("trailer-without-colon", b"0\r\nbroken\r\n\r\n")
chunks("trailer-with-nul", b"0\r\nX: a\x00\r\n\r\n")
chunks("trailer-content-length", b"0\r\nContent-Length: 5\r\n\r\n")
chunks("trailer-host", b"0\r\nHost: b.test\r\n\r\n")
table.add(
    "chunk-followed-by-garbage",
    Send(request("POST", "/", chunks=[b"abc"]) + b"GARBAGE\r\n\r\n"),
    methods=["POST", "GET"],
)

table.add("length-then-smuggled", Send(request("POST", "/", body=b"abc") + b"GARBAGE\r\n\r\n"), methods=["POST", "GET"])
head("header-of-70-kb", GET, b"X-Large: " + b"a" * 70_000)
head("header-of-59-kb", GET, b"X-Large: " + b"a" * 59_000)
head("header-name-of-70-kb", GET, b"X" * 70_000 + b": 1")
head("headers-of-70-kb-together", GET, *(b"X-%d: " % number + b"a" * 1000 for number in range(70)))
head("headers-101", GET, *(b"X-%d: 1" % number for number in range(101)))
head("headers-100", GET, *(b"X-%d: 1" % number for number in range(95)))
head("headers-empty-thousand", GET, *(b"X:" for _ in range(1000)))
head("target-of-70-kb", b"GET /" + b"a" * 70_000 + b" HTTP/1.1")
head("target-of-50-kb", b"GET /" + b"a" * 50_000 + b" HTTP/1.1")
chunks("trailer-of-70-kb", b"0\r\nX-Large: " + b"a" * 70_000 + b"\r\n\r\n")
chunks("trailers-101", b"0\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(101)) + b"\r\n")
