"""HTTP/1 options of the connection manager: HTTP/1.0, limits, header case, upgrades, CONNECT, deadlines, local replies."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, say, to, virtual_host
from tests.differential.case import (
    AwaitBytes,
    AwaitClose,
    AwaitResponses,
    AwaitUpstream,
    Close,
    Delay,
    Finish,
    Pause,
    ReadBody,
    Reply,
    Send,
    Table,
    Tunnel,
    reply,
    request,
)

PRESERVE = {
    "header_key_format": {
        "stateful_formatter": {
            "name": "preserve_case",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
            },
        }
    }
}
PROPER = {"header_key_format": {"proper_case_words": {}}}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def upstream_options(**fields: Any) -> Message:
    """A cluster's HTTP/1.1 options."""
    options = {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        "explicit_http_config": {"http_protocol_options": fields.pop("http1", {})},
        **fields,
    }
    return {"typed_extension_protocol_options": {HTTP_OPTIONS: options}}


def common(**fields: Any) -> dict[str, Any]:
    return {"common_http_protocol_options": fields}


LISTENERS: dict[str, dict[str, Any]] = {
    "http": {},
    "http10": {"http_protocol_options": {"accept_http_10": True}},
    "http10-host": {"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "default.test"}},
    "absolute-off": {"http_protocol_options": {"allow_absolute_url": False}},
    "chunked-length": {"http_protocol_options": {"allow_chunked_length": True}},
    "trailers": {"http_protocol_options": {"enable_trailers": True}},
    "proper": {"http_protocol_options": PROPER},
    "small": {"max_request_headers_kb": 1, **common(max_headers_count=10)},
    "max-requests": common(max_requests_per_connection=2),
    "stream-errors": {"stream_error_on_invalid_http_message": True},
    "scheme-match": {"scheme_header_transformation": {"match_upstream": True}},
}
DEADLINES: dict[str, dict[str, Any]] = {
    "http": {},
    "request": {"request_timeout": "0.1s"},
    "head": {"request_headers_timeout": "0.1s"},
    "idle": {**common(idle_timeout="0.1s"), "drain_timeout": "0.1s"},
    "stream-idle": {"stream_idle_timeout": "0.1s"},
    "duration": {**common(max_connection_duration="0.15s"), "drain_timeout": "0.1s"},
    "max-stream": common(max_stream_duration="0.1s"),
    "undelayed": {"delayed_close_timeout": "0s"},
}


def protocol(site: Site) -> Message:
    return bootstrap(site, [listener(site, name, manager(site, **options)) for name, options in LISTENERS.items()])


def header_case(site: Site) -> Message:
    """Names keep their case, or have it made, on both sides."""
    routes = [route("/preserve", to("preserve")), route("/proper", to("proper")), route("/")]
    preserve = {"http_protocol_options": PRESERVE}
    proper = {"http_protocol_options": PROPER}
    listeners = [
        listener(site, "http", manager(site, routes)),
        listener(site, "preserve", manager(site, routes, **preserve)),
        listener(site, "proper", manager(site, routes, **proper)),
    ]
    clusters = [
        cluster(site, "preserve", ["a"], **upstream_options(http1=PRESERVE)),
        cluster(site, "proper", ["a"], **upstream_options(http1=PROPER)),
    ]
    return bootstrap(site, listeners, clusters)


def deadlines(site: Site) -> Message:
    routes = [route("/said", say(200, "said")), route("/")]
    return bootstrap(site, [listener(site, name, manager(site, routes, **options)) for name, options in DEADLINES.items()])


def upgrades(site: Site) -> Message:
    websocket = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    connect = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
    to_tcp = {"route": {"cluster": "tcp", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}}
    connect_routes = [route({"connect_matcher": {}}, to_tcp), route("/")]
    by_route = [
        route("/off", to("a", upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}])),
        route("/on", to("a", upgrade_configs=[{"upgrade_type": "websocket"}])),
        route("/"),
    ]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, by_route)),
            listener(site, "websocket", manager(site, by_route, **websocket)),
            listener(site, "connect", manager(site, connect_routes, **connect)),
            listener(site, "connect-to-http", manager(site, [route({"connect_matcher": {}}), route("/")], **connect)),
        ],
        [cluster(site, "tcp")],
    )


