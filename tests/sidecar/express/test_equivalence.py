"""The express lane changes nothing: with it and without it, everything that can be seen of a run is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sidecar.express.changing import CONFIGURATIONS, GOOD, TOKENS
from tests.sidecar.http.exchanges import REMOTES, Exchange, configurations, exchanges
from tests.sidecar.http.running import LOG, LOG_FORMAT, TO_UP, MemoryStack, bootstrap, http_filter, log_to
from tests.sidecar.http.ways import differences, outcome, whole

_LOG = {
    "name": "log",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/json",
        "log_format": {
            "json_format": {
                str(number): f"%{operator}%"
                for number, operator in enumerate(
                    ("START_TIME", "REQ(:PATH)", "REQ(USER-AGENT)", "REQ(X-REQUEST-ID)", "REQ(COOKIE)", "RESP(DATE)",
                     "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)", "RESP(SERVER)", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS",
                     "RESPONSE_FLAGS", "BYTES_SENT", "DURATION", "UPSTREAM_HOST", "UPSTREAM_CLUSTER", "ROUTE_NAME",
                     "DYNAMIC_METADATA(envoy.filters.http.rbac)", "UPSTREAM_REQUEST_ATTEMPT_COUNT",
                     "DOWNSTREAM_HEADER_BYTES_SENT", "UPSTREAM_HEADER_BYTES_RECEIVED", "RESPONSE_DURATION",
                     "REQ(X-ENVOY-EXPECTED-RQ-TIMEOUT-MS)", "DOWNSTREAM_REMOTE_ADDRESS", "UPSTREAM_CONNECTION_ID")
                )
            }
        },
    },
}  # fmt: skip
_LOGS = [log_to(LOG, {"text_format_source": {"inline_string": LOG_FORMAT}}), _LOG]
_MESH = [
    http_filter(
        "rbac.v3.RBAC",
        rules={
            "action": "ALLOW",
            "policies": {
                "usual": {
                    "permissions": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}],
                    "principals": [{"any": True}],
                }
            },
        },
    ),
    http_filter(
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        token_bucket={"max_tokens": 7, "tokens_per_fill": 1, "fill_interval": "1s"},
        filter_enabled={"default_value": {"numerator": 100}},
        filter_enforced={"default_value": {"numerator": 100}},
    ),
]
_SPLIT: dict[str, Any] = {
    "match": {"prefix": "/"},
    "route": {
        "timeout": "0.2s",
        "weighted_clusters": {"clusters": [{"name": "up", "weight": 60}, {"name": "v2", "weight": 40}]},
        "retry_policy": {
            "retry_on": "5xx,reset-before-request,connect-failure",
            "num_retries": 2,
            "per_try_timeout": "0.1s",
        },
    },
}
_CANARY: dict[str, Any] = {
    "match": {"prefix": "/", "headers": [{"name": "x-request-id", "string_match": {"suffix": "3"}}]},
    "route": {"cluster": "v2"},
}
_PLAIN = st.sampled_from(
    (
        bootstrap(),
        bootstrap(manager={"use_remote_address": True, "normalize_path": True, "access_log": _LOGS}),
        bootstrap(
            manager={"use_remote_address": True, "access_log": _LOGS},
            filters=_MESH,
            routes=[_CANARY, _SPLIT],
            clusters={"up": {"outlier_detection": {"consecutive_5xx": 2}}, "v2": {"lb_policy": "LEAST_REQUEST"}},
        ),
        bootstrap(
            manager={
                "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old"},
                "access_log": _LOGS,
            }
        ),
        bootstrap(manager={"via": "mesh", "server_header_transformation": "PASS_THROUGH", "access_log": _LOGS}),
        bootstrap(manager={"common_http_protocol_options": {"idle_timeout": "0.3s"}, "append_x_forwarded_port": True}),
        bootstrap(routes=[{**TO_UP, "route": {"cluster": "up", "timeout": "0s", "idle_timeout": "1s"}}, TO_UP]),
        bootstrap(
            routes=[_SPLIT],
            clusters={
                "up": {"circuit_breakers": {"thresholds": [{"max_requests": 1, "max_connections": 1}]}},
                "v2": {},
            },
        ),
    )
)
_SERVICE_CALL = (
    b"GET /items/0 HTTP/1.1\r\nHost: backend.local:8080\r\nUser-Agent: orders/2.31.0\r\nAccept: */*\r\n"
    b"Authorization: Bearer abc.def\r\nx-request-id: 7f3d2c1b-1111-2222-3333-000000000000\r\n"
    b"Traceparent: 00-0af7651916cd43dd8448eb2100000001-b7ad6b7169203331-01\r\nCookie: a=b; c=d\r\nX-User: u0\r\n\r\n"
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 19:15:52 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 5\r\nConnection: keep-alive\r\nX-Served-By: h0\r\n\r\nhello"
)
_POST = (
    b"POST /items/0 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n"
    b"X-Request-Id: 3333-0000\r\n\r\n"
    b'{"name": "u0"}'
)
_BASES = st.one_of(
    st.just(Exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", (_ANSWER,))),
    st.just(Exchange(_SERVICE_CALL, (_ANSWER,))),
    st.just(
        Exchange(
            _SERVICE_CALL.replace(b"GET", b"DELETE"), (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone",)
        )
    ),
    st.just(Exchange(_POST, (_ANSWER,))),
    st.just(Exchange(b"GET / HTTP/1.0\r\n\r\n", (_ANSWER,))),
    st.just(Exchange(_SERVICE_CALL.replace(b"HTTP/1.1", b"HTTP/1.0"), (_ANSWER,))),
    st.just(Exchange(_SERVICE_CALL.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), (_ANSWER,))),
    st.just(Exchange(_POST.replace(b"Host: a", b"Connection: close\r\nHost: a"), (_ANSWER,))),
    exchanges(),
)
_CHANGES: tuple[tuple[bytes, bytes], ...] = (
    (b"/items/0", b"/items/1?x=%20y"), (b"/items/0", b"/items/0#fragment"), (b"/items/0", b"//items/../0"),
    (b"/items/0", b"*"), (b"/items/0", b"/items/\xff"), (b"/items/0", b""), (b"GET", b"get"), (b"GET ", b"GET  "),
    (b"3333-0000", b"4444-0001"), (b"3333-0000", b"4444-000 "), (b"3333-0000", b"4444-\xe900"),
    (b"-000000000000", b"-000000000003"), (b"-00000000000", b"-0000000000\t"), (b": 7f3d", b":  f3d"), (b"c=d", b"d=e"),
    (b"a=b; c", b"a=b;  "), (b"a=b; c=d", b" =b; c=d"), (b"u0", b"u1"), (b"u0", b"u2"),
    (b"orders/2.31.0", b"orders/2.32.0"), (b"abc.def", b"abc.deg"), (b"\r\n\r\n", b"\r\nX-More: 1\r\n\r\n"),
    (b"Length: 14", b"Length: 13"), (b"Length: 14", b"Length: 15"), (b"Length: 14", b"Length: +4"),
    (b"Length: 14", b"Length: 00"), (b'{"name', b'{"game'), (b"POST", b"PUT"), (b"POST", b"HEAD"),
    (b"Content-Length: 14", b"Transfer-Encoding: chunked"), (b"HTTP/1.1", b"HTTP/1.0"),
    (b"HTTP/1.0", b"HTTP/1.1"), (b": close", b": clos,"), (b"on: close", b"on: keep-alive"), (b"on: close", b"on: CLOSE"),
    (b"Traceparent", b"tRACEPARENT"), (b"Host: a", b"Host: b"), (b"Accept: */*", b"Expect: 1/1"),
)  # fmt: skip
_ANSWER_CHANGES: tuple[tuple[bytes, bytes], ...] = (
    (b"19:15:52", b"19:15:53"), (b"hello", b"world"), (b"Length: 5\r\n", b"Length: 2\r\n"),
    (b"Length: 5\r\n", b"Length: 7\r\n"), (b"Length: 5\r\n", b"Length: +\r\n"), (b"h0", b"h1"), (b"h0", b"h2"),
    (b"keep-alive", b"close"), (b"200 OK", b"503 No"), (b"200 OK", b"204 No"), (b"200 OK", b"304 No"),
    (b"200 OK", b"500 OK"), (b"HTTP/1.1", b"HTTP/1.0"), (b"nginx/1.22.1", b"nginx/1.22.\x01"),
    (b"hello", b"hello" * 4000), (b"Sun, 22", b"Sun,\t22"), (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
)  # fmt: skip
_TOKEN_CHANGES = tuple((GOOD, one) for one in (*TOKENS, GOOD[:-1] + b"_", b"Bearer x"))


@st.composite
def runs(
    draw: st.DrawFn,
    bases: st.SearchStrategy[Exchange] = _BASES,
    changes: tuple[tuple[bytes, bytes], ...] = _CHANGES,
) -> list[Exchange]:
    """Exchanges of one shape often enough for the lane to know it, then some that differ a little, over two connections."""
    base = draw(bases)
    run = [base] * draw(st.integers(3, 5))
    for _ in range(draw(st.integers(1, 5))):
        exchange = base
        if draw(st.booleans()):
            old, new = draw(st.sampled_from(changes))
            exchange = replace(exchange, request=exchange.request.replace(old, new, 1))
        if draw(st.booleans()):
            old, new = draw(st.sampled_from(_ANSWER_CHANGES))
            changed = exchange.responses[0].replace(old, new, 1)
            exchange = replace(exchange, responses=(changed, *exchange.responses[1:], *exchange.responses[:1]))
        if draw(st.integers(0, 3)) == 0:
            exchange = replace(exchange, end=draw(st.sampled_from(("closes", "resets", "leaves", "pipelines"))))
        if draw(st.integers(0, 4)) == 0:
            exchange = replace(exchange, pause=draw(st.sampled_from((0.004, 0.11, 0.25))))
        if draw(st.integers(0, 4)) == 0:
            exchange = replace(exchange, client=1)
        run += [exchange] * draw(st.integers(1, 3))
    return run


def _without_lane(*_: Any) -> None:
    return None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(_PLAIN, _PLAIN, configurations()), st.sampled_from(REMOTES), runs())
def test_the_lane_changes_nothing(config: dict[str, Any], remote: str, sent: list[Exchange]) -> None:
    _compare(config, remote, sent)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(CONFIGURATIONS),
    st.sampled_from(REMOTES),
    runs(
        st.sampled_from((_SERVICE_CALL, _POST.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer abc.def\r\n\r\n"))).map(
            lambda request: Exchange(request.replace(b"Bearer abc.def", GOOD), (_ANSWER,))
        ),
        (*_CHANGES, *_TOKEN_CHANGES, *_TOKEN_CHANGES),
    ),
)
def test_the_lane_changes_nothing_of_what_filters_change(
    config: dict[str, Any], remote: str, sent: list[Exchange]
) -> None:
    _compare(config, remote, sent)


def _compare(config: dict[str, Any], remote: str, sent: list[Exchange]) -> None:
    found = outcome(config, remote, sent, whole, whole)
    with mock.patch.object(MemoryStack, "express_lane", _without_lane):
        expected = outcome(config, remote, sent, whole, whole)
    seen = differences(expected, found)
    assert not seen, "\n".join(seen)
