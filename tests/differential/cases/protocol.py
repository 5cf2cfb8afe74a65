"""HTTP/1 options of the connection manager: HTTP/1.0, limits and header case."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, to
from tests.differential.case import (
    AwaitClose,
    AwaitResponses,
    Close,
    ReadBody,
    Reply,
    Table,
    reply,
    request,
)

FORMATTERS = "type.googleapis.com/envoy.extensions.http.header_formatters"
PRESERVE: Message = {
    "header_key_format": {
        "stateful_formatter": {
            "name": "preserve_case",
            "typed_config": {"@type": f"{FORMATTERS}.preserve_case.v3.PreserveCaseFormatterConfig"},
        }
    }
}
PROPER: Message = {"header_key_format": {"proper_case_words": {}}}
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
    "trailers": {"http_protocol_options": {"enable_trailers": True}},
    "proper": {"http_protocol_options": PROPER},
    "small": {"max_request_headers_kb": 1, **common(max_headers_count=10)},
    "max-requests": common(max_requests_per_connection=2),
}


def protocol(site: Site) -> Message:
    return bootstrap(site, [listener(site, name, manager(site, **options)) for name, options in LISTENERS.items()])


def header_case(site: Site) -> Message:
    """Names keep their case, or have it made, on both sides."""
    routes = [route("/preserve", to("preserve")), route("/proper", to("proper")), route("/")]
    preserve: Message = {"http_protocol_options": PRESERVE}
    proper: Message = {"http_protocol_options": PROPER}
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


BOOTSTRAPS = {"protocol": protocol, "header-case": header_case}

table = Table("protocol", "protocol")
CASES = table.cases
add = table.add
get = table.get

HTTP10 = b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"
for _listener in ("http", "http10", "http10-host"):
    add(f"1.0-{_listener}", HTTP10, listener=_listener)
    add(f"1.0-no-host-{_listener}", b"GET / HTTP/1.0\r\n\r\n", listener=_listener)
    add(
        f"1.0-keep-alive-{_listener}",
        b"GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
        listener=_listener,
    )
add("1.0-chunked-response", HTTP10, listener="http10", upstream=reply(chunks=[b"one", b"two"]))
add("1.0-response-until-close", HTTP10, listener="http10", upstream=reply(body=b"end", length=False, then=[Close()]))
for _time in range(4):  # by and by their form is known, and they take the express lane
    add(f"1.0-again-{_time}", HTTP10.replace(b"/ ", b"/%d " % _time), listener="http10")
    add(
        f"last-of-many-{_time}",
        b"GET /%d HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n" % _time,
        listener="http10",
    )
add("1.0-post", b"POST / HTTP/1.0\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", listener="http10")
add(
    "1.0-chunked-request",
    b"POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    listener="http10",
)
add(
    "1.0-keep-alive-twice",
    b"GET /1 HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
    AwaitResponses(1),
    HTTP10,
    listener="http10",
)
get("absolute-off", "http://b.test/x", listener="absolute-off")
add(
    "trailers-enabled",
    request("POST", "/", chunks=[b"one"], trailers=[("X-Sum", "1"), ("X-Two", "2")]),
    listener="trailers",
    upstream=reply(chunks=[b"one"], trailers=[("X-Back", "1")]),
)
get(
    "proper-case",
    headers=[("x-lower-case", "1"), ("X-UPPER", "2")],
    listener="proper",
    upstream=reply(headers=[("x-lower", "1")]),
)
get("small-head-too-large", headers=[("X-Large", "a" * 1100)], listener="small")
get("small-head-fits", headers=[("X-Large", "a" * 800)], listener="small")
get("small-target-too-large", "/" + "a" * 1100, listener="small")
get("small-too-many-headers", headers=[(f"X-{number}", "1") for number in range(10)], listener="small")
get("small-nine-headers", headers=[(f"X-{number}", "1") for number in range(9)], listener="small")
add(
    "max-requests", request("GET", "/1"), AwaitResponses(1), request("GET", "/2"), AwaitClose(), listener="max-requests"
)
add(
    "max-requests-pipelined",
    request("GET", "/1") + request("GET", "/2") + request("GET", "/3"),
    methods=["GET", "GET"],
    listener="max-requests",
)

MIXED = [("X-MiXed", "1"), ("x-lower", "2"), ("ACCEPT", "*/*")]
ANSWER = reply(headers=[("X-MiXed-Back", "1"), ("ETAG", '"e"'), ("x-lower-back", "2")])
for _listener in ("http", "preserve", "proper"):
    for _path in ("/", "/preserve", "/proper"):
        get(f"case-{_listener}-{_path}", _path, MIXED, listener=_listener, bootstrap="header-case", upstream=ANSWER)
get(
    "case-local-reply",
    "/",
    [("X-MiXed", "1")],
    listener="preserve",
    bootstrap="header-case",
    upstream=Reply((ReadBody(), Close())),
)