def local_replies(site: Site) -> Message:
    def status(code: int, operator: str = "EQ") -> Message:
        return {"status_code_filter": {"comparison": {"op": operator, "value": {"default_value": code, "runtime_key": "none"}}}}

    mapped = {
        "mappers": [
            {"filter": status(404), "status_code": 418, "body": {"inline_string": "mapped"}},
            {
                "filter": {"header_filter": {"header": {"name": "x-json", "present_match": True}}},
                "body_format_override": {"json_format": {"code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%", "details": "%RESPONSE_CODE_DETAILS%"}},
            },
            {
                "filter": {"response_flag_filter": {"flags": ["UF"]}},
                "status_code": 502,
                "headers_to_add": [{"header": {"key": "x-mapped", "value": "%RESPONSE_FLAGS%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
            },
            {"filter": {"not_health_check_filter": {}}, "body_format_override": {"text_format_source": {"inline_string": "<%LOCAL_REPLY_BODY%> %REQ(X-TAG)%"}, "content_type": "text/html"}},
        ],
        "body_format": {"text_format_source": {"inline_string": "default %RESPONSE_CODE%"}},
    }  # fmt: skip
    formatted = {"body_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE% %LOCAL_REPLY_BODY% %REQ(:PATH)%\n"}}}
    jsoned = {"body_format": {"json_format": {"error": {"code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%"}, "fixed": "value"}}}
    routes = [
        route("/refused", to("refused")),
        route("/empty", to("empty")),
        route("/said", say(404, "said")),
        route("/upstream", to("a")),
    ]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, routes, local_reply_config=mapped)),
            listener(site, "formatted", manager(site, routes, local_reply_config=formatted)),
            listener(site, "json", manager(site, routes, local_reply_config=jsoned)),
        ],
    )


BOOTSTRAPS = {
    "protocol": protocol,
    "header-case": header_case,
    "deadlines": deadlines,
    "upgrades": upgrades,
    "local-replies": local_replies,
}

table = Table("protocol", "protocol")
CASES = table.cases
add = table.add
get = table.get

HTTP10 = b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"
for _listener in ("http", "http10", "http10-host"):
    add(f"1.0-{_listener}", HTTP10, listener=_listener)
    add(f"1.0-no-host-{_listener}", b"GET / HTTP/1.0\r\n\r\n", listener=_listener)
    add(f"1.0-keep-alive-{_listener}", b"GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n", listener=_listener)
add("1.0-chunked-response", HTTP10, listener="http10", upstream=reply(chunks=[b"one", b"two"]))
add("1.0-response-until-close", HTTP10, listener="http10", upstream=reply(body=b"end", length=False, then=[Close()]))
add("1.0-post", b"POST / HTTP/1.0\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", listener="http10")
add("1.0-chunked-request", b"POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", listener="http10")
add("1.0-keep-alive-twice", b"GET /1 HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n", AwaitResponses(1), HTTP10, listener="http10")  # fmt: skip
get("absolute-off", "http://b.test/x", listener="absolute-off")
SMUGGLE = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
add("chunked-length-allowed", SMUGGLE, listener="chunked-length")
add("trailers-enabled", request("POST", "/", chunks=[b"one"], trailers=[("X-Sum", "1"), ("X-Two", "2")]), listener="trailers", upstream=reply(chunks=[b"one"], trailers=[("X-Back", "1")]))  # fmt: skip
get("proper-case", headers=[("x-lower-case", "1"), ("X-UPPER", "2")], listener="proper", upstream=reply(headers=[("x-lower", "1")]))
get("small-head-too-large", headers=[("X-Large", "a" * 1100)], listener="small")
get("small-head-fits", headers=[("X-Large", "a" * 800)], listener="small")
get("small-target-too-large", "/" + "a" * 1100, listener="small")
get("small-too-many-headers", headers=[(f"X-{number}", "1") for number in range(10)], listener="small")
get("small-nine-headers", headers=[(f"X-{number}", "1") for number in range(9)], listener="small")
add("max-requests", request("GET", "/1"), AwaitResponses(1), request("GET", "/2"), AwaitClose(), listener="max-requests")
add("max-requests-pipelined", request("GET", "/1") + request("GET", "/2") + request("GET", "/3"), methods=["GET", "GET"], listener="max-requests")  # fmt: skip
add("stream-errors-no-host", b"GET / HTTP/1.1\r\n\r\n", listener="stream-errors")
add("stream-errors-bad-header", b"GET / HTTP/1.1\r\nHost: a.test\r\nX Y: 1\r\n\r\n", listener="stream-errors")
get("scheme-match", listener="scheme-match")

