"""The express lane changes nothing where HTTP/2 is spoken, by clients, by hosts or by both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sidecar.codec import http2_frames as frame
from tests.sidecar.express.changing import CONFIGURATIONS, GOOD, TOKENS
from tests.sidecar.express.http2_run import Deed, Peers, outcome, with_http2_hosts
from tests.sidecar.http.exchanges import REMOTES, configurations, plain_configurations
from tests.sidecar.http.http2_peer import Field, PeerEncoder
from tests.sidecar.http.running import TO_UP, bootstrap, http_filter
from tests.sidecar.http.ways import differences

# what heads take depends on how they are expressed, and that may differ
_LENGTHS = (b"%DOWNSTREAM_HEADER_BYTES_SENT%",)

_RETRIES: dict[str, Any] = {
    "retry_on": "5xx,reset,refused-stream,connect-failure,retriable-status-codes,cancelled,unavailable",
    "retriable_status_codes": [404],
    "num_retries": 2,
}
_PLAIN = (
    bootstrap(),
    bootstrap(manager={"access_log": []}),
    bootstrap(routes=[{**TO_UP, "route": {"cluster": "up", "timeout": "0.2s"}}]),
    bootstrap(
        manager={"use_remote_address": True, "normalize_path": True},
        routes=[{**TO_UP, "route": {"cluster": "up", "timeout": "0s", "retry_policy": _RETRIES}}],
    ),
    bootstrap(
        routes=[{**TO_UP, "route": {"cluster": "up", "retry_policy": {**_RETRIES, "per_try_timeout": "0.1s"}}}],
        clusters={"up": {"outlier_detection": {"consecutive_5xx": 2}}},
        listener={"per_connection_buffer_limit_bytes": 2000},
    ),
    bootstrap(
        routes=[
            {
                "match": {"prefix": "/", "headers": [{"name": "x-request-id", "string_match": {"suffix": "3"}}]},
                "route": {"cluster": "v2"},
            },
            {
                **TO_UP,
                "route": {
                    "weighted_clusters": {"clusters": [{"name": "up", "weight": 60}, {"name": "v2", "weight": 40}]},
                    "retry_policy": _RETRIES,
                },
            },
        ],
        clusters={"up": {}, "v2": {"lb_policy": "LEAST_REQUEST", "outlier_detection": {"consecutive_5xx": 2}}},
    ),
    bootstrap(
        filters=[
            http_filter(
                "local_ratelimit.v3.LocalRateLimit",
                stat_prefix="limit",
                token_bucket={"max_tokens": 7, "tokens_per_fill": 1, "fill_interval": "1s"},
                filter_enabled={"default_value": {"numerator": 100}},
                filter_enforced={"default_value": {"numerator": 100}},
            )
        ],
        clusters={"up": {"circuit_breakers": {"thresholds": [{"max_requests": 2, "max_connections": 1}]}}},
    ),
    bootstrap(manager={"common_http_protocol_options": {"idle_timeout": "0.3s", "max_stream_duration": "0.2s"}}),
    bootstrap(manager={"common_http_protocol_options": {"max_connection_duration": "0.3s"}, "drain_timeout": "0.1s"}),
    bootstrap(manager={"stream_idle_timeout": "0.1s", "request_timeout": "0.2s", "via": "mesh"}),
)
_SMALL = {"initial_stream_window_size": 65535, "initial_connection_window_size": 65535}
_UNLOGGED = (
    bootstrap(manager={"access_log": []}),
    bootstrap(manager={"access_log": []}, clusters={"up": {"outlier_detection": {"consecutive_5xx": 2}}}),
)
_HTTP2: tuple[dict[str, Any], ...] = (
    {}, {}, {}, _SMALL, {"max_concurrent_streams": 1}, {"max_concurrent_streams": 2}, {"hpack_table_size": 0},
    {**_SMALL, "hpack_table_size": 200}, {"override_stream_error_on_invalid_http_message": True},
    {"connection_keepalive": {"interval": "0.2s", "timeout": "0.1s"}},
)  # fmt: skip
_ROUTERS: tuple[dict[str, Any], ...] = ({}, {}, {}, {}, {"suppress_envoy_headers": True}, {"start_child_span": False})

_TRACED: tuple[Field, ...] = (
    (b"user-agent", b"orders/2.31.0"),
    (b"accept", b"*/*"),
    (b"authorization", b"Bearer abc.def"),
    (b"x-request-id", b"7f3d2c1b-1111-2222-3333-000000000000"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb2100000001-b7ad6b7169203331-01"),
    (b"cookie", b"a=b; c=d"),
    (b"x-user", b"u0"),
)


def _request(method: bytes, path: bytes, *fields: Field) -> tuple[Field, ...]:
    return ((b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"a:8000"), *fields)


_JSON = (b"content-type", b"application/json")
_GRPC = ((b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"user-agent", b"grpc-python/1.60"))
_REQUESTS = (
    (_request(b"GET", b"/items/0"), "none"),
    (_request(b"GET", b"/items/0", *_TRACED), "none"),
    (_request(b"DELETE", b"/items/0", *_TRACED), "none"),
    (_request(b"HEAD", b"/items/0"), "none"),
    (_request(b"POST", b"/items", *_TRACED, _JSON, (b"content-length", b"")), "whole"),
    (_request(b"PUT", b"/items", _JSON), "whole"),
    (_request(b"POST", b"/shop.Items/Get", *_GRPC, (b"grpc-timeout", b"1S")), "whole"),
    (_request(b"POST", b"/shop.Items/Get", *_GRPC, *_TRACED[2:5]), "whole"),
)
_WITH_TOKEN: tuple[Field, ...] = (*_TRACED[:2], (b"authorization", GOOD), *_TRACED[3:])
_REQUESTS_WITH_TOKEN = (
    (_request(b"GET", b"/items/0", *_WITH_TOKEN), "none"),
    (_request(b"POST", b"/items", *_WITH_TOKEN, _JSON, (b"content-length", b"")), "whole"),
    (_request(b"PUT", b"/items", (b"authorization", GOOD), _JSON), "whole"),
    (_request(b"POST", b"/shop.Items/Get", *_GRPC, *_WITH_TOKEN[2:5]), "whole"),
)
_BODIES = (
    "whole", "whole", "pieces", "padded", "empty end", "trailers", "ends unavailable", "unfinished", "separate", "later",
)  # fmt: skip
_SIZES = (0, 1, 5, 14, 500, 3000, 20000, 60000)

Change = tuple[bytes, bytes | None, bytes]
"""The name of a field, its new value (None: it is left out), and another field to add behind it."""

_CHANGES: tuple[tuple[bytes, bytes | None], ...] = (
    (b":path", b"/items/1?x=%20y"), (b":path", b"/items/%2e/x"), (b":path", b"//items/../0"), (b":path", b"/items/\xff"),
    (b":path", b"/" + b"p" * 200), (b":path", b"/gone"), (b":path", b"/items#x"), (b":path", b"/items/2"),
    (b":authority", b"b"), (b":scheme", b"https"), (b":method", b"PATCH"), (b":method", b"OPTIONS"),
    (b"authorization", b"Bearer abc.deg"), (b"authorization", b""), (b"authorization", None),
    (b"authorization", b"Bearer " + b"t" * 9000), (b"x-request-id", b"7f3d2c1b-1111-2222-3333-000000000003"),
    (b"x-request-id", b""), (b"x-request-id", b"\xe9 \t1"), (b"x-request-id", None), (b"traceparent", b"00-1-2-3"),
    (b"traceparent", None), (b"cookie", b"a=b; c=e"), (b"cookie", b""), (b"cookie", b"a=b;c d"), (b"x-user", b"u1"),
    (b"x-user", b"u2"), (b"x-user", b"u3" * 300), (b"user-agent", b"orders/2.32.0"), (b"user-agent", None),
    (b"content-length", b"7"), (b"grpc-timeout", b"100m"), (b"grpc-timeout", None), (b"te", None),
)  # fmt: skip
_TOKEN_CHANGES = tuple((b"authorization", one) for one in (*TOKENS, GOOD[:-1] + b"_", b"Bearer x"))
_ADDED: tuple[tuple[Field, ...], ...] = (
    ((b"cookie", b"crumb=1"),), ((b"cookie", b"crumb=1"), (b"cookie", b"crumb=2")), ((b"x-user", b"twice"),),
    ((b"x-more", b"1"),), ((b"x-envoy-upstream-rq-timeout-ms", b"50"),), ((b"x-envoy-max-retries", b"1"),),
    ((b"x-forwarded-for", b"1.2.3.4"),), ((b"x-forwarded-for", b"1.2.3.5"),), ((b"x-forwarded-proto", b"https"),),
    ((b"host", b"other"),), ((b"expect", b"100-continue"),), ((b"x-fault", b"1"),), ((b"x-deny", b"1"),),
    ((b"x-tenant", b"t"),), ((b"under_score", b"1"),), ((b"x-request-id", b"second"),), ((b"te", b"trailers"),),
    ((b"content-length", b""),), ((b"baggage", b"k=v"),), ((b"x-envoy-internal", b"true"),), ((b"priority", b"u=1"),),
    ((b"x-wait", b"1"),), ((b"x-answer", b"1"),), ((b"x-cluster", b"v2"),), ((b"accept-encoding", b"gzip"),),
)  # fmt: skip


def _response(status: bytes, *fields: Field) -> tuple[Field, ...]:
    return ((b":status", status), *fields)


_DATE = (b"date", b"Sun, 22 Nov 2026 19:15:52 GMT")
_RESPONSES = (
    (
        _response(
            b"200", (b"server", b"nginx/1.22.1"), _DATE, (b"content-type", b"text/plain"), (b"content-length", b"")
        ),
        "whole",
    ),
    (_response(b"200", (b"content-length", b""), (b"x-served-by", b"h0"), (b"etag", b'"a"')), "whole"),
    (_response(b"200", (b"content-type", b"application/grpc"), (b"grpc-encoding", b"identity")), "trailers"),
    (_response(b"404", _DATE, (b"content-type", b"text/plain"), (b"set-cookie", b"a=b")), "whole"),
    (_response(b"200", (b"x-envoy-upstream-service-time", b"99"), _DATE), "pieces"),
    (_response(b"200", (b"x-envoy-upstream-service-time", b"9"), (b"content-length", b""), (b"etag", b'"a"')), "whole"),
)
_ENDS_OF_CALLS = tuple(
    (_response(b"200", (b"content-type", b"application/grpc")), end)
    for end in ("trailers", "ends not found", "ends unavailable", "ends unavailable", "ends without a status")
)
_ANSWERS: tuple[tuple[Field, ...], ...] = (
    _response(b"200", (b"content-type", b"application/grpc"), (b"grpc-status", b"14"), (b"grpc-message", b"no")),
    _response(b"204"), _response(b"304", (b"etag", b'"a"')), _response(b"503"), _response(b"500", (b"content-length", b"")),
    _response(b"302", (b"location", b"http://a/b")), _response(b"200", (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")),
    _response(b"200", (b"x-envoy-overloaded", b"true")), _response(b"429", (b"x-internal", b"secret")), _response(b"502"),
)  # fmt: skip
_ANSWER_CHANGES: tuple[tuple[bytes, bytes | None], ...] = (
    (b"date", b"Sun, 22 Nov 2026 19:15:53 GMT"), (b"date", b""), (b"date", None), (b"server", b"nginx/1.23"), (b"etag", b'"b"'),
    (b"etag", b""), (b"x-served-by", b"h1"), (b"x-served-by", b"h2"), (b"x-served-by", None), (b"set-cookie", b"a=c"),
    (b":status", b"201"), (b":status", b"404"), (b":status", b"503"), (b":status", b"204"), (b"content-length", b"3"),
    (b"content-length", None), (b"content-type", b"text/html"), (b"etag", b"t" * 9000), (b"server", b"\xff x"),
    (b"x-envoy-upstream-service-time", b"1"), (b"x-envoy-upstream-service-time", b"250"),
    (b"x-envoy-upstream-service-time", b""), (b"x-envoy-upstream-service-time", b"a b"),
    (b"x-envoy-upstream-service-time", None),
)  # fmt: skip


def _changed(draw: st.DrawFn, fields: tuple[Field, ...], changes: Any) -> tuple[Field, ...]:
    own = [change for change in changes if any(change[0] == name for name, _ in fields)]
    if not own:
        return fields
    name, value = draw(st.sampled_from(own))
    return tuple((one, value if one == name else old) for one, old in fields if one != name or value is not None)


_EVENTS = (
    Deed("cancel"), Deed("cancel", size=1), Deed("host_resets"), Deed("host_resets", size=2), Deed("host_resets", size=5),
    Deed("host_resets", size=7), Deed("host_goes_away"), Deed("host_goes_away", size=1), Deed("host_leaves"),
    Deed("host_leaves", size=1), Deed("client_leaves"), Deed("client_leaves", size=1), Deed("client_leaves", size=2),
    Deed("give_back"), Deed("give_back", size=1), Deed("give_back", size=1), Deed("ping"), Deed("clog"), Deed("unclog"),
    Deed("resize"), Deed("resize", size=1), Deed("resize", size=2), Deed("wait", size=4), Deed("wait", size=110),
    Deed("wait", size=250), Deed("wait", size=1200),
)  # fmt: skip


_USUAL = ("ask",) * 5 + ("answer",) * 5 + ("more",)
_UNUSUAL = ("event", "event", "more", "settings")


@st.composite
def runs(
    draw: st.DrawFn, requests: Any = _REQUESTS, changes: Any = _CHANGES, responses: Any = _RESPONSES
) -> list[Deed]:
    """Exchanges of one or two kinds, often enough for the lane to know them, then everything that can come in between."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(requests), st.sampled_from(responses)), min_size=1, max_size=2))
    run: list[Deed] = []
    for (fields, body), (answer, answer_body) in kinds:
        for _ in range(draw(st.integers(3, 7))):
            run += [Deed("ask", 0, 0, fields, body, 14), Deed("answer", 0, 0, answer, answer_body, 5)]
    odd = draw(st.sampled_from((1, 2, 4)))  # how much is out of the ordinary
    for _ in range(draw(st.integers(6, 40))):
        (fields, body), (answer, answer_body) = draw(st.sampled_from(kinds))
        what = draw(st.sampled_from((*_USUAL, *_UNUSUAL[:odd])))
        who, which = draw(st.integers(0, 2)), draw(st.sampled_from((0, 0, 0, 1, 2)))
        size = draw(st.sampled_from(_SIZES))
        held = draw(st.integers(0, 7)) == 0
        if what == "ask":
            for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
                fields = _changed(draw, fields, changes)
            if draw(st.integers(0, 9)) == 0:
                fields = (*fields, *draw(st.sampled_from(_ADDED)))
            if body != "none" and draw(st.booleans()):
                body = draw(st.sampled_from(_BODIES))
            elif draw(st.integers(0, 12)) == 0:
                body = "whole"
            run.append(Deed("ask", who, 0, fields, body, size, held))
        elif what == "answer":
            if draw(st.integers(0, 2)) == 0:
                answer = _changed(draw, answer, _ANSWER_CHANGES)
            if draw(st.integers(0, 9)) == 0:
                answer = draw(st.sampled_from(_ANSWERS))
                answer_body = draw(st.sampled_from(("none", "whole")))
            elif draw(st.integers(0, 2)) == 0:
                answer_body = draw(st.sampled_from((*_BODIES, "interim first", "none")))
            if draw(st.integers(0, 19)) == 0:
                size = 300_000
            run.append(Deed("answer", 0, which, answer, answer_body, size, held))
        elif what == "more":
            kind = draw(st.sampled_from(("more", "more_of_answer", "more_of_answer")))
            run.append(Deed(kind, who, which, (), draw(st.sampled_from(_BODIES)), size, held))
        elif what == "settings":
            run.append(Deed("settings", draw(st.integers(0, 4)), which, size=draw(st.integers(0, 4)), held=held))
        else:
            deed = draw(st.sampled_from(_EVENTS))
            run.append(replace(deed, who=draw(st.integers(0, 4)), which=which, held=held))
    return run


