"""HTTP/1.1 to HTTP/2 and back, where the versions differ: hosts, cookies, framing, trailers, Expect, connection fields.

``http`` leads from either version to HTTP/2, ``down`` to HTTP/1.1; trailers and 100-continue pass wherever they are allowed to.
"""

from __future__ import annotations

from tests.differential.blocks import HTTP2_OPTIONS, Message, Site, bootstrap, cluster, listener, manager, route
from tests.differential.case import (
    Abort,
    AwaitBytes,
    AwaitResponses,
    AwaitUpstream,
    Close,
    Delay,
    ReadBody,
    ReadUntil,
    Reply,
    Send,
    reply,
    request,
)
from tests.differential.http2_case import Http2Table, http2_cluster
from tests.differential.http2_frames import FieldLine, data, head, headers, reset
from tests.differential.http2_frames import request as ask
from tests.differential.http2_steps import AwaitData, AwaitHead, AwaitStream, Body, Head
from tests.differential.http2_upstream import answer


def bridges(site: Site) -> Message:
    options: Message = {
        "http_protocol_options": {"enable_trailers": True, "accept_http_10": True},
        "proxy_100_continue": True,
        "delayed_close_timeout": "0.02s",
    }
    http1 = {"@type": HTTP2_OPTIONS, "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
    downstream = {
        "@type": HTTP2_OPTIONS,
        "use_downstream_protocol_config": {
            "http_protocol_options": {"enable_trailers": True},
            "http2_protocol_options": {},
        },
    }

    def speaking(protocol: Message) -> Message:
        return {
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol}
        }

    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, [route("/", "two")], **options)),
            listener(site, "down", manager(site, [route("/", "one")], **options)),
            listener(site, "same", manager(site, [route("/", "same")], **options)),
            listener(site, "strict", manager(site, [route("/", "two")], delayed_close_timeout="0.02s")),
        ],
        [
            http2_cluster(site, "two"),
            cluster(site, "one", ["a"], **speaking(http1)),
            cluster(site, "same", ["a"], **speaking(downstream)),
        ],
    )


BOOTSTRAPS = {"http2-bridges": bridges}

table = Http2Table("http2-bridges", "http2-bridges")
CASES = table.cases


def up(
    name: str, *headers: tuple[str, str], target: str = "/", host: str | None = "a.test", method: str = "GET"
) -> None:
    """A request of HTTP/1.1 that goes on in HTTP/2."""
    table.get(f"up-{name}", target, headers, host=host, method=method)


