"""Exchanges that hypothesis makes up: configurations, requests, answers, and the ways in which their bytes may arrive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from sidecar.core import response_flags as flag
from sidecar.core.http_filter import PAUSE, HttpFilter
from tests.sidecar.http.running import LOG, LOG_FORMAT, TO_UP, bootstrap, http_filter, log_to, user_filter

REMOTES = ("127.0.0.1", "10.1.2.3", "203.0.113.9")

# what logs can say, without what depends on how chunks were cut
OPERATORS = (
    "START_TIME", "START_TIME(%s.%3f)", "REQ(:METHOD)", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", "REQ(:AUTHORITY)", "REQ(:SCHEME)",
    "REQ(USER-AGENT)", "REQ(X-REQUEST-ID)", "REQ(X-FORWARDED-FOR)", "REQ(X-MISSING)", "REQ(COOKIE):5", "RESP(SERVER)",
    "RESP(SET-COOKIE)", "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)", "RESP(CONTENT-TYPE)", "RESP(CONTENT-LENGTH)",
    "TRAILER(X-SUM)", "PROTOCOL", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG",
    "BYTES_RECEIVED", "BYTES_SENT", "DURATION", "REQUEST_DURATION", "REQUEST_TX_DURATION", "RESPONSE_DURATION",
    "RESPONSE_TX_DURATION", "ROUNDTRIP_DURATION", "UPSTREAM_HOST", "UPSTREAM_CLUSTER", "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_CONNECTION_ID", "CONNECTION_ID",
    "DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED", "DOWNSTREAM_HEADER_BYTES_SENT", "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_PROTOCOL", "ROUTE_NAME", "VIRTUAL_CLUSTER_NAME", "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "CONNECTION_TERMINATION_DETAILS", "DYNAMIC_METADATA(mine:who)", "COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)",
    "COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)", "COMMON_DURATION(DS_RX_END:US_RX_END:ms)", "ACCESS_LOG_TYPE", "STREAM_ID",
    "TRACE_ID", "LOCAL_REPLY_BODY",
)  # fmt: skip


def _of_status(least: int) -> dict[str, Any]:
    return {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": least, "runtime_key": "x"}}}}


def _logs() -> list[dict[str, Any]]:
    texts = {"text_format_source": {"inline_string": " ".join(f"%{one}%" for one in OPERATORS) + "\n"}}
    json = {"json_format": {f"field_{number}": f"%{one}%" for number, one in enumerate(OPERATORS)}}
    failures = {"filter": _of_status(400)}
    return [
        log_to("/all.txt", texts),
        log_to("/all.json", json),
        log_to("/failures", json, **failures),
        log_to(LOG, {"text_format_source": {"inline_string": LOG_FORMAT}}),
    ]


class Marker(HttpFilter):
    """Touches every head, and pauses what asks for it; the test resumes nothing, so time does."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def on_request(self, stream: Any, end: bool) -> bool | None:
        stream.request.set(b"x-seen", b"%d" % end)
        stream.dynamic_metadata = {"mine": {"who": "marker"}}
        if stream.request.get(b"x-answer"):
            return bool(stream.reply(418, b"short", details="marker"))
        if stream.request.path == b"/?":  # without pausing it, what no other request may inherit
            stream.response_flags |= flag.FAULT_INJECTED
            stream.filter_state = {"mine": "state"}
            stream.call_in(0.2, lambda: stream.reply(599, details="marker_lost_patience"))
        if stream.request.get(b"x-wait"):
            stream.call_in(0.01, stream.resume_request)
            return PAUSE
        return None

    def on_complete(self, stream: Any) -> None:
        stream.dynamic_metadata = None


class ResponseMarker(Marker):
    """The same for responses."""

    def on_response(self, stream: Any, end: bool) -> bool | None:
        stream.response.set(b"x-marked", b"%d" % stream.response.status)
        return None


USER_FILTERS = {"marker": Marker, "response_marker": ResponseMarker}