_STYLES = st.sampled_from(PeerEncoder.STYLES)
_BEGINNINGS = st.sampled_from(
    (
        (), (), (), ((frame.INITIAL_WINDOW_SIZE, 1000),), ((frame.HEADER_TABLE_SIZE, 0),), ((frame.HEADER_TABLE_SIZE, 300),),
        ((frame.MAX_CONCURRENT_STREAMS, 2),), ((frame.HEADER_TABLE_SIZE, 65536), (frame.INITIAL_WINDOW_SIZE, 1 << 20)),
    )
)  # fmt: skip


@st.composite
def peers(draw: st.DrawFn) -> Peers:
    """Two clients and their hosts; one side at least speaks HTTP/2."""
    way = draw(st.sampled_from(("2 to 2", "2 to 2", "2 to 1", "1 to 2")))
    one = None if way.startswith("1") else draw(_STYLES)
    other = None if way.startswith("1") or draw(st.integers(0, 5)) == 0 else draw(_STYLES)
    host = None if way.endswith("1") else draw(_STYLES)
    return Peers((one, other), host, draw(_BEGINNINGS), draw(_BEGINNINGS), draw(st.integers(0, 3)) > 0)


@st.composite
def settings_of(draw: st.DrawFn, configurations: st.SearchStrategy[dict[str, Any]]) -> tuple[dict[str, Any], Peers]:
    """A configuration with peers that it is made for."""
    who = draw(peers())
    config = draw(configurations)
    if who.host is not None:
        config = with_http2_hosts(config, draw(st.sampled_from(_HTTP2)))
    text = orjson.dumps(config)
    for length in _LENGTHS:
        text = text.replace(length, b"-")
    config = orjson.loads(text)
    small = draw(st.sampled_from(_HTTP2))
    (http,) = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    http["typed_config"].setdefault("http2_protocol_options", {}).update(small)
    http["typed_config"]["http_filters"][-1]["typed_config"].update(draw(st.sampled_from(_ROUTERS)))
    return config, who


