"""HTTP/2 from the client, to upstreams of HTTP/2 and of HTTP/1.1: how well-formed requests pass."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route
from tests.differential.case import Abort, AwaitUpstream, Delay, Finish, Reply, Send, reply, request
from tests.differential.http2_case import Http2Table, http2_cluster
from tests.differential.http2_frames import (
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    PREFACE,
    FieldLine,
    data,
    frame,
    goaway,
    head,
    headers,
    opening,
    ping,
    reset,
    settings,
    window,
)
from tests.differential.http2_frames import request as ask
from tests.differential.http2_steps import (
    AwaitData,
    AwaitGoaway,
    AwaitHead,
    AwaitPong,
    AwaitSettled,
    AwaitStream,
)
from tests.differential.http2_upstream import answer

LENIENT = {"override_stream_error_on_invalid_http_message": True}


def http2(site: Site) -> Message:
    """``http`` leads to HTTP/2, ``down`` to HTTP/1.1; the ``lenient`` ones end a stream for what is malformed in it."""
    two = [route("/", "two")]
    quick: dict[str, Any] = {"delayed_close_timeout": "0.02s"}
    lenient: dict[str, Any] = {"http2_protocol_options": LENIENT}
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, two, **quick)),
            listener(site, "down", manager(site, **quick)),
            listener(site, "lenient", manager(site, two, **lenient, **quick)),
            listener(site, "lenient-down", manager(site, **lenient, **quick)),
            listener(site, "only-http2", manager(site, two, codec_type="HTTP2", **quick)),
            listener(site, "only-http1", manager(site, two, codec_type="HTTP1", **quick)),
        ],
        [http2_cluster(site, "two")],
    )


BOOTSTRAPS = {"http2": http2}
WAYS = ("http", "down")

table = Http2Table("http2-plain", "http2")
CASES = table.cases


def both(name: str, path: str | None = "/", fields: list[FieldLine] | None = None, **options: Any) -> None:
    """A request that goes to an upstream of HTTP/2, and one to an upstream of HTTP/1.1."""
    for way in WAYS:
        table.ask(f"{name}-{way}", path, fields or [], listener=way, **options)


def answered(name: str, status: int = 200, *, method: str = "GET", **options: Any) -> None:
    """A request and its response in either version."""
    table.ask(f"{name}-http", method=method, upstream=answer(status, **options))
    table.ask(f"{name}-down", method=method, listener="down", upstream=reply(status, **options))


both("get")
both("query", "/path?query=1&other=%20")
both("fragment", "/path#fragment")
both("post", method="POST", body=b"hello")
both("post-with-length", fields=[("content-length", "5")], method="POST", body=b"hello")
both("post-empty", method="POST")
both("post-empty-data", method="POST", body=b"")
both("put-length-0", fields=[("content-length", "0")], method="PUT")
both("put-length-0-empty-data", fields=[("content-length", "0")], method="PUT", body=b"")
both("delete", method="DELETE")
both("delete-with-body", method="DELETE", body=b"gone")
both("options", method="OPTIONS")
both("options-asterisk", "*", method="OPTIONS")
both("patch", method="PATCH", body=b"x" * 100)
both("unknown-method", method="PURGE")
both("lower-case-method", method="get")
both("trace", method="TRACE")
both("body-on-get", body=b"body")
both("large-body", method="POST", body=b"0123456789" * 6000)
both("several-values-of-one-field", fields=[("x-many", "1"), ("x-other", "-"), ("x-many", "2"), ("x-many", "")])
both("cookie", fields=[("cookie", "a=1; b=2")])
both(
    "cookie-crumbs",
    fields=[("cookie", "a=1"), ("cookie", "b=2"), ("x-between", "1"), ("cookie", "c=3")],
    ignore=("upstream[0].order",),
)
both("cookie-empty-crumb", fields=[("cookie", "a=1"), ("cookie", "")])
both("non-ascii-field", fields=[("x-text", "caf\xe9")])
both("tabs-in-field", fields=[("x-text", "a\tb")])
both("empty-value", fields=[("x-empty", "")])
both("accept-encoding-passes", fields=[("accept-encoding", "gzip, br")])
both("user-agent-passes", fields=[("user-agent", "curl/8")])
both("authority-with-port", authority="a.test:8080")
both("authority-in-capitals", authority="A.TEST")
both("authority-ipv6", authority="[::1]:80")
both("scheme-https", scheme="https")
both("scheme-other", scheme="ftp")
both("scheme-in-capitals", scheme="HTTP")
both("unicode-path", "/caf%C3%A9/%E2%82%AC")
both("double-slashes-stay", "/a//b///c")
both("dots-stay", "/a/./b/../c")
both("underscored-field", fields=[("x_under", "1")])
both("te-trailers", fields=[("te", "trailers")])
both("proxy-authorization", fields=[("proxy-authorization", "Basic eDp5")])
both("expect-continue", fields=[("expect", "100-continue")], method="POST", body=b"hello")
both("expect-other", fields=[("expect", "something")], method="POST", body=b"hello")
both("priority-field", fields=[("priority", "u=1, i")])
both("x-request-id-given", fields=[("x-request-id", "mine")])
both("x-forwarded-for-given", fields=[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")])
both("x-envoy-fields", fields=[("x-envoy-internal", "true"), ("x-envoy-upstream-rq-timeout-ms", "9000")])
both("via-and-forwarded", fields=[("via", "1.1 x"), ("forwarded", "for=1.1.1.1")])
both("upgrade-insecure", fields=[("upgrade-insecure-requests", "1")])
both("range", fields=[("range", "bytes=0-1"), ("if-match", '"x"')])
both("never-indexed", fields=[("authorization", "Bearer x")])
both("referer-and-origin", fields=[("referer", "http://r.test/"), ("origin", "http://o.test")])

answered("head", method="HEAD")
answered("head-404", 404, method="HEAD")
for _status in (201, 204, 205, 206, 301, 304, 404, 418, 429, 500, 503, 599):
    answered(f"status-{_status}", _status, body=b"")
for _status in (204, 205, 304):
    answered(f"head-{_status}", _status, body=b"", method="HEAD")
answered("empty-response", body=b"")
answered("response-with-length", length=True)
answered("large-response", body=b"0123456789" * 5000)
table.ask("head-with-length", method="HEAD", upstream=answer(fields=[("content-length", "5")]))
table.ask("304-with-length", upstream=answer(304, b"", [("content-length", "5")]))
table.ask("304-with-length-down", upstream=reply(304, b"", [("content-length", "5")], length=False), listener="down")
table.ask("response-chunked-down", upstream=reply(chunks=[b"one", b"two"]), listener="down")
table.ask(
    "response-fields",
    upstream=answer(
        fields=[("set-cookie", "a=1"), ("x-b", "2"), ("set-cookie", "c=3"), ("server", "mine"), ("x-b", "")]
    ),
)
table.ask(
    "response-fields-down",
    upstream=reply(
        headers=[("Set-Cookie", "a=1"), ("X-B", "2"), ("set-cookie", "c=3"), ("Server", "mine"), ("x-b", "")]
    ),
    listener="down",
)
table.ask(
    "response-connection-fields-down",
    upstream=reply(headers=[("Connection", "x-hop, keep-alive"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5")]),
    listener="down",
)
table.ask("response-connection-close-down", upstream=reply(headers=[("Connection", "close")]), listener="down")
table.ask("response-http-1-0-down", upstream=reply(version="HTTP/1.0"), listener="down")
table.ask("response-upgrade-field-down", upstream=reply(headers=[("Upgrade", "h2c")]), listener="down")
table.ask("response-proxy-connection-down", upstream=reply(headers=[("Proxy-Connection", "close")]), listener="down")
for _way in WAYS:
    table.frames(
        f"several-in-turn-{_way}",
        *(ask(1), AwaitStream(1), ask(3, path="/3"), AwaitStream(3), ask(5, path="/5")),
        listener=_way,
        connections=True,
    )
    table.frames(
        f"several-at-once-{_way}",
        b"".join(ask(number, path=f"/{number}") for number in range(1, 20, 2)),
        listener=_way,
        unordered=True,
    )
    table.frames(f"stream-numbers-with-gaps-{_way}", ask(1), AwaitStream(1), ask(101, path="/101"), listener=_way)
    table.frames(
        f"body-in-pieces-{_way}",
        headers(1, head("POST"), end=False) + data(1, b"one", end=False),
        AwaitUpstream(1),
        data(1, b"two", end=False) + data(1, b"three"),
        listener=_way,
    )
    table.frames(f"padded-{_way}", headers(1, head("POST"), end=False) + data(1, b"hello", padding=100), listener=_way)
    table.frames(
        f"end-in-an-empty-frame-{_way}",
        headers(1, head("POST"), end=False) + data(1, b"hello", end=False) + data(1),
        listener=_way,
    )
    table.frames(
        f"head-in-continuations-{_way}", headers(1, head(fields=[("x-long", "a" * 99)]), pieces=4), listener=_way
    )
    table.frames(
        f"head-byte-by-byte-{_way}",
        Send(PREFACE),  # cut up, it may look like HTTP/1.1 to Envoy
        *(Send(bytes([one])) for one in (opening() + ask(1)).removeprefix(PREFACE)),
        listener=_way,
        streams={0: (1,)},
    )
    table.frames(f"frame-of-an-unknown-type-{_way}", frame(0x99, 0xFF, 0, b"what") + ask(1), listener=_way)
    for _name, _end in (("ends", Finish()), ("aborts", Abort())):
        table.frames(
            f"client-{_name}-meanwhile-{_way}",
            ask(1),
            AwaitUpstream(1),
            _end,
            listener=_way,
            upstream=Reply((Delay(1.0),)),
        )
        table.frames(
            f"client-{_name}-in-its-body-{_way}",
            headers(1, head("POST"), end=False) + data(1, b"some", end=False),
            AwaitUpstream(1),
            _end,
            listener=_way,
            upstream_requests=1,
        )
    table.frames(
        f"client-says-goaway-{_way}",
        ask(1) + goaway(),
        AwaitStream(1),
        listener=_way,
    )

table.frames("ping", ping() + ask(1), AwaitPong(1))
table.frames("two-pings", ping() + ping(b"12345678"), AwaitPong(2), ask(1))
table.frames("settings-acknowledged", b"", AwaitSettled(), ask(1), streams={0: (1,)})
table.frames("settings-again", b"", AwaitSettled(), settings({INITIAL_WINDOW_SIZE: 100}) + ask(1), streams={0: (1,)})
table.frames("settings-unknown", opening({0x99: 7}) + ask(1))
table.frames("settings-no-streams-for-the-proxy", opening({MAX_CONCURRENT_STREAMS: 0}) + ask(1))
table.frames("priority-frame", frame(2, 0, 1, bytes(4) + b"\x10") + ask(1))
table.frames("priority-in-headers", frame(1, 0x25, 1, bytes(4) + b"\x10" + headers(1, head())[9:]))
table.frames("window-update-of-the-connection", window(0, 1000) + ask(1))
table.frames("reset-before-the-end", headers(1, head("POST"), end=False), AwaitUpstream(1), reset(1), streams={0: ()})

table.frames("only-http2", ask(1), listener="only-http2")
table.add("http1-where-only-http2-is", request("GET", "/"), listener="only-http2")
table.add("http1-where-both-are", request("GET", "/"))
table.add("http2-where-only-http1-is", opening() + ask(1), methods=["GET"], listener="only-http1")
table.add("half-a-preface", Send(PREFACE[:10]), Finish(), methods=[])
table.add("preface-and-nothing", Send(PREFACE), Finish(), methods={}, streams={0: ()})
table.frames(
    "preface-then-http1", PREFACE + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", AwaitGoaway(), streams={0: ()}, deadline=0.5
)
table.frames("preface-broken", PREFACE[:-3] + b"XX\r\n" + settings(), AwaitGoaway(), streams={0: ()}, deadline=0.5)
table.frames("preface-without-settings", PREFACE + ask(1), deadline=0.5)
table.frames(
    "two-connections",
    Send(opening() + ask(1, path="/first")),
    AwaitStream(1),
    Send(opening() + ask(1, path="/second"), 1),
    connections=True,
)
table.frames(
    "windows-of-nothing-then-opened",
    opening({INITIAL_WINDOW_SIZE: 0}) + ask(1),
    AwaitHead(1),
    window(1, 3),
    AwaitData(1, 3),
    window(1, 100),
)
table.frames(
    "windows-opened-by-settings",
    opening({INITIAL_WINDOW_SIZE: 0}) + ask(1),
    AwaitHead(1),
    settings({INITIAL_WINDOW_SIZE: 100}),
)