up("get")
up("post", method="POST")
up("host-with-port", host="a.test:8080")
up("host-in-capitals", host="A.TEST")
up("no-host", host=None)
up("empty-host", host="")
up("two-hosts", ("Host", "b.test"))
up("absolute-url", target="http://b.test/path?x=1")
up("absolute-url-https", target="https://b.test/path")
up("absolute-url-without-path", target="http://b.test")
up("asterisk", target="*", method="OPTIONS")
up("fragment", target="/a#b")
up("escapes", target="/caf%C3%A9//x/../y?q=%20#")
up("connection-close", ("Connection", "close"))
up("connection-names-a-field", ("Connection", "x-hop, keep-alive"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"))
up("connection-names-te", ("Connection", "TE"), ("TE", "trailers"))
up("te-trailers", ("TE", "trailers"))
up("te-gzip", ("TE", "gzip"))
up("te-gzip-and-trailers", ("TE", "gzip, trailers;q=0.5"))
up("proxy-connection", ("Proxy-Connection", "keep-alive"))
up("upgrade-not-enabled", ("Connection", "upgrade"), ("Upgrade", "websocket"))
up("upgrade-h2c", ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAA"))
up("cookies", ("Cookie", "a=1"), ("X-B", "1"), ("Cookie", "b=2"))
up("cookie-of-crumbs", ("Cookie", "a=1; b=2; c=3"))
up("capitals", ("X-Upper-Case", "Value"), ("x-LOWER", "y"))
up("several-values", ("X-Many", "1"), ("x-many", "2"))
up("non-ascii", ("X-Text", "caf\xe9"))
up("underscore", ("x_under", "1"))
up("transfer-encoding-identity", ("Transfer-Encoding", "identity"))
up("expect-other", ("Expect", "something"))
up("trailer-field", ("Trailer", "x-t"))
up("via", ("Via", "1.1 x"))
up("pseudo-authority", (":authority", "b.test"))
up("pseudo-path", (":path", "/other"))
up("many-fields", *((f"X-{number}", "1") for number in range(90)))
up("lower-case-method", method="get")
up("head", method="HEAD")
up("delete", method="DELETE")

for _listener in ("http", "down", "strict", "same"):
    table.get(f"body-with-length-{_listener}", method="POST", body=b"hello", listener=_listener)
    table.add(
        f"body-chunked-{_listener}", request("POST", "/", chunks=[b"one", b"two"]), methods=["POST"], listener=_listener
    )
    table.add(
        f"body-chunked-with-trailers-{_listener}",
        request("POST", "/", [("Trailer", "x-t")], chunks=[b"one"], trailers=[("X-T", "1"), ("x-u", "2")]),
        methods=["POST"],
        listener=_listener,
    )
    table.add(f"body-chunked-empty-{_listener}", request("POST", "/", chunks=[]), methods=["POST"], listener=_listener)
    table.ask(
        f"trailers-from-2-{_listener}",
        method="POST",
        body=b"hello",
        trailers=[("x-t", "1"), ("x-u", "2")],
        listener=_listener,
    )
    table.ask(f"trailers-without-body-from-2-{_listener}", method="POST", trailers=[("x-t", "1")], listener=_listener)
    table.ask(
        f"trailers-with-length-from-2-{_listener}",
        fields=[("content-length", "5")],
        method="POST",
        body=b"hello",
        trailers=[("x-t", "1")],
        listener=_listener,
    )
for _name, _trailers in {
    "content-length": [("content-length", "5")],
    "host": [("host", "b.test")],
    "te": [("te", "trailers")],
    "trailer": [("trailer", "x")],
    "authorization": [("authorization", "x")],
    "cookie": [("cookie", "a=1")],
    "two-cookies": [("cookie", "a=1"), ("cookie", "b=2")],
    "empty-value": [("x-t", "")],
    "high-byte": [("x-t", "\xff")],
    "x-envoy": [("x-envoy-internal", "true")],
    "expect": [("expect", "100-continue")],
    "http2-settings": [("http2-settings", "AA")],
}.items():
    table.ask(f"trailer-{_name}-down", method="POST", body=b"x", trailers=_trailers, listener="down")
    table.ask(f"trailer-{_name}-2", method="POST", body=b"x", trailers=_trailers)
    table.add(
        f"trailer-{_name}-up", request("POST", "/", chunks=[b"x"], trailers=_trailers), methods=["POST"], partial=False
    )

table.ask("response-trailers-down", upstream=reply(chunks=[b"one"], trailers=[("X-T", "1")]), listener="down")
table.ask("response-trailers-2", upstream=answer(trailers=[("x-t", "1")]))
table.get("response-trailers-up", upstream=answer(trailers=[("x-t", "1")]))
table.get("response-trailers-with-length-up", upstream=answer(trailers=[("x-t", "1")], length=True))
table.get("response-trailers-to-http-1-0", upstream=answer(trailers=[("x-t", "1")]))
table.get("response-trailers-strict", upstream=answer(trailers=[("x-t", "1")]), listener="strict")
table.get("response-trailers-only-up", upstream=Reply((Head([(":status", "200")]), Head([("x-t", "1")], end=True))))

CONTINUE = Head([(":status", "100")])
FINAL = (Head([(":status", "200")]), Body(b"from {upstream}", end=True))
EXPECTING = request("POST", "/", [("Expect", "100-continue"), ("Content-Length", "5")])
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
table.add(
    "expect-up",
    *(EXPECTING, AwaitBytes(b"100 Continue"), Send(b"hello")),
    methods=["POST"],
    upstream=Reply((CONTINUE, ReadBody(), *FINAL)),
)
table.add(
    "expect-up-unanswered",
    *(EXPECTING, AwaitUpstream(1), Send(b"hello")),
    methods=["POST"],
    upstream=Reply((ReadBody(), *FINAL)),
)
table.add("expect-up-refused", EXPECTING, methods=["POST"], upstream=Reply((Head([(":status", "417")], end=True),)))
table.add(
    "expect-strict",
    *(EXPECTING, AwaitBytes(b"100 Continue"), Send(b"hello")),
    methods=["POST"],
    listener="strict",
    upstream=Reply((ReadBody(), *FINAL)),
)
_EXPECTING_2 = headers(1, head("POST", fields=[("expect", "100-continue")]), end=False)
table.frames(
    "expect-down",
    *(_EXPECTING_2, AwaitHead(1), data(1, b"hello")),
    listener="down",
    upstream=Reply((GO_ON, *reply().steps)),
)
table.frames(
    "expect-2",
    *(_EXPECTING_2, AwaitHead(1), data(1, b"hello")),
    upstream=Reply((CONTINUE, ReadBody(), *FINAL)),
)
table.frames(
    "expect-2-strict",
    *(_EXPECTING_2, AwaitHead(1), data(1, b"hello")),
    listener="strict",
    upstream=Reply((CONTINUE, ReadBody(), *FINAL)),
)
table.ask("continue-unasked-down", upstream=Reply((GO_ON, *reply().steps)), listener="down")
table.ask("continue-unasked-2", upstream=Reply((CONTINUE, *FINAL)))
table.get("continue-unasked-up", upstream=Reply((CONTINUE, *FINAL)))
table.get("continue-twice-up", upstream=Reply((CONTINUE, CONTINUE, *FINAL)))
table.ask("continue-twice-2", upstream=Reply((CONTINUE, CONTINUE, *FINAL)))
table.ask(
    "early-hints-down",
    upstream=Reply((b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", *reply().steps)),
    listener="down",
)
table.ask("early-hints-2", upstream=Reply((Head([(":status", "103"), ("link", "</x>")]), *FINAL)))
table.get("early-hints-up", upstream=Reply((Head([(":status", "103"), ("link", "</x>")]), *FINAL)))

table.add("http-1-0-up", request("GET", "/", version="HTTP/1.0"), methods=["GET"])
table.add(
    "http-1-0-keep-alive-up", request("GET", "/", [("Connection", "keep-alive")], version="HTTP/1.0"), methods=["GET"]
)
table.add(
    "http-1-0-with-length-up", request("GET", "/", version="HTTP/1.0"), methods=["GET"], upstream=answer(length=True)
)
table.add("pipelined-up", request("GET", "/1") + request("GET", "/2"), methods=["GET", "GET"], connections=True)
table.add("in-turn-up", request("GET", "/1"), AwaitResponses(1), request("GET", "/2"), connections=True)
table.add(
    "two-clients-share-a-connection-up",
    Send(request("GET", "/1")),
    AwaitResponses(1),
    Send(request("GET", "/2"), 1),
    methods={0: ("GET",), 1: ("GET",)},
    connections=True,
)
table.frames(
    "two-streams-need-two-connections-down",
    *(ask(1, path="/1"), AwaitUpstream(1), ask(3, path="/2"), AwaitUpstream(2)),
    upstream=[reply(delay=0.05), reply(delay=0.05)],
    listener="down",
    connections=True,
)
table.frames(
    "reset-closes-the-connection-down",
    *(ask(1, path="/1"), AwaitUpstream(1), reset(1), ask(3, path="/2")),
    upstream=[Reply((Delay(1.0),)), reply()],
    listener="down",
    streams={0: (3,)},
    connections=True,
)
table.add(
    "client-aborts-up",
    *(request("GET", "/"), AwaitUpstream(1), Abort()),
    methods=["GET"],
    upstream=Reply((Delay(1.0),)),
)
table.add(
    "client-aborts-in-its-body-up",
    *(request("POST", "/", [("Content-Length", "9")]) + b"some", AwaitUpstream(1), Abort()),
    methods=["POST"],
    upstream=Reply((Delay(1.0),)),
)
table.add(
    "client-breaks-its-chunks-up",
    *(request("POST", "/", [("Transfer-Encoding", "chunked")]) + b"3\r\nabc\r\n", AwaitUpstream(1), Send(b"zz\r\n")),
    methods=["POST"],
    upstream=Reply((Delay(1.0),)),
)
table.ask(
    "upstream-closes-in-its-body-down",
    upstream=Reply((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", Delay(0.03), Close())),
    listener="down",
)
table.ask(
    "upstream-closes-in-its-chunks-down",
    upstream=Reply((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", Delay(0.03), Close())),
    listener="down",
)
table.ask(
    "upstream-breaks-its-chunks-down",
    upstream=Reply((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", Delay(0.03), b"zz\r\n")),
    listener="down",
)
table.ask("upstream-closes-without-an-answer-down", upstream=Reply((Close(),)), listener="down")
table.ask("upstream-answers-nonsense-down", upstream=Reply((b"nonsense\r\n\r\n",)), listener="down")
table.ask(
    "response-until-close-down", upstream=Reply((b"HTTP/1.1 200 OK\r\n\r\nuntil the end", Close())), listener="down"
)
table.ask(
    "response-http-1-0-until-close-down",
    upstream=Reply((b"HTTP/1.0 200 OK\r\n\r\nuntil the end", Close())),
    listener="down",
)
table.ask("response-capitals-down", upstream=reply(headers=[("X-UPPER", "Value")]), listener="down")
table.ask(
    "response-te-and-trailer-down", upstream=reply(headers=[("TE", "trailers"), ("Trailer", "x-t")]), listener="down"
)
table.ask(
    "response-length-and-chunked-down",
    upstream=Reply(
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",)
    ),
    listener="down",
)
table.frames(
    "early-response-down",
    *(headers(1, head("POST"), end=False) + data(1, b"some", end=False), AwaitStream(1), data(1, b"more")),
    upstream=reply(early=True),
    listener="down",
)
table.frames(
    "early-response-2",
    *(headers(1, head("POST"), end=False) + data(1, b"some", end=False), AwaitStream(1)),
    upstream=answer(early=True),
)
table.add(
    "early-response-up",
    *(request("POST", "/", [("Content-Length", "9")]) + b"some", AwaitResponses(1)),
    methods=["POST"],
    upstream=answer(early=True),
)
table.frames(
    "body-as-it-comes-down",
    *(headers(1, head("POST"), end=False) + data(1, b"one", end=False), AwaitHead(1), data(1, b"two")),
    upstream=Reply(
        (
            ReadUntil(b"one"),
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
            ReadBody(),
            b"0\r\n\r\n",
        )
    ),
    listener="down",
)
table.frames(
    "body-as-it-comes-2",
    *(headers(1, head("POST"), end=False) + data(1, b"one", end=False), AwaitData(1, 3), data(1, b"two")),
    upstream=Reply((ReadUntil(b"one"), Head([(":status", "200")]), Body(b"one"), ReadBody(), Body(b"two", end=True))),
)
for _listener in ("same",):
    table.ask("same-2", listener=_listener)
    table.get("same-1", listener=_listener)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: b.test\r\n\r\n"


def smuggled(name: str, *fields: FieldLine, body: bytes = SMUGGLED, method: str = "POST") -> None:
    """A request whose body would be a second request to who misreads its framing, and another one on the connection."""
    table.frames(
        f"smuggling-{name}",
        ask(1, method, "/first", fields, body=body) + ask(3, path="/second"),
        listener="down",
        unordered=True,
        deadline=0.4,
    )


smuggled("no-length")
smuggled("length", ("content-length", str(len(SMUGGLED))))
smuggled("length-0", ("content-length", "0"))
smuggled("chunked", ("transfer-encoding", "chunked"), body=b"0\r\n\r\n" + SMUGGLED)
smuggled("on-get", method="GET")
smuggled("on-get-with-length", ("content-length", str(len(SMUGGLED))), method="GET")
smuggled("on-head", method="HEAD")
smuggled("underscored", ("transfer_encoding", "chunked"), ("content_length", "0"))
smuggled("connection-names-length", ("x-connection", "content-length"), ("content-length", str(len(SMUGGLED))))
smuggled("te", ("te", "trailers"), ("trailer", "transfer-encoding"))
smuggled("trailing-space-in-name", ("transfer-encoding ", "chunked"))
smuggled("value-of-a-field", ("x-a", "b\r\ntransfer-encoding: chunked"))
smuggled("expect", ("expect", "100-continue"))
smuggled("upgrade", ("upgrade", "h2c"))
smuggled("x-http-method", ("x-http-method-override", "GET"))
