"""What the connection manager, its filters and the router do, once each over HTTP/2: the same as over HTTP/1.1."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    HTTP_FILTERS,
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    say,
    to,
    virtual_host,
)
from tests.differential.case import AwaitClose, AwaitUpstream, Delay, Pause, ReadBody, Reply, reply
from tests.differential.cases.compression import compressor
from tests.differential.http2_case import Http2Table, http2_cluster
from tests.differential.http2_frames import block, data, frame, head, headers, opening, reset
from tests.differential.http2_frames import request as ask
from tests.differential.http2_steps import AwaitData, AwaitGoaway, AwaitHead, AwaitStream, Body, Head, ResetStream
from tests.differential.http2_upstream import answer

ALWAYS = {"numerator": 100}
QUICK: dict[str, Any] = {"delayed_close_timeout": "0.02s"}

LOGGED = {
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "protocol": "%PROTOCOL%",
    "upstream-protocol": "%UPSTREAM_PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "flags-long": "%RESPONSE_FLAGS_LONG%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "request-headers-bytes": "%DOWNSTREAM_HEADER_BYTES_RECEIVED%",
    "method": "%REQ(:METHOD)%",
    "scheme": "%REQ(:SCHEME)%",
    "path": "%REQ(:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "host": "%REQ(HOST)%",
    "cookie": "%REQ(COOKIE)%",
    "trailer": "%TRAILER(X-T)%",
    "response-trailer": "%TRAILER(GRPC-STATUS)%",
    "any-duration": "%DURATION%",
    "any-request": "%REQUEST_DURATION%",
    "any-response": "%RESPONSE_DURATION%",
    "any-tx": "%RESPONSE_TX_DURATION%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "route": "%ROUTE_NAME%",
    "local-reply-body": "%LOCAL_REPLY_BODY%",
}


def features(site: Site) -> Message:
    """``http`` has every filter, the others one setting of the connection manager each."""
    fault = http_filter(
        "fault",
        "HTTPFault",
        abort={"header_abort": {}, "percentage": ALWAYS},
        delay={"header_delay": {}, "percentage": ALWAYS},
    )
    denied = {"permissions": [{"url_path": {"path": {"prefix": "/denied"}}}], "principals": [{"any": True}]}
    rbac = http_filter("rbac", "RBAC", rules={"action": "DENY", "policies": {"d": denied}})
    limit = http_filter("local_ratelimit", "LocalRateLimit", stat_prefix="limit")
    limited = {
        "@type": f"{HTTP_FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "own",
        "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": {"default_value": ALWAYS},
        "filter_enforced": {"default_value": ALWAYS},
    }
    cors = http_filter("cors", "Cors")
    buffer = http_filter("buffer", "Buffer", max_request_bytes=10)
    unbuffered = per_filter("buffer", "BufferPerRoute", disabled=True)
    buffered = per_filter("buffer", "BufferPerRoute", buffer={"max_request_bytes": 10})
    origins = per_filter(
        "cors", "CorsPolicy", allow_origin_string_match=[{"exact": "http://o.test"}], allow_methods="GET"
    )
    by_method = {"prefix": "/by", "headers": [{"name": ":method", "string_match": {"exact": "PUT"}}]}
    by_authority = {"prefix": "/by", "headers": [{"name": ":authority", "string_match": {"prefix": "b."}}]}
    by_host = {"prefix": "/by", "headers": [{"name": "host", "string_match": {"prefix": "c."}}]}
    by_scheme = {"prefix": "/by", "headers": [{"name": ":scheme", "string_match": {"exact": "https"}}]}
    by_cookie = {"prefix": "/by", "headers": [{"name": "cookie", "string_match": {"contains": "b=2"}}]}
    added = [
        {"header": {"key": "x-Protocol", "value": "%PROTOCOL%"}},
        {"header": {"key": "x-authority", "value": "%REQ(:AUTHORITY)%"}},
    ]
    routes = [
        route("/limited", "two", typed_per_filter_config={"envoy.filters.http.local_ratelimit": limited}),
        route("/cors", "two", typed_per_filter_config=origins),
        route("/buffered", "two", typed_per_filter_config=buffered),
        route("/said", say(200, "said")),
        route("/nothing", say(204)),
        route("/redirect", {"redirect": {"host_redirect": "other.test", "https_redirect": True}}),
        route("/rewrite", to("two", prefix_rewrite="/new")),
        route("/host-rewrite", to("two", host_rewrite_literal="rewritten.test", append_x_forwarded_host=True)),
        route("/add", "two", request_headers_to_add=added, response_headers_to_add=added),
        route("/remove", "two", request_headers_to_remove=["x-gone"], response_headers_to_remove=["x-gone"]),
        route("/mirror", to("two", request_mirror_policies=[{"cluster": "two-b"}])),
        route("/weighted", {"route": {"weighted_clusters": {"clusters": [{"name": "two", "weight": 1}]}}}),
        route("/timeout", to("two", timeout="0.05s")),
        route("/idle", to("two", idle_timeout="0.1s", timeout="0s")),
        route("/empty", "empty"),
        route(by_method, say(200, "by method")),
        route(by_authority, say(200, "by authority")),
        route(by_host, say(200, "by host")),
        route(by_scheme, say(200, "by scheme")),
        route(by_cookie, say(200, "by cookie")),
        route("/one", "a"),
        route("/", "two"),
    ]
    for each in routes:
        if each.get("match") != {"prefix": "/buffered"}:
            each.setdefault("typed_per_filter_config", {}).update(unbuffered)
    log = [access_log(site, LOGGED)]
    filters = [fault, rbac, limit, cors, buffer]

    def one(name: str, **fields: Any) -> Message:
        return listener(site, name, manager(site, [route("/two", "two"), route("/")], **QUICK, **fields))

    hosts = [
        virtual_host("a", ["a.test"], [route("/", say(200, "a"))]),
        virtual_host("port", ["b.test:8080"], [route("/", say(200, "b with port"))]),
        virtual_host("b", ["b.test"], [route("/", say(200, "b"))], require_tls="ALL"),
    ]
    breaking = [route("/request", "one-request"), route("/pending", "one-pending"), route("/each", "one-each")]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, routes, filters=filters, access_log=log, **QUICK)),
            listener(site, "hosts", manager(site, hosts=hosts, **QUICK)),
            one(
                "normal",
                normalize_path=True,
                merge_slashes=True,
                path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
            ),
            one("strip-port", strip_any_host_port=True),
            one("edge", use_remote_address=True, via="mizzen", server_name="mine"),
            one("trusting", use_remote_address=True, xff_num_trusted_hops=1),
            one("kilobytes", max_request_headers_kb=4),
            one("ten-fields", common_http_protocol_options={"max_headers_count": 10}),
            one("underscores", common_http_protocol_options={"headers_with_underscores_action": "REJECT_REQUEST"}),
            one("no-underscores", common_http_protocol_options={"headers_with_underscores_action": "DROP_HEADER"}),
            one("request-timeout", request_timeout="0.1s"),
            one("headers-timeout", request_headers_timeout="0.1s"),
            one("stream-idle", stream_idle_timeout="0.1s"),
            one("idle", common_http_protocol_options={"idle_timeout": "0.1s"}, drain_timeout="0.05s"),
            one("long-lived", common_http_protocol_options={"max_connection_duration": "0.1s"}, drain_timeout="0.05s"),
            one("stream-duration", common_http_protocol_options={"max_stream_duration": "0.1s"}),
            one("two-requests", common_http_protocol_options={"max_requests_per_connection": 2}, drain_timeout="0.05s"),
            one("two-streams", http2_protocol_options={"max_concurrent_streams": 2}),
            one("schemes", scheme_header_transformation={"scheme_to_overwrite": "https"}),
            listener(
                site,
                "gzip",
                manager(site, [route("/", "two")], filters=[compressor(response_direction_config={})], **QUICK),
            ),
            listener(site, "breakers", manager(site, breaking, **QUICK)),
            one("request-id", preserve_external_request_id=True, always_set_request_id_in_response=True),
        ],
        [
            http2_cluster(site, "two"),
            http2_cluster(site, "two-b", "b"),
            http2_cluster(site, "one-request", circuit_breakers={"thresholds": [{"max_requests": 1}]}),
            http2_cluster(
                site,
                "one-pending",
                options={"max_concurrent_streams": 1},
                circuit_breakers={"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]},
            ),
            http2_cluster(site, "one-each", common={"max_requests_per_connection": 1}),
        ],
    )


BOOTSTRAPS = {"http2-features": features}

table = Http2Table("http2-features", "http2-features")
CASES = table.cases
get = table.ask

get("fault-abort", fields=[("x-envoy-fault-abort-request", "418")])
get("fault-delay", fields=[("x-envoy-fault-delay-request", "20")])
get("rbac-denied", "/denied")
get("local-ratelimit", "/limited")
get("local-ratelimit-over", "/limited")
get("cors", "/cors", [("origin", "http://o.test")])
get(
    "cors-preflight", "/cors", [("origin", "http://o.test"), ("access-control-request-method", "GET")], method="OPTIONS"
)
get("buffer", "/buffered", method="POST", body=b"small")
get("buffer-one-too-large", "/buffered", method="POST", body=b"x" * 100)
get("buffer-trailers", "/buffered", method="POST", body=b"small", trailers=[("x-t", "1")])
get("direct-response", "/said")
get("direct-response-to-post", "/said", method="POST", body=b"x" * 100, ignore=("client[0].stream[1].reset",))
get("direct-response-204", "/nothing")
get("direct-response-to-head", "/said", method="HEAD")
get("redirect", "/redirect/x?y")
get("prefix-rewrite", "/rewrite/x?y")
get("host-rewrite", "/host-rewrite")
get("headers-added", "/add")
get("headers-removed", "/remove", [("x-gone", "1")], upstream=answer(fields=[("x-gone", "1")]))
get("mirror", "/mirror", method="POST", body=b"both", upstream_requests=2, unordered=True)
get("weighted", "/weighted")
get("timeout", "/timeout", upstream=Reply((ReadBody(), Delay(1.0))))
get("idle-timeout", "/idle", upstream=Reply((ReadBody(), Delay(1.0))))
get("idle-timeout-in-response", "/idle", upstream=Reply((Head([(":status", "200")]), Body(b"some"), Delay(1.0))))
get("empty-cluster", "/empty")
get("by-method", "/by", method="PUT")
get("by-authority", "/by", authority="b.test")
get("by-host", "/by", authority="c.test")
get("by-scheme", "/by", scheme="https")
get("by-cookie-crumbs", "/by", [("cookie", "a=1"), ("cookie", "b=2")])
get("logged-to-one", "/one", [("cookie", "a=1"), ("cookie", "b=2")])
get("logged-post", "/", method="POST", body=b"hello", trailers=[("x-t", "1")])
get("logged-response-trailers", "/", upstream=answer(trailers=[("x-t", "1"), ("grpc-status", "0")]))
get("logged-reset-by-upstream", "/", upstream=Reply((ReadBody(), ResetStream(8))))
get("logged-refused-by-upstream", "/", upstream=Reply((ReadBody(), ResetStream(7))))
get(
    "logged-reset-in-response",
    "/",
    upstream=Reply((Head([(":status", "200")]), Body(b"some"), Delay(0.03), ResetStream(2))),
)
table.frames(
    "logged-reset-by-client",
    *(ask(1), AwaitUpstream(1), reset(1)),
    upstream=Reply((Delay(1.0),)),
    streams={0: ()},
)
table.frames(
    "logged-refused-by-client",
    *(ask(1), AwaitUpstream(1), reset(1, 7)),
    upstream=Reply((Delay(1.0),)),
    streams={0: ()},
)
table.frames(
    "logged-reset-of-the-response",
    *(ask(1), AwaitData(1, 4), reset(1, 2)),
    upstream=Reply((Head([(":status", "200")]), Body(b"some"), Delay(1.0))),
    streams={0: ()},
)
table.head("logged-malformed", head(fields=[("X-Upper", "1")]))
table.head("logged-malformed-path", head(path="/a b"))
get("host-by-authority", listener="hosts")
get("host-with-port", authority="b.test:8080", listener="hosts")
get("host-with-another-port", authority="a.test:99", listener="hosts")
get("host-unknown", authority="c.test", listener="hosts")
get("host-needs-tls", authority="b.test", listener="hosts")
get("host-needs-tls-scheme-https", authority="b.test", scheme="https", listener="hosts")
for _number, _path in enumerate(
    (
        "/a/../b",
        "/a/./b//c",
        "//a",
        "/../x",
        "/a%2fb",
        "/a%2Fb?c",
        "/%41",
        "/a\\b",
        "/a/%2e%2e/b",
        "/?x=../y",
        "/a;x=1/../b",
    )
):
    get(f"normal-path-{_number}", _path, listener="normal")
get("strip-port", authority="a.test:8080", listener="strip-port")
get("strip-port-ipv6", authority="[::1]:8080", listener="strip-port")
get("strip-no-port", listener="strip-port")
get(
    "edge",
    fields=[("x-forwarded-for", "1.2.3.4"), ("x-envoy-original-path", "/x"), ("x-forwarded-host", "h")],
    listener="edge",
)
get("edge-two", "/two", [("x-forwarded-proto", "https"), ("via", "1.1 x")], listener="edge")
get("trusting", fields=[("x-forwarded-for", "1.2.3.4, 5.6.7.8")], listener="trusting")
get("trusting-proto", fields=[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")], listener="trusting")
get("scheme-overwritten", "/two", listener="schemes")
get("request-id", "/two", [("x-request-id", "mine")], listener="request-id")
get("request-id-none", "/two", listener="request-id")
get("underscore-rejected", fields=[("x_y", "1")], listener="underscores")
get("underscore-dropped", fields=[("x_y", "1"), ("x-z", "2")], listener="no-underscores")

BIG = "a" * 5000
get("kilobytes-fit", fields=[("x-a", "a" * 3000)], listener="kilobytes")
get("kilobytes-too-many", fields=[("x-a", BIG)], listener="kilobytes")
get("kilobytes-too-many-in-pieces", fields=[(f"x-{number}", "a" * 500) for number in range(10)], listener="kilobytes")
get("kilobytes-in-the-path", f"/{BIG}", listener="kilobytes")
get("kilobytes-in-trailers", method="POST", body=b"x", trailers=[("x-a", BIG)], listener="kilobytes", partial=False)
get("default-59-kb", fields=[("x-a", "a" * 59_000)])
get("default-70-kb", fields=[("x-a", "a" * 70_000)])
get("default-70-kb-in-pieces", fields=[(f"x-{number}", "a" * 1000) for number in range(70)])
get("default-path-of-70-kb", f"/{'a' * 70_000}")
get("fields-fit", fields=[(f"x-{number}", "1") for number in range(6)], listener="ten-fields")
for _more in (5, 7, 8, 9, 20):
    get(f"fields-{_more}", fields=[(f"x-{number}", "1") for number in range(_more)], listener="ten-fields")
get("fields-cookies", fields=[("cookie", f"a{number}=1") for number in range(20)], listener="ten-fields")
get(
    "fields-in-trailers",
    method="POST",
    body=b"x",
    trailers=[(f"x-{number}", "1") for number in range(20)],
    listener="ten-fields",
    partial=False,
)
get("default-fields-95", fields=[(f"x-{number}", "1") for number in range(95)])
get("default-fields-120", fields=[(f"x-{number}", "1") for number in range(120)])
get("default-cookies-120", fields=[("cookie", f"a{number}=1") for number in range(120)])
get("response-fields-120", "/two", upstream=answer(fields=[(f"x-{number}", "1") for number in range(120)]))
get("response-70-kb", "/two", upstream=answer(fields=[("x-a", "a" * 70_000)]))
get("response-fields-95", "/two", upstream=answer(fields=[(f"x-{number}", "1") for number in range(95)]))

HALF = headers(1, head("POST", path="/two"), end=False) + data(1, b"some", end=False)
table.frames("request-timeout", HALF, listener="request-timeout", deadline=1.0)
table.frames(
    "headers-timeout",
    frame(1, 0x1, 1, block(head())[:5]),
    AwaitClose(),
    listener="headers-timeout",
    streams={0: ()},
    deadline=0.5,
)
table.frames("headers-timeout-no-request", opening(), Pause(0.2), ask(1), listener="headers-timeout")
table.frames("stream-idle-timeout", HALF, listener="stream-idle", deadline=1.0)
get("stream-idle-timeout-no-answer", "/two", upstream=Reply((ReadBody(), Delay(1.0))), listener="stream-idle")
get(
    "stream-idle-timeout-in-response",
    "/two",
    upstream=Reply((Head([(":status", "200")]), Body(b"some"), Delay(1.0))),
    listener="stream-idle",
)
table.frames("idle-timeout-of-the-connection", opening(), AwaitGoaway(), listener="idle", streams={0: ()}, deadline=1.0)
table.frames("idle-timeout-after-a-stream", ask(1), AwaitStream(1), AwaitGoaway(), listener="idle", deadline=1.0)
table.frames("connection-duration", ask(1), AwaitStream(1), AwaitGoaway(), listener="long-lived", deadline=1.0)
table.frames(
    "connection-duration-unused", opening(), AwaitGoaway(), listener="long-lived", streams={0: ()}, deadline=1.0
)
get("stream-duration", "/two", upstream=Reply((ReadBody(), Delay(1.0))), listener="stream-duration")
get(
    "stream-duration-in-response",
    "/two",
    upstream=Reply((Head([(":status", "200")]), Body(b"some"), Delay(1.0))),
    listener="stream-duration",
)
table.frames(
    "requests-per-connection",
    *(ask(1), AwaitStream(1), ask(3, path="/3"), AwaitStream(3), AwaitGoaway()),
    listener="two-requests",
    deadline=0.5,
)
table.frames(
    "streams-above-the-limit",
    *(ask(1, path="/1"), AwaitUpstream(1), ask(3, path="/3"), AwaitUpstream(2), ask(5, path="/5"), AwaitStream(5)),
    listener="two-streams",
    upstream=[reply(delay=0.1), reply(delay=0.1), reply()],
    unordered=True,
)
table.frames(
    "streams-within-the-limit-in-turn",
    *(ask(1), AwaitStream(1), ask(3), AwaitStream(3), ask(5), AwaitStream(5)),
    listener="two-streams",
)
table.frames("head-then-nothing", headers(1, head("POST"), end=False), AwaitHead(1), upstream=answer(early=True))

table.ask(
    "gzip", fields=[("accept-encoding", "gzip")], listener="gzip", upstream=answer(body=b"0123456789" * 50, length=True)
)
table.ask("gzip-not-accepted", listener="gzip", upstream=answer(body=b"0123456789" * 50))
table.frames(
    "breaker-of-requests",
    *(ask(1, path="/request/1"), AwaitUpstream(1), ask(3, path="/request/3"), AwaitStream(3)),
    listener="breakers",
    upstream=[answer(delay=0.05), answer()],
    unordered=True,
)
table.frames(
    "breaker-of-pending-requests",
    *(
        ask(1, path="/pending/1"),
        AwaitUpstream(1),
        ask(3, path="/pending/3"),
        Pause(0.03),
        ask(5, path="/pending/5"),
        AwaitStream(5),
    ),
    listener="breakers",
    upstream=[answer(delay=0.1), answer()],
    unordered=True,
    connections=True,
)
table.frames(
    "requests-of-a-connection-to-the-host",
    *(ask(1, path="/each/1"), AwaitStream(1), ask(3, path="/each/3"), AwaitStream(3)),
    listener="breakers",
    connections=True,
)
