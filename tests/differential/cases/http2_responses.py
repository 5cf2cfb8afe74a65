"""What upstreams of HTTP/2 answer, well and badly, to clients of HTTP/2 and of HTTP/1.1."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, to
from tests.differential.case import (
    AwaitUpstream,
    Close,
    Delay,
    ReadBody,
    ReadUntil,
    Reply,
    Reset,
    UpstreamStep,
)
from tests.differential.http2_case import Http2Table, http2_cluster
from tests.differential.http2_frames import (
    CODES,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    FieldLine,
    block,
    data,
    head,
    headers,
    reset,
)
from tests.differential.http2_frames import request as ask
from tests.differential.http2_steps import (
    Announce,
    AwaitData,
    AwaitHead,
    AwaitStream,
    Body,
    GoAway,
    Grant,
    Head,
    RawFrame,
    ResetStream,
)
from tests.differential.http2_upstream import answer


def responses(site: Site) -> Message:
    """Routes by what they try again: nothing, or what the name of the path says."""
    routes = [
        route(f"/retry-{condition}", to("two", retry_policy={"retry_on": condition, "num_retries": 2}))
        for condition in ("refused-stream", "reset", "reset-before-request", "5xx", "connect-failure", "gateway-error")
    ]
    routes += [
        route("/lenient", "lenient"),
        route("/quick", to("two", timeout="0.1s")),
        route("/tried", to("two", timeout="2s", retry_policy={"retry_on": "5xx", "per_try_timeout": "0.1s"})),
        route("/idle", to("two", timeout="0s", idle_timeout="0.1s")),
        route("/duration", to("two", max_stream_duration={"max_stream_duration": "0.1s"})),
        route("/one", "one-stream"),
        route("/refused", "refused"),
        route("/", "two"),
    ]
    lenient = {"override_stream_error_on_invalid_http_message": True}
    clusters = [
        http2_cluster(site, "two"),
        http2_cluster(site, "lenient", options=lenient),
        http2_cluster(site, "one-stream", options={"max_concurrent_streams": 1}),
        http2_cluster(site, "refused", "refused"),
    ]
    return bootstrap(site, [listener(site, "http", manager(site, routes, delayed_close_timeout="0.02s"))], clusters)


BOOTSTRAPS = {"http2-responses": responses}

table = Http2Table("http2-responses", "http2-responses")
CASES = table.cases


def both(
    name: str, *steps: UpstreamStep, path: str = "/", body: bool = False, method: str = "GET", **options: Any
) -> None:
    """These steps as the answer to a client of HTTP/2, and to one of HTTP/1.1."""
    given = Reply(steps)
    method = "POST" if body else method
    content = b"hello" if body else None
    options = {"upstream": given, "deadline": 1.0, **options}
    table.ask(f"{name}-2", path, method=method, body=content, **options)
    table.get(f"{name}-1", path, method=method, body=content or b"", **options)


def good(*fields: FieldLine, status: str = "200", end: bool = False) -> Head:
    return Head([(":status", status), *fields], end=end)


END = Body(b"from {upstream}", end=True)

both("plain", ReadBody(), good(), END)
both("with-length", ReadBody(), good(("content-length", "6")), END)
both("head-only", good(end=True))
both("head-only-with-length-0", good(("content-length", "0"), end=True))
both("empty-data", good(), Body(b"", end=True))
both("to-head", good(("content-length", "6")), method="HEAD")
both("to-head-without-length", good(), method="HEAD")
both("status-204", good(status="204", end=True))
both("status-304", good(("content-length", "6"), status="304", end=True))
both("status-204-with-a-body", good(status="204"), END)
both("status-304-with-a-body", good(status="304"), END)
both("status-500", good(status="500"), END)
both("status-599", good(status="599"), END)
both("status-999", good(status="999"), END)
both("trailers", good(), Body(b"body"), Head([("x-t", "1"), ("x-t", "2"), ("x-u", "")], end=True))
both("trailers-only", good(), Head([("x-t", "1")], end=True))
both("trailers-with-length", good(("content-length", "4")), Body(b"body"), Head([("x-t", "1")], end=True))
both("trailers-empty", good(), Body(b"body"), Head([], end=True))
both("trailers-with-pseudo", good(), Body(b"body"), Head([(":status", "200")], end=True))
both("trailers-with-connection", good(), Body(b"body"), Head([("connection", "close")], end=True))
both("trailers-with-length-field", good(), Body(b"body"), Head([("content-length", "4")], end=True))
both("trailers-with-encoding", good(), Body(b"body"), Head([("transfer-encoding", "chunked")], end=True))
both("trailers-with-capitals", good(), Body(b"body"), Head([("X-T", "1")], end=True))
both("trailers-with-crlf", good(), Body(b"body"), Head([("x-t", "a\r\nb")], end=True))
both("trailers-without-end", good(), Body(b"body"), Head([("x-t", "1")]), Delay(2.0), deadline=0.3)
both("cookies", good(("set-cookie", "a=1"), ("x-b", "1"), ("set-cookie", "b=2")), END)
both("server-and-date", good(("server", "mine"), ("date", "Thu, 01 Jan 1970 00:00:00 GMT")), END)
both("via", good(("via", "2 x"), ("alt-svc", 'h3=":443"')), END)

both("continue", good(status="100"), good(), END)
both("continue-expected", good(status="100"), ReadBody(), good(), END, body=True)
both("processing", good(status="102"), good(), END)
both("early-hints", good(("link", "</x>"), status="103"), good(), END)
both("two-early-hints", good(("link", "</x>"), status="103"), good(("link", "</y>"), status="103"), good(), END)
both("interim-that-ends", good(status="103", end=True))
both("switching-protocols", good(status="101"), END)
both("interim-only", good(status="103"), ResetStream(8))

both("early", good(), END, body=True)
both("early-and-no-error", good(), END, ResetStream(0), body=True)
for _code, _name in CODES.items():
    both(f"reset-before-{_name}", ReadBody(), ResetStream(_code))
    both(f"reset-after-{_name}", ReadBody(), good(), Body(b"some"), Delay(0.03), ResetStream(_code))
both("reset-before-unknown", ReadBody(), ResetStream(0x99))
both("reset-at-once", ResetStream(2), body=True)
both("reset-with-length-known", ReadBody(), good(("content-length", "9")), Body(b"some"), Delay(0.03), ResetStream(2))
both("close-before", ReadBody(), Close())
both("close-after", ReadBody(), good(), Body(b"some"), Delay(0.03), Close())
both("connection-reset-before", ReadBody(), Reset())
both("connection-reset-after", ReadBody(), good(), Body(b"some"), Delay(0.03), Reset())

both("goaway-then-answer", ReadBody(), GoAway(), good(), END)
both("goaway-with-a-code-then-answer", ReadBody(), GoAway(2), good(), END)
both("goaway-below", ReadBody(), GoAway(last=-2), Delay(0.5))
both("goaway-below-and-close", ReadBody(), GoAway(last=-2), Close())
both("goaway-and-close", ReadBody(), GoAway(), Close())
both("goaway-between", good(), Body(b"some"), GoAway(), Body(b"more", end=True))

for _condition in ("refused-stream", "reset", "reset-before-request", "5xx", "connect-failure", "gateway-error"):
    for _name, _first in {
        "refused": Reply((ReadBody(), ResetStream(7))),
        "refused-in-body": Reply((ResetStream(7),)),
        "cancelled": Reply((ReadBody(), ResetStream(8))),
        "broken": Reply((ReadBody(), ResetStream(2))),
        "closed": Reply((ReadBody(), Close())),
        "goaway-below": Reply((ReadBody(), GoAway(last=-2), Delay(0.3))),
        "unavailable": answer(503),
    }.items():
        table.ask(
            f"retry-{_condition}-{_name}",
            f"/retry-{_condition}",
            method="POST",
            body=b"hello",
            upstream=[_first, answer()],
            deadline=1.0,
        )
both("refused-three-times", ReadBody(), ResetStream(7), path="/retry-refused-stream")
table.ask("connection-refused", "/refused")
table.get("connection-refused-1", "/refused")
both("timeout", ReadBody(), Delay(1.0), path="/quick")
both("timeout-after-head", ReadBody(), good(), Body(b"some"), Delay(1.0), path="/quick")
both("per-try-timeout", ReadBody(), Delay(1.0), path="/tried")
both("idle-timeout", ReadBody(), good(), Body(b"some"), Delay(1.0), path="/idle")
both("stream-duration", ReadBody(), good(), Body(b"some"), Delay(1.0), path="/duration")

for _path in ("/", "/lenient"):

    def malformed(name: str, *steps: UpstreamStep, path: str = _path) -> None:
        both(f"malformed-{name}{path.replace('/', '-').rstrip('-')}", *steps, Delay(0.03), path=path)

    malformed("no-status", Head([("x-a", "1")]), END)
    malformed("empty-head", Head([]), END)
    malformed("two-statuses", Head([(":status", "200"), (":status", "404")]), END)
    malformed("status-of-two-digits", Head([(":status", "20")]), END)
    malformed("status-of-four-digits", Head([(":status", "2000")]), END)
    malformed("status-with-letters", Head([(":status", "2oo")]), END)
    malformed("status-empty", Head([(":status", "")]), END)
    malformed("status-of-zero", Head([(":status", "000")]), END)
    malformed("status-with-reason", Head([(":status", "200 OK")]), END)
    malformed("status-after-a-field", Head([("x-a", "1"), (":status", "200")]), END)
    malformed("pseudo-of-a-request", Head([(":status", "200"), (":path", "/")]), END)
    malformed("pseudo-unknown", Head([(":status", "200"), (":what", "1")]), END)
    malformed("connection", good(("connection", "close")), END)
    malformed("transfer-encoding", good(("transfer-encoding", "chunked")), END)
    malformed("upgrade", good(("upgrade", "h2c")), END)
    malformed("keep-alive", good(("keep-alive", "timeout=5")), END)
    malformed("proxy-connection", good(("proxy-connection", "close")), END)
    malformed("name-in-capitals", good(("X-Upper", "1")), END)
    malformed("name-empty", good(("", "1")), END)
    malformed("name-with-space", good(("x y", "1")), END)
    malformed("name-with-crlf", good(("x\r\ny", "1")), END)
    malformed("value-with-crlf", good(("x-a", "a\r\nset-cookie: b")), END)
    malformed("value-with-lf", good(("x-a", "a\nb")), END)
    malformed("value-with-nul", good(("x-a", "a\x00b")), END)
    malformed("value-with-high-byte", good(("x-a", "a\xffb")), END)
    malformed("length-too-small", good(("content-length", "3")), END)
    malformed("length-too-large", good(("content-length", "99")), END)
    malformed("length-twice", good(("content-length", "6"), ("content-length", "6")), END)
    malformed("length-twice-differing", good(("content-length", "6"), ("content-length", "7")), END)
    malformed("length-with-letters", good(("content-length", "6x")), END)
    malformed("data-before-head", Body(b"x"), good(), END)
    malformed("second-head-without-end", good(), good(), END)

both("data-after-end", good(), END, RawFrame(0, 0, b"more"), path="/")
both("raw-data-on-stream-0", RawFrame(0, 0, b"x", 0), good(), END)
both("raw-headers-on-an-unasked-stream", RawFrame(1, 0x4, block([(":status", "200")]), 9), good(), END)
both("raw-push", RawFrame(5, 0x4, b"\x00\x00\x00\x02" + block(head())), good(), END)
both("raw-hpack-broken", RawFrame(1, 0x4, b"\xff\xff\x7f"))
both("raw-unknown-frame", RawFrame(0xBB, 0, b"what"), good(), END)
both("raw-ping", RawFrame(6, 0, b"12345678", 0), good(), END)
both("raw-too-large", RawFrame(0xBB, 0, bytes(16385)), good(), END)
both("raw-settings-broken", RawFrame(4, 0, bytes(5), 0), good(), END)
both("raw-window-of-0", RawFrame(8, 0, bytes(4)), good(), END)
both("raw-window-overflow", RawFrame(8, 0, b"\x7f\xff\xff\xff", 0), good(), END)
both("raw-altsvc", RawFrame(0xA, 0, b"\x00\x00" + b'h3=":1"'), good(), END)

both(
    "settings-of-nothing",
    ReadBody(),
    good(),
    END,
    upstream_settings={INITIAL_WINDOW_SIZE: 65535, MAX_CONCURRENT_STREAMS: 100},
)
both(
    "window-0-then-opened",
    Grant(3),
    ReadUntil(b"hel"),
    Grant(9),
    ReadBody(),
    good(),
    END,
    body=True,
    upstream_settings={INITIAL_WINDOW_SIZE: 0},
)
both(
    "window-0-then-settings",
    *(Announce([(INITIAL_WINDOW_SIZE, 100)]), ReadBody(), good(), END),
    body=True,
    upstream_settings={INITIAL_WINDOW_SIZE: 0},
)
both("window-0-never", Delay(0.2), good(), END, body=True, upstream_settings={INITIAL_WINDOW_SIZE: 0})
table.ask(
    "upload-over-windows",
    method="POST",
    body=b"0123456789" * 6000,
    upstream=answer(),
    upstream_settings={INITIAL_WINDOW_SIZE: 1000},
)
table.ask("download-over-windows", upstream=answer(body=b"0123456789" * 30000))
table.get("download-over-windows-1", upstream=answer(body=b"0123456789" * 30000))
table.frames(
    "streams-limited-to-one-by-the-upstream",
    *(ask(1, path="/first"), AwaitUpstream(1), ask(3, path="/second"), AwaitUpstream(2)),
    upstream=[answer(delay=0.1), answer()],
    upstream_settings={MAX_CONCURRENT_STREAMS: 1},
    connections=True,
)
table.frames(
    "streams-limited-to-one-by-the-cluster",
    *(ask(1, path="/one/first"), AwaitUpstream(1), ask(3, path="/one/second"), AwaitUpstream(2)),
    upstream=[answer(delay=0.1), answer()],
    connections=True,
)
table.frames(
    "goaway-then-another-connection",
    *(ask(1, path="/first"), AwaitHead(1), ask(3, path="/second"), AwaitStream(3)),
    upstream=[Reply((GoAway(), good(), Body(b"some"), Delay(0.1), Body(b"more", end=True))), answer()],
    connections=True,
)
table.frames(
    "client-resets-before-the-head",
    *(ask(1), AwaitUpstream(1), reset(1)),
    upstream=Reply((Delay(1.0),)),
    streams={0: ()},
)
for _code in (0, 1, 2, 5, 7, 8, 11):
    table.frames(
        f"client-resets-{CODES[_code]}",
        *(headers(1, head("POST"), end=False) + data(1, b"some", end=False), AwaitUpstream(1), reset(1, _code)),
        upstream=Reply((Delay(1.0),)),
        streams={0: ()},
    )
    table.frames(
        f"client-resets-the-response-{CODES[_code]}",
        *(ask(1), AwaitData(1, 4), reset(1, _code)),
        upstream=Reply((good(), Body(b"some"), Delay(1.0))),
        streams={0: ()},
    )
table.frames(
    "client-resets-one-of-two",
    *(ask(1, path="/first"), AwaitUpstream(1), ask(3, path="/second"), AwaitUpstream(2), reset(1)),
    upstream=[Reply((Delay(1.0),)), answer(delay=0.05)],
    streams={0: (3,)},
    connections=True,
)