_FRACTION = {"numerator": 100, "denominator": "HUNDRED"}
_PER_ROUTE: dict[str, dict[str, Any]] = {
    "none": {},
    "fault": {
        "fault": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"http_status": 503, "percentage": _FRACTION},
            "headers": [{"name": "x-fault", "present_match": True}],
        }
    },
    "mutation": {
        "header_mutation": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
            "mutations": {"response_mutations": [{"append": {"header": {"key": "x-own", "value": "%RESPONSE_CODE%"}}}]},
        }
    },
    "disabled": {"rbac": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}},
}
_FILTERS = {
    "fault": http_filter(
        "fault.v3.HTTPFault",
        abort={"http_status": 418, "percentage": {"numerator": 30, "denominator": "HUNDRED"}},
        headers=[{"name": "x-fault", "present_match": True}],
    ),
    "delay": {
        **http_filter(
            "fault.v3.HTTPFault",
            delay={"fixed_delay": "0.003s", "percentage": {"numerator": 50, "denominator": "HUNDRED"}},
        ),
        "name": "delay",
    },
    "rbac": http_filter(
        "rbac.v3.RBAC",
        rules={
            "action": "DENY",
            "policies": {
                "no": {
                    "permissions": [
                        {"header": {"name": "x-deny", "present_match": True}},
                        {"url_path": {"path": {"prefix": "/no"}}},
                    ],
                    "principals": [{"any": True}],
                }
            },
        },
        shadow_rules={
            "action": "ALLOW",
            "policies": {
                "get": {
                    "permissions": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}],
                    "principals": [{"remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}],
                }
            },
        },
    ),
    "local_ratelimit": http_filter(
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        token_bucket={"max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "0.1s"},
        filter_enabled={"default_value": _FRACTION},
        filter_enforced={"default_value": _FRACTION},
        response_headers_to_add=[{"header": {"key": "x-limited", "value": "%REQ(:PATH)%"}}],
    ),
    "wide_ratelimit": http_filter(
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        token_bucket={"max_tokens": 9, "tokens_per_fill": 1, "fill_interval": "0.5s"},
        filter_enabled={"default_value": _FRACTION},
        filter_enforced={"default_value": _FRACTION},
    ),
    "header_mutation": http_filter(
        "header_mutation.v3.HeaderMutation",
        mutations={
            "request_mutations": [{"remove": "x-tenant"}, {"append": {"header": {"key": "x-path", "value": "%REQ(:PATH)%"}}}],
            "response_mutations": [{"remove": "x-internal"}],
        },
    ),
    "cors": http_filter("cors.v3.Cors"),
    "buffer": http_filter("buffer.v3.Buffer", max_request_bytes=6000),
    "marker": user_filter("marker"),
    "response_marker": user_filter("response_marker"),
}  # fmt: skip


Part = tuple[dict[str, Any], ...]
"""Settings of which at most one is made."""


@st.composite
def _merged(draw: st.DrawFn, *parts: Part) -> dict[str, Any]:
    """One setting each of some of the parts: of none as often as of any, for what is plain takes other ways than what
    is not."""
    count = draw(st.sampled_from((0, 0, 0, 1, 2, len(parts) // 2)))
    chosen = draw(st.permutations(parts))[:count]
    merged: dict[str, Any] = {}
    for part in chosen:
        for name, value in draw(st.sampled_from(part)).items():
            merged[name] = {**merged[name], **value} if isinstance(value, dict) and name in merged else value
    return merged


_MANAGERS = _merged(
    (
        {"use_remote_address": True},
        {"xff_num_trusted_hops": 1},
        {"use_remote_address": True, "xff_num_trusted_hops": 1},
    ),
    ({"skip_xff_append": True},),
    ({"via": "mesh"},),
    (
        {"server_header_transformation": "APPEND_IF_ABSENT"},
        {"server_header_transformation": "PASS_THROUGH"},
        {"server_name": "mizzen"},
    ),
    (
        {"http_protocol_options": {"header_key_format": {"proper_case_words": {}}}},
        {
            "http_protocol_options": {
                "header_key_format": {
                    "stateful_formatter": {
                        "name": "preserve_case",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3"
                            ".PreserveCaseFormatterConfig"
                        },
                    }
                }
            }
        },
        {"http_protocol_options": {"accept_http_10": True, "enable_trailers": True, "default_host_for_http_10": "old"}},
    ),
    (
        {"common_http_protocol_options": {"max_requests_per_connection": 2}},
        {"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}},
        {"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}},
        {"common_http_protocol_options": {"max_headers_count": 6}},
        {"common_http_protocol_options": {"max_stream_duration": "0.1s"}},
        {"max_request_headers_kb": 1},
        {"stream_idle_timeout": "0.2s"},
    ),
    (
        {"normalize_path": True},
        {"normalize_path": True, "merge_slashes": True},
        {"path_with_escaped_slashes_action": "REJECT_REQUEST"},
        {"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
        {"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT", "merge_slashes": True},
    ),
    (
        {"generate_request_id": False},
        {"always_set_request_id_in_response": True},
        {"preserve_external_request_id": True},
    ),
    ({"strip_any_host_port": True}, {"strip_matching_host_port": True},),
    ({"add_user_agent": True}, {"append_x_forwarded_port": True},),
    ({"internal_address_config": {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}},),
    ({"scheme_header_transformation": {"scheme_to_overwrite": "https"}}, {"proxy_100_continue": True},),
    ({"stream_idle_timeout": "0s"}, {"request_timeout": "3s", "request_headers_timeout": "2s"},),
    (
        {
            "local_reply_config": {
                "mappers": [
                    {
                        "filter": _of_status(500),
                        "headers_to_add": [{"header": {"key": "x-mapped", "value": "%RESPONSE_CODE_DETAILS%"}}],
                        "body_format_override": {"json_format": {"code": "%RESPONSE_CODE%", "path": "%REQ(:PATH)%"}},
                    }
                ]
            }
        },
    ),
    ({"access_log": _logs()}, {"access_log": _logs()},),
)  # fmt: skip

_TARGETS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    (
        {"cluster": "up"},
        {"cluster": "v1"},
        {"weighted_clusters": {"clusters": [{"name": "v1", "weight": 60}, {"name": "v2", "weight": 40}]}},
        {
            "weighted_clusters": {
                "clusters": [
                    {
                        "name": "v1",
                        "weight": 50,
                        "request_headers_to_add": [{"header": {"key": "x-chosen", "value": "v1"}}],
                        "response_headers_to_remove": ["x-internal"],
                    },
                    {"name": "v2", "weight": 50},
                ]
            }
        },
        {"cluster_header": "x-cluster"},
        {"cluster": "v2", "hash_policy": [{"header": {"header_name": "x-tenant"}}]},
    )
)
_ADDED_ACTIONS = _merged(
    (
        {"retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 2}},
        {"retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}},
        {
            "retry_policy": {
                "retry_on": "retriable-status-codes",
                "retriable_status_codes": [404],
                "num_retries": 1,
                "per_try_timeout": "0.5s",
                "retry_host_predicate": [
                    {
                        "name": "previous",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                        },
                    }
                ],
            }
        },
    ),
    ({"timeout": "0s"}, {"timeout": "5s"}, {"timeout": "0.2s"},),
    ({"prefix_rewrite": "/new/"}, {"regex_rewrite": {"pattern": {"regex": "^/api"}, "substitution": "/v2"}},),
    (
        {"host_rewrite_literal": "other.local"},
        {"host_rewrite_literal": "other.local", "append_x_forwarded_host": True},
        {"host_rewrite_header": "x-tenant"},
    ),
    ({"request_mirror_policies": [{"cluster": "mirror"}]},),
)  # fmt: skip
_MUTATIONS = _merged(
    (
        {
            "request_headers_to_add": [
                {"header": {"key": "x-from", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}
            ]
        },
        {
            "request_headers_to_add": [
                {"header": {"key": "x-tenant", "value": "set"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "accept", "value": "late"}, "append_action": "ADD_IF_ABSENT"},
            ]
        },
    ),
    ({"request_headers_to_remove": ["authorization", "x-fault"]},),
    (
        {"response_headers_to_add": [{"header": {"key": "set-cookie", "value": "added=%RESPONSE_CODE%"}}]},
        {
            "response_headers_to_add": [
                {"header": {"key": "server", "value": "mine"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            ]
        },
    ),
    ({"response_headers_to_remove": ["set-cookie", "x-internal"]},),
)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A bootstrap: options, filters, routes and clusters of many kinds, and few of each."""
    filters = draw(st.lists(st.sampled_from(sorted(_FILTERS)), unique=True, max_size=draw(st.sampled_from((0, 1, 3)))))
    per_route = _PER_ROUTE[draw(st.sampled_from(sorted(_PER_ROUTE)))]
    per_filter = {name: config for name, config in per_route.items() if name in filters}
    forward = {"match": {"prefix": "/"}, "route": {**draw(_TARGETS), **draw(_ADDED_ACTIONS)}, "name": "forward"}
    mutated = draw(st.sampled_from(("", "", "", "route", "host", "all")))
    if mutated in ("route", "all"):
        forward.update(draw(_MUTATIONS))
    if per_filter:
        forward["typed_per_filter_config"] = per_filter
    routes: list[dict[str, Any]] = [
        {"match": {"path": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "here"}}},
        {"match": {"prefix": "/gone"}, "redirect": {"path_redirect": "/there", "host_redirect": "else"}},
        {
            "match": {"prefix": "/api", "headers": [{"name": "x-canary", "string_match": {"exact": "always"}}]},
            "route": {"cluster": "v2"},
        },
        forward,
    ]
    if draw(st.booleans()):
        routes = [TO_UP]
    cluster: dict[str, Any] = draw(
        _merged(
            (
                {"lb_policy": "LEAST_REQUEST"},
                {"lb_policy": "RANDOM"},
                {"lb_policy": "RING_HASH"},
            ),
            (
                {
                    "circuit_breakers": {
                        "thresholds": [
                            {"max_requests": 1, "max_retries": 1, "max_connections": 1, "track_remaining": True}
                        ]
                    }
                },
            ),
            (
                {
                    "outlier_detection": {
                        "consecutive_5xx": 2,
                        "max_ejection_percent": 50,
                        "enforcing_consecutive_5xx": 100,
                    }
                },
            ),
            ({"per_connection_buffer_limit_bytes": 1024},),
            (
                {"common": {"max_requests_per_connection": 2}},
                {"common": {"idle_timeout": "1s"}},
                {"common": {"max_headers_count": 4}},
            ),
            (
                {"http1": {"header_key_format": {"proper_case_words": {}}}},
                {"http1": {"enable_trailers": True}},
            ),
        )
    )
    common, http1 = cluster.pop("common", {}), cluster.pop("http1", {})
    if common or http1:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                **({"common_http_protocol_options": common} if common else {}),
                "explicit_http_config": {"http_protocol_options": http1},
            }
        }
    virtual_host = draw(_MUTATIONS) if mutated in ("host", "all") else {}
    if draw(st.integers(0, 5)) == 5:
        virtual_host.update({"include_request_attempt_count": True, "include_attempt_count_in_response": True})
    return bootstrap(
        manager=draw(_MANAGERS),
        routes=routes,
        filters=[_FILTERS[name] for name in filters],
        virtual_host=virtual_host,
        route_configuration=draw(_MUTATIONS) if mutated == "all" else {},
        clusters=dict.fromkeys(("up", "v1", "v2", "mirror"), cluster),
        listener={"per_connection_buffer_limit_bytes": 8192} if draw(st.booleans()) else {},
    )


@st.composite
def plain_configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A bootstrap of a mesh: filters that let most requests pass, plain routes, and the options that services have."""
    chains = ("", "", "rbac", "rbac wide_ratelimit", "fault", "local_ratelimit", "delay")
    filters = draw(st.sampled_from(chains)).split()
    target = draw(st.sampled_from(("up", "v1", "weighted")))
    route: dict[str, Any] = {"cluster": target}
    if target == "weighted":
        clusters = [{"name": "v1", "weight": 60}, {"name": "v2", "weight": 40}]
        route = {"weighted_clusters": {"clusters": clusters}}
    if draw(st.booleans()):
        route["retry_policy"] = {
            "retry_on": draw(st.sampled_from(("5xx", "connect-failure", "reset"))),
            "num_retries": 2,
        }
    route |= draw(st.sampled_from(({}, {"timeout": "0s"}, {"timeout": "0.2s"})))
    breakers: dict[str, Any] = {"circuit_breakers": {"thresholds": [{"max_requests": 1, "max_connections": 1}]}}
    outliers: dict[str, Any] = {"outlier_detection": {"consecutive_5xx": 2, "enforcing_consecutive_5xx": 100}}
    cluster = draw(st.sampled_from(({}, {"lb_policy": "LEAST_REQUEST"}, breakers, outliers)))
    return bootstrap(
        manager={
            "use_remote_address": draw(st.booleans()),
            "generate_request_id": draw(st.booleans()),
            "preserve_external_request_id": draw(st.booleans()),
            "normalize_path": draw(st.booleans()),
            "access_log": _logs(),
            **draw(st.sampled_from(({}, {"via": "mesh"}, {"server_header_transformation": "PASS_THROUGH"}))),
        },
        routes=[{"match": {"prefix": "/"}, "route": route, "name": "forward"}],
        filters=[_FILTERS[name] for name in filters],
        clusters=dict.fromkeys(("up", "v1", "v2"), cluster),
    )


_PATHS = (
    b"/", b"/api/v1/items/17?expand=all", b"/api/v1/items/18", b"/?", b"/a?b=c&d", b"/%41%2f%2F", b"//double//", b"/a/../b/./c",
    b"/..", b"/no/entry", b"/direct", b"/gone/x?y", b"/a#b", b"http://a:8000/absolute?q", b"/x%00y", b"/\xc3\xa9",
    b"/" + b"l" * 300, b"*",
)  # fmt: skip
_METHODS = (b"GET", b"GET", b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"M-SEARCH")
_REQUEST_FIELDS = (
    b"User-Agent: orders/2.31.0", b"Accept: application/json", b"Accept-Encoding: gzip, deflate, br", b"accept: text/html",
    b"Authorization: Bearer abc.def.ghi", b"x-request-id: 7f3d2c1b-1111-2222-3333-000000000000", b"X-Tenant: acme",
    b"traceparent: 00-0af7651916cd43dd8448eb2100000001-b7ad6b7169203331-01", b"x-b3-sampled: 1", b"Cookie: a=b; c=d",
    b"Cookie: e=f", b"x-forwarded-for: 1.2.3.4", b"X-Forwarded-For: 10.0.0.1, 10.0.0.2", b"X-Forwarded-Proto: https",
    b"x-forwarded-proto: ftp", b"x-forwarded-host: h", b"x-envoy-internal: true", b"x-envoy-max-retries: 1",
    b"x-envoy-retry-on: 5xx", b"x-envoy-upstream-rq-timeout-ms: 700", b"x-envoy-upstream-rq-per-try-timeout-ms: 90",
    b"x-envoy-expected-rq-timeout-ms: 10", b"x-envoy-original-path: /o", b"x-envoy-decorator-operation: op",
    b"x-envoy-upstream-rq-timeout-alt-response: 1", b"x-envoy-external-address: 9.9.9.9", b"x-envoy-force-trace: yes",
    b"x-envoy-attempt-count: 7", b"x-envoy-upstream-alt-stat-name: s", b"Connection: close", b"connection: keep-alive",
    b"Connection: Keep-Alive, X-Tenant", b"CONNECTION: close, x-b3-sampled", b"Keep-Alive: timeout=5", b"TE: trailers",
    b"te: gzip", b"TE: trailers, deflate", b"Expect: 100-continue", b"expect: something", b"Upgrade: websocket",
    b"Upgrade: h2c", b"Connection: Upgrade", b"HTTP2-Settings: AAM", b"Proxy-Connection: keep-alive", b"Trailer: x-sum",
    b"Transfer-Encoding: identity", b"x-cluster: v1", b"x-cluster: missing", b"x-canary: always", b"x-deny: 1", b"x-fault: 1",
    b"x-answer: 1", b"x-wait: 1", b"X_Under_Score: 1", b"Origin: http://o", b"Via: 1.0 older", b"via:1.1 tight",
    b"X-Space:   lots\t  ", b"X-Empty:", b"X-Twice: 1", b"x-twice: 2", b"X-MIXED-Case: V", b"Content-Type: application/json",
    b"x-forwarded-client-cert: By=x", b"Bad Name: 1", b"x-high: \xff\xfe", b"Content-Length: 0", b"content-length: 3, 3",
    b"grpc-timeout: 1S", b"Content-Type: application/grpc", b"Max-Forwards: 1", b"Range: bytes=0-1", b"If-None-Match: x",
)  # fmt: skip
_SERVICE_CALL = _REQUEST_FIELDS[:9]


@dataclass(frozen=True)
class Exchange:
    """A request over the client's connection number ``client``, what the host answers, and how the exchange ends.

    The last of ``responses`` answers all repetitions. ``end`` is what happens besides: the host closes its connection
    behind the answer (``closes``) or resets it instead of answering (``resets``), the client leaves before the answer
    (``leaves``) or sends another request before it (``pipelines``), or nothing special.
    """

    request: bytes
    responses: tuple[bytes, ...]
    end: str = ""
    pause: float = 0.0  # seconds until the host answers
    client: int = 0

    @property
    def loose(self) -> bool:
        """Whether chunks may be in it, whose boundaries may differ."""
        return b"chunked" in self.request.lower() or any(
            b"chunked" in one.lower() or b"\r\ncontent-length: " not in one.lower() for one in self.responses
        )


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Plain requests mostly, and odd ones."""
    plain = draw(st.integers(0, 2))
    method = draw(st.sampled_from(_METHODS))
    path = draw(st.sampled_from(_PATHS)) if plain else _PATHS[draw(st.integers(0, 4))]
    version = b"HTTP/1.0" if plain == 2 and draw(st.integers(0, 4)) == 0 else b"HTTP/1.1"
    host = draw(st.sampled_from((b"Host: a", b"host: backend.local:8080", b"HOST:a:8000", b"Host: b.")))
    fields = [host, *(_SERVICE_CALL if draw(st.booleans()) else ())]
    fields += draw(st.lists(st.sampled_from(_REQUEST_FIELDS), max_size=(0, 2, 5)[plain]))
    body = b""
    if method in (b"POST", b"PUT", b"PATCH") or (plain == 2 and draw(st.integers(0, 9)) == 0):
        content = b"r" * draw(st.sampled_from((0, 1, 5, 200, 5000)))
        if plain and draw(st.booleans()):
            fields.append(b"Transfer-Encoding: chunked")
            size = draw(st.sampled_from((3, 100)))
            pieces = [content[at : at + size] for at in range(0, len(content), size)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"
            body += draw(st.sampled_from((b"", b"x-sum: 1\r\n"))) + b"\r\n"
        else:
            fields.append(b"Content-Length: %d" % len(content))
            body = content
    return b"%b %b %b\r\n" % (method, path, version) + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


_STATUSES = (200, 200, 200, 200, 201, 204, 302, 304, 400, 404, 429, 500, 503)
_RESPONSE_FIELDS = (
    b"Server: nginx/1.22.1", b"Date: Sun, 22 Nov 2026 19:15:52 GMT", b"Content-Type: text/plain", b"Connection: keep-alive",
    b"Connection: close", b"connection: X-Gone", b"X-Gone: 1", b"Keep-Alive: timeout=5", b"Set-Cookie: a=b", b"set-cookie: c=d",
    b"x-envoy-upstream-service-time: 99", b"X-Internal: secret", b"Via: 1.1 host", b"Proxy-Connection: close", b"X-Odd:   space ",
    b"X-Empty:", b"Upgrade: h2c", b"x-request-id: from-host", b"ETag: \"x\"", b"X-UPPER: V", b"x-high: \xff", b"Trailer: x-sum",
    b"x-envoy-overloaded: true", b"x-envoy-ratelimited: 1", b"Location: http://a/b", b"Bad Name: x", b"grpc-status: 14",
)  # fmt: skip


@st.composite
def responses(draw: st.DrawFn, method: bytes) -> bytes:
    """A response to ``method``: with a length mostly, or chunks, or until the end of the connection."""
    plain = draw(st.integers(0, 5)) > 0
    status = 200 if plain else draw(st.sampled_from(_STATUSES))
    fields = list(draw(st.lists(st.sampled_from(_RESPONSE_FIELDS[:3] if plain else _RESPONSE_FIELDS), max_size=5)))
    content = b"b" * draw(st.sampled_from((0, 1, 5, 83, 83, 3000, 40000)))
    kind = 0 if plain else draw(st.integers(0, 5))
    before = draw(
        st.sampled_from((b"", b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"))
    )
    if plain:
        before = b""
    if status in (204, 304) or method == b"HEAD":
        body = b""
        if method == b"HEAD" or (status == 304 and kind):
            fields.append(b"Content-Length: %d" % len(content))
    elif kind == 5:
        body = content  # until the connection ends
    elif kind == 4:
        fields.append(b"Transfer-Encoding: chunked")
        size = 1000
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"
        body += draw(st.sampled_from((b"", b"X-Sum: 2\r\n"))) + b"\r\n"
    else:
        fields.insert(draw(st.integers(0, len(fields))), b"Content-Length: %d" % len(content))
        body = content
    reason = draw(st.sampled_from((b" OK", b" Whatever It Is", b"")))
    version = b"HTTP/1.0" if not plain and draw(st.integers(0, 9)) == 0 else b"HTTP/1.1"
    lines = b"".join(one + b"\r\n" for one in fields)
    return before + b"%b %d%b\r\n%b\r\n%b" % (version, status, reason or b" ", lines, body)


_PAUSES = (0.0, 0.0, 0.004, 0.25)
_ENDS = ("", "", "", "", "", "closes", "resets", "leaves", "pipelines")


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """A request of any kind, up to two answers, and an end."""
    request = draw(requests())
    method = request.partition(b" ")[0]
    answers = tuple(draw(st.lists(responses(method), min_size=1, max_size=2)))
    open_ended = any(b"ength:" not in one and b"chunked" not in one for one in answers)
    return Exchange(
        request, answers, "closes" if open_ended else draw(st.sampled_from(_ENDS)), draw(st.sampled_from(_PAUSES))
    )


_PLAIN_RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 19:15:52 GMT\r\n%bContent-Length: 83\r\n\r\n"
    + b"b" * 83
)


@st.composite
def plain_calls(draw: st.DrawFn) -> list[Exchange]:
    """Many requests of one shape, with their answers of one shape, and here and there something else."""
    fields = (b"Host: a:8000", *draw(st.sampled_from((_SERVICE_CALL, _SERVICE_CALL[:4], _SERVICE_CALL[5:6], ()))))
    fields += draw(
        st.sampled_from(((), (b"Connection: keep-alive",), (b"x-forwarded-for: 1.2.3.4",), (b"X-Wide: %d",)))
    )
    answer = draw(st.sampled_from((b"", b"Connection: keep-alive\r\n", b"X-Kind: %d\r\nSet-Cookie: a=b\r\n")))
    made = []
    for number in range(draw(st.integers(6, 14))):
        lines = [field.replace(b"0000", b"%04d" % number).replace(b"%d", b"%04d" % (number // 3)) for field in fields]
        request = b"GET /items/%d HTTP/1.1\r\n" % number + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
        response = (_PLAIN_RESPONSE % answer.replace(b"%d", b"%04d" % (number // 4))).replace(
            b"15:52", b"15:%02d" % number
        )
        exchange = Exchange(request, (response,), pause=draw(st.sampled_from(_PAUSES)))
        odd = draw(st.integers(0, 20))
        if odd == 1:
            exchange = replace(exchange, request=_with_one_byte_changed(draw, request))
        elif odd == 2:
            exchange = replace(exchange, responses=(_with_one_byte_changed(draw, response),))
        elif odd == 3:
            exchange = replace(exchange, end=draw(st.sampled_from(_ENDS)))
        elif odd == 4:
            exchange = replace(exchange, responses=(draw(responses(b"GET")),))
        elif odd == 5:
            exchange = replace(exchange, request=request[:-2] + draw(st.sampled_from(_REQUEST_FIELDS)) + b"\r\n\r\n")
        elif odd == 6:
            exchange = draw(exchanges())
        made.append(exchange)
    return made


_WRONG_BYTES = tuple(bytes((code,)) for code in b' \t\x00\xff:%Aa09#\r\n,;"/.?_-')


def _with_one_byte_changed(draw: st.DrawFn, message: bytes) -> bytes:
    """The message with another byte somewhere in its head."""
    at = draw(st.integers(0, message.index(b"\r\n\r\n") + 3))
    if message[at] == 13:  # a line that ends in LF alone may have two faults, and which is named depends on the cut
        return message
    return message[:at] + draw(st.sampled_from(_WRONG_BYTES)) + message[at + 1 :]


@st.composite
def calls(draw: st.DrawFn) -> list[Exchange]:
    """What one service sends another: requests of few kinds, that differ in paths and ids, with answers of few kinds."""
    fields = [b"Host: a:8000", *draw(st.lists(st.sampled_from(_SERVICE_CALL), unique=True, max_size=9))]
    fields += draw(st.lists(st.sampled_from(_REQUEST_FIELDS), max_size=2)) if draw(st.integers(0, 2)) == 0 else []
    kinds = [fields, draw(st.permutations(fields))]
    delete = draw(st.integers(0, 4)) == 0
    answers = [draw(responses(b"GET")) for _ in range(2)]
    made = []
    for number in range(draw(st.integers(4, 12))):
        path = draw(st.sampled_from((b"/api/v1/items/%d" % number, b"/", b"/api/%d?q=%%20" % number, *_PATHS[:6])))
        method = b"DELETE" if delete and draw(st.booleans()) else b"GET"
        lines = [
            field.replace(b"0000", b"%04d" % number) if draw(st.booleans()) else field
            for field in kinds[draw(st.integers(0, 9)) == 0]
        ]
        request = b"%b %b HTTP/1.1\r\n" % (method, path) + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
        answer = answers[draw(st.integers(0, 5)) == 0].replace(b"19:15:52", b"19:15:%02d" % number)
        made.append(
            Exchange(
                request if draw(st.integers(0, 15)) else _with_one_byte_changed(draw, request),
                (answer if draw(st.integers(0, 15)) else _with_one_byte_changed(draw, answer),),
                draw(st.sampled_from(_ENDS)) if draw(st.integers(0, 4)) == 0 else "",
                draw(st.sampled_from(_PAUSES)),
                int(draw(st.integers(0, 9)) == 0),
            )
        )
    return made
