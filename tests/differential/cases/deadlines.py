"""Deadlines of the connection manager: for heads, bodies, streams and connections, and the delayed close."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, say
from tests.differential.case import (
    AwaitClose,
    AwaitResponses,
    Delay,
    Pause,
    ReadBody,
    Reply,
    Send,
    Table,
    reply,
    request,
)


def common(**fields: Any) -> dict[str, Any]:
    return {"common_http_protocol_options": fields}


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


def deadlines(site: Site) -> Message:
    routes = [route("/said", say(200, "said")), route("/")]
    return bootstrap(
        site, [listener(site, name, manager(site, routes, **options)) for name, options in DEADLINES.items()]
    )


BOOTSTRAPS = {"deadlines": deadlines}

table = Table("protocol", "deadlines")
CASES = table.cases
add = table.add
get = table.get

HANG = Reply((ReadBody(), Delay(1.0)))
on: dict[str, Any] = {"bootstrap": "deadlines"}
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
add(
    "deadline-stream-idle-response",
    request("GET", "/"),
    listener="stream-idle",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", Delay(1.0))),
    **on,
)
add("deadline-stream-idle-head", b"GET / HTTP/1.1\r\nHo", listener="stream-idle", **on)
add("deadline-duration", request("GET", "/"), AwaitResponses(1), AwaitClose(), listener="duration", **on)
add("deadline-duration-within-response", request("GET", "/"), listener="duration", upstream=reply(delay=0.2), **on)
add(
    "deadline-duration-then-request",
    request("GET", "/1"),
    AwaitResponses(1),
    Pause(0.2),
    request("GET", "/2"),
    listener="duration",
    **on,
)
add("deadline-max-stream", request("GET", "/"), listener="max-stream", upstream=HANG, **on)
add("undelayed-close", HEAD_ONLY.replace(b"POST / ", b"POST /said "), listener="undelayed", methods=["POST"], **on)
add("delayed-close", HEAD_ONLY.replace(b"POST / ", b"POST /said "), listener="http", methods=["POST"], **on)
add(
    "delayed-close-keeps-reading",
    HEAD_ONLY.replace(b"POST / ", b"POST /said "),
    AwaitResponses(1),
    Send(b"cde"),
    methods=["POST"],
    **on,
)