MIXED = [("X-MiXed", "1"), ("x-lower", "2"), ("ACCEPT", "*/*")]
ANSWER = reply(headers=[("X-MiXed-Back", "1"), ("ETAG", '"e"'), ("x-lower-back", "2")])
for _listener in ("http", "preserve", "proper"):
    for _path in ("/", "/preserve", "/proper"):
        get(f"case-{_listener}-{_path}", _path, MIXED, listener=_listener, bootstrap="header-case", upstream=ANSWER)
get("case-local-reply", "/", [("X-MiXed", "1")], listener="preserve", bootstrap="header-case", upstream=Reply((ReadBody(), Close())))

HANG = Reply((ReadBody(), Delay(1.0)))
on = {"bootstrap": "deadlines"}
HEAD_ONLY = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nab"
add("deadline-request-body", HEAD_ONLY, listener="request", **on)
add("deadline-request-head", b"GET / HTTP/1.1\r\nHo", listener="request", **on)
add("deadline-request-response", request("GET", "/"), listener="request", upstream=reply(delay=0.15), **on)
add("deadline-head", b"GET / HTTP/1.1\r\nHo", listener="head", **on)
add("deadline-head-none-sent", Send(b""), AwaitClose(), listener="head", methods=["GET"], deadline=0.3, **on)
add("deadline-idle", request("GET", "/"), AwaitResponses(1), AwaitClose(), listener="idle", **on)
add("deadline-idle-nothing-sent", Send(b""), AwaitClose(), listener="idle", methods=["GET"], **on)
add("deadline-idle-half-a-head", b"GET / HT", AwaitClose(), listener="idle", methods=["GET"], deadline=0.4, **on)
add("deadline-stream-idle", request("GET", "/"), listener="stream-idle", upstream=HANG, **on)
add("deadline-stream-idle-body", HEAD_ONLY, listener="stream-idle", **on)
add("deadline-stream-idle-response", request("GET", "/"), listener="stream-idle", upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", Delay(1.0))), **on)  # fmt: skip
add("deadline-stream-idle-head", b"GET / HTTP/1.1\r\nHo", listener="stream-idle", **on)
add("deadline-duration", request("GET", "/"), AwaitResponses(1), AwaitClose(), listener="duration", **on)
add("deadline-duration-within-response", request("GET", "/"), listener="duration", upstream=reply(delay=0.2), **on)
add("deadline-duration-then-request", request("GET", "/1"), AwaitResponses(1), Pause(0.2), request("GET", "/2"), listener="duration", **on)
add("deadline-max-stream", request("GET", "/"), listener="max-stream", upstream=HANG, **on)
add("undelayed-close", HEAD_ONLY.replace(b"POST / ", b"POST /said "), listener="undelayed", methods=["POST"], **on)
add("delayed-close", HEAD_ONLY.replace(b"POST / ", b"POST /said "), listener="http", methods=["POST"], **on)
add("delayed-close-keeps-reading", HEAD_ONLY.replace(b"POST / ", b"POST /said "), AwaitResponses(1), Send(b"cde"), methods=["POST"], **on)

ASK = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]
SWITCH = Reply((b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n", Tunnel()))
up = {"bootstrap": "upgrades"}
for _listener in ("http", "websocket"):
    for _path in ("/on", "/off", "/"):
        add(f"websocket-{_listener}-{_path}", request("GET", _path, ASK), AwaitResponses(1), Send(b"hello"), AwaitBytes(b"HELLO"), Finish(), methods=["GET"], listener=_listener, upstream=SWITCH, deadline=0.3, **up)  # fmt: skip
add("websocket-data-at-once", request("GET", "/", ASK) + b"early", AwaitBytes(b"EARLY"), methods=["GET"], listener="websocket", upstream=SWITCH, **up)
add("websocket-refused-by-upstream", request("GET", "/", ASK), listener="websocket", upstream=reply(403), **up)
add("websocket-ignored-by-upstream", request("GET", "/", ASK), listener="websocket", upstream=reply(200), **up)
add("websocket-upstream-closes", request("GET", "/", ASK), AwaitClose(), listener="websocket", upstream=Reply((*SWITCH.steps[:1], b"bye", Close())), **up)  # fmt: skip
add("websocket-no-answer", request("GET", "/", ASK), listener="websocket", upstream=Reply((Close(),)), **up)
add("websocket-capitals", request("GET", "/", [("Connection", "keep-alive, UPGRADE"), ("Upgrade", "WebSocket")]), AwaitResponses(1), Send(b"hello"), AwaitBytes(b"HELLO"), methods=["GET"], listener="websocket", upstream=SWITCH, **up)  # fmt: skip
add("websocket-other-protocol", request("GET", "/", [("Connection", "Upgrade"), ("Upgrade", "tea")]), listener="websocket", **up)
add("websocket-with-length", request("POST", "/", [*ASK], body=b"body"), methods=["POST"], listener="websocket", upstream=SWITCH, **up)
add("websocket-without-connection-header", request("GET", "/", [("Upgrade", "websocket")]), listener="websocket", **up)
CONNECT = request("CONNECT", "a.test:443", host="a.test:443")
ECHO = {"tcp": [Reply((Tunnel(),))]}
add("connect", CONNECT, AwaitResponses(1), Send(b"hello"), AwaitBytes(b"HELLO"), Finish(), methods=["CONNECT"], listener="connect", upstream=ECHO, upstream_requests=1, **up)  # fmt: skip
add("connect-data-at-once", CONNECT + b"early", AwaitBytes(b"EARLY"), methods=["CONNECT"], listener="connect", upstream=ECHO, upstream_requests=1, **up)  # fmt: skip
add("connect-no-host", b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", methods=["CONNECT"], listener="connect", deadline=0.3, **up)
add("connect-other-host", request("CONNECT", "a.test:443", host="b.test"), methods=["CONNECT"], listener="connect", upstream=ECHO, deadline=0.3, **up)
add("connect-proxied", CONNECT, AwaitResponses(1), Send(b"hello"), AwaitBytes(b"HELLO"), methods=["CONNECT"], listener="connect-to-http", upstream=Reply((b"HTTP/1.1 200 OK\r\n\r\n", Tunnel())), **up)  # fmt: skip
add("connect-proxied-refused", CONNECT, methods=["CONNECT"], listener="connect-to-http", upstream=reply(403, early=True), deadline=0.3, **up)
add("connect-get-beside", request("GET", "/"), listener="connect", **up)

replies = {"bootstrap": "local-replies"}
for _listener in ("http", "formatted", "json"):
    for _path in ("/refused", "/empty", "/said", "/none", "/upstream"):
        get(f"local-reply-{_listener}-{_path}", _path, [("X-Tag", "t")], listener=_listener, upstream=reply(404, body=b"own"), **replies)
get("local-reply-by-header", "/refused", [("X-Json", "1")], **replies)
get("local-reply-grpc", "/refused", [("Content-Type", "application/grpc")], method="POST", body=b"x", listener="json", **replies)
get("local-reply-head", "/refused", method="HEAD", listener="json", **replies)
add("local-reply-bad-request", b"GET / HTTP/1.1\r\n\r\n", listener="formatted", **replies)
add("local-reply-too-large", request("GET", "/", [("X-Large", "a" * 70_000)]), listener="json", **replies)