_ANY_CONFIGURATION = st.one_of(
    st.sampled_from(_PLAIN), st.sampled_from(_PLAIN), plain_configurations(), configurations()
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(settings_of(_ANY_CONFIGURATION), st.sampled_from(REMOTES), runs())
def test_the_lane_changes_nothing(given: tuple[dict[str, Any], Peers], remote: str, deeds: list[Deed]) -> None:
    _compare(given, remote, deeds)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    settings_of(st.sampled_from(CONFIGURATIONS)),
    st.sampled_from(REMOTES),
    runs(_REQUESTS_WITH_TOKEN, (*_CHANGES, *_TOKEN_CHANGES, *_TOKEN_CHANGES)),
)
def test_the_lane_changes_nothing_of_what_filters_change(
    given: tuple[dict[str, Any], Peers], remote: str, deeds: list[Deed]
) -> None:
    _compare(given, remote, deeds)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    settings_of(st.sampled_from(_UNLOGGED)),
    st.sampled_from(REMOTES),
    runs(_REQUESTS[-2:], responses=_ENDS_OF_CALLS),
)
def test_the_lane_changes_nothing_of_calls_that_nobody_logs(
    given: tuple[dict[str, Any], Peers], remote: str, deeds: list[Deed]
) -> None:
    """What hosts are counted to have done comes from the trailers, and is compared with the rest of the pools."""
    _compare(given, remote, deeds)


def _compare(given: tuple[dict[str, Any], Peers], remote: str, deeds: list[Deed]) -> None:
    config, who = given
    found = outcome(config, remote, who, deeds, lane=True)
    expected = outcome(config, remote, who, deeds, lane=False)
    event(f"{'HTTP/1' if who.clients[0] is None else 'HTTP/2'} to {'HTTP/1' if who.host is None else 'HTTP/2'}")
    seen = differences(expected, found)
    assert not seen, "\n".join(seen)
