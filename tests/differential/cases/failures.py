"""Every way in which a request fails: the response flags and details by which the access log tells them apart."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    address,
    bootstrap,
    cluster,
    http_filter,
    listener,
    manager,
    route,
    router,
    to,
)
from tests.differential.case import (
    Abort,
    AwaitBytes,
    AwaitUpstream,
    Close,
    Delay,
    Finish,
    Pause,
    ReadBody,
    Reply,
    Reset,
    Send,
    reply,
    request,
)
from tests.differential.http2_case import Http2Table, http2_cluster
from tests.differential.http2_frames import CODES, data, headers, reset
from tests.differential.http2_frames import request as ask
from tests.differential.http2_steps import AwaitHead, Body, GoAway, Head, ResetStream

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
FAST = {"base_interval": "0.001s", "max_interval": "0.002s"}
WHEN = {"first-tx": "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG)%", "first-rx": "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG)%"}
HUNDRED = {"numerator": 100}


def retry(on: str, **fields: Any) -> Message:
    return {"retry_policy": {"retry_on": on, "num_retries": 1, "retry_back_off": FAST, **fields}}


def failures(site: Site) -> Message:
    fault = http_filter(
        "fault",
        "HTTPFault",
        headers=[{"name": "x-abort", "present_match": True}],
        abort={"http_status": 418, "percentage": HUNDRED},
    )
    delay = http_filter(
        "fault",
        "HTTPFault",
        headers=[{"name": "x-delay", "present_match": True}],
        delay={"fixed_delay": "0.05s", "percentage": HUNDRED},
    )
    delay["name"] = "second"
    limit = http_filter(
        "local_ratelimit",
        "LocalRateLimit",
        stat_prefix="limit",
        token_bucket={"max_tokens": 1, "fill_interval": "3600s"},
        filter_enabled={"default_value": HUNDRED},
        filter_enforced={"default_value": HUNDRED},
    )
    routes = [
        route("/refused/", "refused"),
        route("/refused-twice/", to("refused", **retry("connect-failure"))),
        route("/refused-by-two/", "refused-by-two"),
        route("/refused-by-two-with-a-policy/", to("refused-by-two", retry_policy={})),
        route("/empty/", "empty"),
        route("/unknown/", {"route": {"cluster_header": "x-cluster"}}),
        route("/pending/", "no-pending"),
        route("/requests/", "no-requests"),
        route("/tls/", "tls"),
        route("/slow-tls/", "slow-tls"),
        route("/h2/", "two"),
        route("/timeout/", to("a", timeout="0.1s")),
        route("/tries/", to("a", **retry("5xx", per_try_timeout="0.1s"))),
        route("/idle-tries/", to("a", **retry("connect-failure", per_try_idle_timeout="0.1s"))),
        route("/idle/", to("a", timeout="0s", idle_timeout="0.1s")),
        route("/duration/", to("a", timeout="0s", max_stream_duration={"max_stream_duration": "0.1s"})),
        route("/twice/", to("a", **retry("5xx"))),
        route("/twice-then-refused/", to("then-refused", **retry("5xx", retry_priority=OTHER_PRIORITY))),
        route("/no-room/", to("no-retries", **retry("5xx"))),
        route("/only", "a"),
    ]
    tls = {"transport_socket": {"name": "tls", "typed_config": {"@type": TLS}}}
    then_refused = {
        "cluster_name": "then-refused",
        "endpoints": [
            {"lb_endpoints": [endpoint_of(site, "a")]},
            {"priority": 1, "lb_endpoints": [endpoint_of(site, "refused")]},
        ],
    }
    refused = site.upstreams["refused"]
    by_two = {
        "cluster_name": "refused-by-two",
        "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(refused, ip)}} for ip in ("127.0.0.1", "127.0.0.2")]}
        ],
    }
    log = {"access_log": [access_log(site, {**LOGGED, **{f"any-{name}": text for name, text in WHEN.items()}})]}
    strict = [router(strict_check_headers=["x-envoy-max-retries"])]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, routes, filters=[fault, delay], **log)),
            listener(site, "limited", manager(site, routes, filters=[limit], **log)),
            listener(site, "strict", manager(site, routes, **{**log, "http_filters": strict})),
            listener(site, "slow-request", manager(site, routes, request_timeout="0.1s", **log)),
            listener(site, "h2", manager(site, routes, **log)),
        ],
        [
            http2_cluster(site, "two"),
            cluster(site, "no-pending", ["a"], circuit_breakers={"thresholds": [{"max_pending_requests": 0}]}),
            cluster(site, "no-requests", ["a"], circuit_breakers={"thresholds": [{"max_requests": 0}]}),
            cluster(site, "no-retries", ["a"], circuit_breakers={"thresholds": [{"max_retries": 0}]}),
            cluster(site, "tls", ["a"], **tls),
            cluster(site, "slow-tls", ["tcp"], **{**tls, "connect_timeout": "0.2s"}),
            {"name": "refused-by-two", "connect_timeout": "1s", "load_assignment": by_two},
            {"name": "then-refused", "connect_timeout": "1s", "load_assignment": then_refused},
        ],
    )


OTHER_PRIORITY = {
    "name": "envoy.retry_priorities.previous_priorities",
    "typed_config": {
        "@type": (
            "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
        ),
        "update_frequency": 1,
    },
}


def endpoint_of(site: Site, upstream: str) -> Message:
    return {
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": site.upstreams[upstream]}}}
    }


BOOTSTRAPS = {"failures": failures}

table = Http2Table("failures", "failures")
CASES = table.cases
add = table.add
get = table.get

HELLO = ("upstream[0].body",)
HANG = Reply((ReadBody(), Delay(2.0)))
CLOSED = Reply((ReadBody(), Close()))
BEGUN = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"
GET = request("GET", "/only")
PART = b"POST /only HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc"

# before any host is asked
get("no-route", "/nowhere")
get("no-cluster", "/unknown/", [("x-cluster", "nowhere")])
get("no-host", "/empty/")
get("fault-abort", "/only", [("x-abort", "1")])
get("fault-delay-then-close", "/only", [("x-delay", "1")], upstream=CLOSED)
add("rate-limited", GET, GET, methods=("GET", "GET"), listener="limited")
get("bad-envoy-header", "/only", [("x-envoy-max-retries", "many")], listener="strict")
add("slow-request", PART, methods=("POST",), listener="slow-request", upstream=HANG)
add("bad-head", b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n", methods=("GET",))
add(
    "bad-chunk",
    b"POST /only HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    methods=("POST",),
    upstream=HANG,
    partial=False,
)
# waiting for a connection
get("refused", "/refused/")
get("refused-twice", "/refused-twice/")
get("refused-by-two", "/refused-by-two/")
get("refused-by-two-with-a-policy", "/refused-by-two-with-a-policy/", ignore=("access_log[0].upstream",))
get("no-pending", "/pending/")
get("no-requests", "/requests/")
get("connection-timeout", "/slow-tls/", upstream={"tcp": [Reply((Delay(2.0),))]}, ignore=HELLO)
get("not-tls", "/tls/", upstream_requests=1, ignore=HELLO)
add(
    "client-leaves-while-connecting",
    request("GET", "/slow-tls/"),
    AwaitUpstream(1),
    Abort(),
    upstream={"tcp": [Reply((Delay(2.0),))]},
    ignore=HELLO,
)
# waiting for the response
for _name, _target in (("", "/only"), ("-twice", "/twice/")):
    get(f"closed{_name}", _target, method="POST", body=b"x", upstream=CLOSED)
    get(f"reset{_name}", _target, method="POST", body=b"x", upstream=Reply((ReadBody(), Reset())))
    get(f"nonsense{_name}", _target, upstream=Reply((ReadBody(), b"nonsense\r\n\r\n")))
    get(f"half-a-head{_name}", _target, upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\nx-a: ", Close())))
get("closed-and-no-room", "/no-room/", method="POST", body=b"x", upstream=CLOSED)
get("bad-and-no-room", "/no-room/", upstream=reply(503))
get("delayed-and-out-of-retries", "/twice/", [("x-delay", "1")], upstream=reply(503))
get("timeout", "/timeout/", upstream=HANG)
get("per-try-timeout", "/tries/", upstream=HANG)
get("per-try-idle-timeout", "/idle-tries/", upstream=HANG)
get("stream-idle", "/idle/", upstream=HANG)
get("stream-duration", "/duration/", upstream=HANG)
get("retried-then-refused", "/twice-then-refused/", upstream={"a": [reply(503)]})
get("out-of-retries", "/twice/", upstream=reply(503))
add("client-resets", GET, AwaitUpstream(1), Abort(), upstream=HANG)
add("client-leaves", GET, AwaitUpstream(1), Finish(), upstream=HANG)
add("client-leaves-within-the-request", PART, AwaitUpstream(1), Abort(), upstream=HANG, methods=("POST",))
add(
    "client-leaves-at-once",
    PART,
    Abort(),
    upstream=HANG,
    methods=("POST",),
    partial=False,
    ignore=("access_log[0].any-first-tx",),  # whether the client or the connection to the host is seen first, is chance
)
# within the response
get("closed-within", "/only", upstream=Reply((ReadBody(), BEGUN, Close())))
get("reset-within", "/only", upstream=Reply((ReadBody(), BEGUN, Delay(0.05), Reset())))
get("timeout-within", "/timeout/", upstream=Reply((ReadBody(), BEGUN, Delay(2.0))))
get("idle-within", "/idle/", upstream=Reply((ReadBody(), BEGUN, Delay(2.0))))
get("duration-within", "/duration/", upstream=Reply((ReadBody(), BEGUN, Delay(2.0))))
add("client-leaves-within", GET, AwaitBytes(b"abc"), Abort(), upstream=Reply((ReadBody(), BEGUN, Delay(2.0))))
get(
    "bad-chunk-within",
    "/only",
    upstream=Reply(
        (ReadBody(), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", Delay(0.5))
    ),
)
# over HTTP/2
HEAD = Head([(":status", "200"), ("content-length", "10")])
for _name in ("CANCEL", "INTERNAL_ERROR", "REFUSED_STREAM", "PROTOCOL_ERROR", "NO_ERROR"):
    _code = next(code for code, name in CODES.items() if name == _name)
    get(f"h2-upstream-{_name}", "/h2/", method="POST", body=b"x", upstream=Reply((ReadBody(), ResetStream(_code))))
    get(
        f"h2-upstream-{_name}-within",
        "/h2/",
        method="POST",
        body=b"x",
        upstream=Reply((ReadBody(), HEAD, Body(b"abc"), Delay(0.05), ResetStream(_code))),
    )
    table.frames(
        f"h2-client-{_name}",
        ask(1, "GET", "/only"),
        AwaitUpstream(1),
        Pause(0.05),
        reset(1, _code),
        upstream=HANG,
        listener="h2",
        streams={0: ()},
    )
    table.frames(
        f"h2-client-{_name}-within",
        ask(1, "GET", "/only"),
        AwaitHead(1),
        reset(1, _code),
        upstream=Reply((ReadBody(), BEGUN, Delay(2.0))),
        listener="h2",
        streams={0: ()},
    )
get("h2-upstream-goaway", "/h2/", method="POST", body=b"x", upstream=Reply((ReadBody(), GoAway(0, -2))))
get("h2-upstream-closes", "/h2/", method="POST", body=b"x", upstream=Reply((ReadBody(), Close())))
LONGER = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a.test"),
    (":path", "/only"),
    ("content-length", "5"),
]
table.frames(
    "h2-client-wrong-length",
    headers(1, LONGER, end=False) + data(1, b"abc"),
    upstream=HANG,
    listener="h2",
    partial=False,
)
table.frames(
    "h2-client-leaves",
    ask(1, "GET", "/only"),
    AwaitUpstream(1),
    Abort(),
    upstream=HANG,
    listener="h2",
    streams={},
    ignore=("client[0].rest",),
)
add("nothing-sent", Send(b""), Abort(), methods={0: ()})
