"""A connection manager with nothing but its defaults: how HTTP/1.1 messages pass."""

from __future__ import annotations

from tests.differential.blocks import Message, Site, bootstrap, listener, manager
from tests.differential.case import (
    Abort,
    AwaitBytes,
    AwaitResponses,
    AwaitUpstream,
    Close,
    Delay,
    Finish,
    Pause,
    ReadBody,
    Reply,
    Reset,
    Send,
    Table,
    reply,
    request,
)


def plain(site: Site) -> Message:
    return bootstrap(site, [listener(site, "http", manager(site))])


BOOTSTRAPS = {"plain": plain}

table = Table("plain", "plain")
CASES = table.cases
get = table.get
add = table.add

get("get")
get("query", "/path?query=1&other=%20")
get("fragment", "/path#fragment")
get("post", method="POST", body=b"hello")
get("put-empty", method="PUT", headers=[("Content-Length", "0")])
get("delete", method="DELETE")
get("options", method="OPTIONS")
get("options-asterisk", "*", method="OPTIONS")
get("patch", method="PATCH", body=b"x" * 100)
get("unknown-method", method="PURGE")
get("lower-case-method", method="get")
get("head", method="HEAD")
get("head-with-status-404", method="HEAD", upstream=reply(404))
get("trace", method="TRACE")
get("body-on-get", body=b"body")
get("large-body", method="POST", body=b"0123456789" * 20000)
get("large-response", upstream=reply(body=b"0123456789" * 50000))
get("empty-response", upstream=reply(body=b""))
get("several-values-of-one-header", headers=[("X-Many", "1"), ("x-many", "2"), ("X-Many", "")])
get("cookies", headers=[("Cookie", "a=1"), ("Cookie", "b=2")])
get("non-ascii-header", headers=[("X-Text", "caf\xe9")])
get("tabs-in-header", headers=[("X-Text", "a\tb")])
get("spaces-around-value", headers=[("X-Text", "   padded   ")])
get("accept-encoding-passes", headers=[("Accept-Encoding", "gzip, br")])
get("user-agent-passes", headers=[("User-Agent", "curl/8")])
get("host-with-port", host="a.test:8080")
get("host-in-capitals", host="A.TEST")
get("host-ipv6", host="[::1]:80")
get("absolute-url", "http://b.test/path?x=1", host="a.test")
get("absolute-url-https", "https://b.test/path", host="a.test")
get("absolute-url-no-path", "http://b.test", host="a.test")
get("absolute-url-port", "http://b.test:99/path", host="a.test")
get("unicode-path", "/caf%C3%A9/%E2%82%AC")
get("double-slashes-stay", "/a//b///c")
get("dots-stay", "/a/./b/../c")
get("underscored-header", headers=[("x_under", "1")])
get("connection-close", headers=[("Connection", "close")])
get("connection-keep-alive", headers=[("Connection", "keep-alive")])
get("hop-by-hop-named", headers=[("Connection", "x-hop, keep-alive"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5")])
get("proxy-connection", headers=[("Proxy-Connection", "keep-alive")])
get("proxy-authorization", headers=[("Proxy-Authorization", "Basic eDp5")])
get("te-trailers", headers=[("TE", "trailers")])
get("te-other", headers=[("TE", "gzip, trailers")])
get("upgrade-not-enabled", headers=[("Connection", "upgrade"), ("Upgrade", "websocket")])
get("upgrade-h2c", headers=[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAA")])
get("internal-headers-from-outside", headers=[("x-envoy-internal", "true"), ("x-envoy-force-trace", "1")])
get("x-forwarded-for-given", headers=[("X-Forwarded-For", "1.2.3.4")])
get("x-request-id-given", headers=[("X-Request-Id", "mine")])
get("x-forwarded-proto-given", headers=[("X-Forwarded-Proto", "https")])
get("x-forwarded-proto-bad", headers=[("X-Forwarded-Proto", "gopher")])
get(
    "date-and-server-replaced", upstream=reply(headers=[("Server", "nginx"), ("Date", "Mon, 01 Jan 2024 00:00:00 GMT")])
)
get(
    "response-hop-by-hop",
    upstream=reply(headers=[("Connection", "x-hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5")]),
)
get("response-connection-close", upstream=reply(headers=[("Connection", "close")]))
get("response-proxy-headers", upstream=reply(headers=[("Proxy-Authenticate", "Basic"), ("Proxy-Connection", "close")]))
get("response-many-values", upstream=reply(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Empty", "")]))
get("response-reason", upstream=reply(200, reason="Quite Fine"))
get("response-unknown-status", upstream=reply(299, reason="Odd"))
get("response-599", upstream=reply(599))
get("response-chunked", upstream=reply(chunks=[b"one", b"two", b"three"]))
get("response-trailers", upstream=reply(chunks=[b"one"], trailers=[("X-Sum", "5")]))
get("response-until-close", upstream=reply(body=b"until the end", length=False, then=[Close()]))
get("response-http-1-0", upstream=reply(version="HTTP/1.0", then=[Close()]))
get("response-http-1-0-until-close", upstream=reply(version="HTTP/1.0", length=False, then=[Close()]))
get("response-204", upstream=reply(204, body=b"", length=False))
get("response-304", upstream=reply(304, body=b"", length=False, headers=[("ETag", '"x"')]))
get(
    "response-304-with-length", upstream=Reply((ReadBody(), b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n"))
)
get("response-204-with-length-0", upstream=reply(204, body=b""))
get("response-205", upstream=reply(205, body=b""))
get(
    "head-chunked",
    method="HEAD",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")),
)
get("interim-102", upstream=Reply((ReadBody(), b"HTTP/1.1 102 Processing\r\n\r\n", *reply().steps)))
get("interim-103", upstream=Reply((ReadBody(), b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", *reply().steps)))
get("interim-100-unasked", upstream=Reply((ReadBody(), b"HTTP/1.1 100 Continue\r\n\r\n", *reply().steps)))
get("slow-response", upstream=reply(delay=0.05))
get(
    "response-in-pieces",
    upstream=Reply(
        (ReadBody(), b"HTTP/1.1 200 OK\r\nconte", Delay(0.01), b"nt-length: 4\r\n\r\nab", Delay(0.01), b"cd")
    ),
)

add(
    "request-in-pieces",
    Send(b"GET / HT"),
    Pause(0.01),
    Send(b"TP/1.1\r\nHost: a.t"),
    Pause(0.01),
    Send(b"est\r\n\r\n"),
    methods=["GET"],
)
add("leading-empty-line", b"\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", methods=["GET"])
add("keep-alive-of-two", request("GET", "/1"), AwaitResponses(1), request("GET", "/2"))
add(
    "pipelined-three",
    request("GET", "/1") + request("POST", "/2", body=b"two") + request("GET", "/3"),
    methods=["GET", "POST", "GET"],
)
add(
    "pipelined-behind-a-slow-one",
    request("GET", "/1") + request("GET", "/2"),
    methods=["GET", "GET"],
    upstream=[reply(delay=0.05, body=b"first"), reply(body=b"second")],
)
add("pipelined-head-then-get", request("HEAD", "/1") + request("GET", "/2"), methods=["HEAD", "GET"])
add("pipelined-after-close", request("GET", "/1", [("Connection", "close")]) + request("GET", "/2"), methods=["GET"])
add("chunked-request", request("POST", "/", chunks=[b"one", b"twotwo"]))
add(
    "chunked-request-with-trailers",
    request("POST", "/", [("Trailer", "x-sum")], chunks=[b"one"], trailers=[("X-Sum", "1")]),
)
add(
    "chunked-request-with-extension",
    b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\none\r\n0\r\n\r\n",
)
add(
    "chunked-request-capital-hex",
    b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
)
add("chunked-empty", request("POST", "/", chunks=[]))
add("chunked-on-get", request("GET", "/", chunks=[b"x"]))
add(
    "expect-continue",
    Send(b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
    AwaitBytes(b"100 Continue\r\n"),
    Send(b"hello"),
    methods=["POST"],
)
add(
    "expect-continue-with-body-at-once",
    Send(b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
    methods=["POST"],
)
add(
    "expect-other",
    Send(b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: tea\r\nContent-Length: 5\r\n\r\nhello"),
    methods=["POST"],
)
add("http-1-0-refused", b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
add("client-half-close", request("GET", "/"), AwaitUpstream(1), Finish(), upstream=reply(delay=0.3))
add(
    "client-goes-away",
    request("GET", "/"),
    AwaitUpstream(1),
    Abort(),
    methods={},
    upstream=Reply((ReadBody(), Delay(2.0))),
)
add(
    "client-goes-away-within-body",
    Send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50\r\n\r\nhello"),
    AwaitUpstream(1),
    Abort(),
    methods={},
)
add(
    "early-response",
    Send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50\r\n\r\nhello"),
    methods=["POST"],
    upstream=reply(413, early=True),
)
add(
    "early-response-and-close",
    Send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50\r\n\r\nhello"),
    methods=["POST"],
    upstream=reply(413, early=True, headers=[("Connection", "close")], then=[Close()]),
)
get("upstream-closes", upstream=Reply((ReadBody(), Close())))
get("upstream-resets", upstream=Reply((ReadBody(), Reset())))
get("upstream-closes-post", method="POST", body=b"x", upstream=Reply((ReadBody(), Close())))
get("upstream-closes-within-head", upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-le", Close())))
get(
    "upstream-closes-within-body",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Close())),
)
get(
    "upstream-closes-within-chunks",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc", Close())),
)
get(
    "upstream-resets-within-body",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Delay(0.02), Reset())),
)
