"""Access logs: every operator in JSON and in text, typed values, and the filters that decide about a line."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    FILE_LOG,
    Message,
    Site,
    bootstrap,
    listener,
    manager,
    route,
    say,
    to,
    typed,
    virtual_host,
)
from tests.differential.case import Close, Delay, ReadBody, Reply, Table, reply, request

OPERATORS = {
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "start": "%START_TIME%",
    "start-seconds": "%START_TIME(%Y-%m-%dT%H:%M:%SZ)%",
    "any-start": "%START_TIME(%s)%",
    "any-start-milliseconds": "%START_TIME(%s%3f)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "path-cut": "%REQ(:PATH):5%",
    "authority": "%REQ(:AUTHORITY)%",
    "scheme": "%REQ(:SCHEME)%",
    "header": "%REQ(X-GIVEN)%",
    "missing": "%REQ(X-MISSING)%",
    "response-header": "%RESP(X-BACK)%",
    "response-missing": "%RESP(X-MISSING?X-BACK)%",
    "trailer": "%TRAILER(X-SUM)%",
    "protocol": "%PROTOCOL%",
    "upstream-protocol": "%UPSTREAM_PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "flags-long": "%RESPONSE_FLAGS_LONG%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "any-duration": "%DURATION%",
    "any-request-duration": "%REQUEST_DURATION%",
    "any-response-duration": "%RESPONSE_DURATION%",
    "any-transmit-duration": "%RESPONSE_TX_DURATION%",
    "any-common-duration": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%",
    "request-headers-bytes": "%REQUEST_HEADERS_BYTES%",
    "any-response-headers-bytes": "%RESPONSE_HEADERS_BYTES%",
    "response-trailers-bytes": "%RESPONSE_TRAILERS_BYTES%",
    "upstream-host": "%UPSTREAM_HOST%",
    "upstream-remote": "%UPSTREAM_REMOTE_ADDRESS%",
    "upstream-remote-port": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream-local": "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "upstream-cluster": "%UPSTREAM_CLUSTER%",
    "upstream-failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "any-wire-received": "%UPSTREAM_WIRE_BYTES_RECEIVED%",
    "any-wire-sent": "%UPSTREAM_WIRE_BYTES_SENT%",
    "any-downstream-wire-received": "%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
    "any-downstream-wire-sent": "%DOWNSTREAM_WIRE_BYTES_SENT%",
    "upstream-header-received": "%UPSTREAM_HEADER_BYTES_RECEIVED%",
    "any-downstream-header-received": "%DOWNSTREAM_HEADER_BYTES_RECEIVED%",
    "downstream-remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "downstream-local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream-local-without-port": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "downstream-local-port": "%DOWNSTREAM_LOCAL_PORT%",
    "any-connection": "%CONNECTION_ID%",
    "server-name": "%REQUESTED_SERVER_NAME%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
    "peer-subject": "%DOWNSTREAM_PEER_SUBJECT%",
    "route": "%ROUTE_NAME%",
    "virtual-cluster": "%VIRTUAL_CLUSTER_NAME%",
    "filter-chain": "%FILTER_CHAIN_NAME%",
    "log-type": "%ACCESS_LOG_TYPE%",
    "stream": "%STREAM_ID%",
    "body": "%LOCAL_REPLY_BODY%",
    "grpc": "%GRPC_STATUS%",
    "grpc-number": "%GRPC_STATUS_NUMBER%",
    "dynamic": "%DYNAMIC_METADATA(no.such:key)%",
    "route-metadata": "%METADATA(ROUTE:test.ns:key)%",
    "cluster-metadata": "%CLUSTER_METADATA(test.ns:key)%",
    "upstream-metadata": "%UPSTREAM_METADATA(test.ns:key)%",
    "filter-state": "%FILTER_STATE(no.such)%",
    "environment": "%ENVIRONMENT(MIZZEN_NO_SUCH_VARIABLE)%",
    "constant": "constant",
    "percent": "%%",
    "two": "%PROTOCOL% and %RESPONSE_CODE%",
}
TEXT = (
    '%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% [%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    '%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %REQ(X-GIVEN):4% %RESPONSE_CODE_DETAILS% 100%%\n'
)


def file_log(site: Site, log_format: Message, **fields: Any) -> Message:
    return (
        typed("envoy.access_loggers.file", FILE_LOG, path=str(site.directory / "access.log"), log_format=log_format)
        | fields
    )


FILTERS: dict[str, Message] = {
    "status": {
        "status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "none"}}}
    },
    "status-equal": {
        "status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 200, "runtime_key": "none"}}}
    },
    "duration": {
        "duration_filter": {"comparison": {"op": "GE", "value": {"default_value": 40, "runtime_key": "none"}}}
    },
    "not-health-check": {"not_health_check_filter": {}},
    "runtime-none": {"runtime_filter": {"runtime_key": "none", "percent_sampled": {"numerator": 0}}},
    "runtime-all": {"runtime_filter": {"runtime_key": "all", "percent_sampled": {"numerator": 100}}},
    "header": {"header_filter": {"header": {"name": "x-log", "string_match": {"exact": "yes"}}}},
    "flags": {"response_flag_filter": {"flags": ["UF", "UH"]}},
    "any-flag": {"response_flag_filter": {}},
    "grpc": {"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}},
    "grpc-excluded": {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}},
    "type": {"log_type_filter": {"types": ["TcpConnectionEnd"]}},
    "and": {
        "and_filter": {
            "filters": [
                {"header_filter": {"header": {"name": "x-log", "present_match": True}}},
                {"response_flag_filter": {}},
            ]
        }
    },
    "or": {
        "or_filter": {
            "filters": [
                {"header_filter": {"header": {"name": "x-log", "present_match": True}}},
                {"response_flag_filter": {}},
            ]
        }
    },
}


def access_logs(site: Site) -> Message:
    routes = [
        route("/named", to("a"), name="the-route", metadata={"filter_metadata": {"test.ns": {"key": "value"}}}),
        route("/refused", to("refused")),
        route("/empty", to("empty")),
        route("/rewritten", to("a", prefix_rewrite="/new")),
        route("/said", say(200, "said")),
        route("/timeout", to("a", timeout="0.05s")),
        route("/retried", to("a", retry_policy={"retry_on": "5xx", "num_retries": 1})),
        route("/", to("a")),
    ]
    hosts = [virtual_host("all", ["*"], routes)]
    deep = {
        "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
        "nested": {"code": "%RESPONSE_CODE%", "missing": "%REQ(X-MISSING)%", "list": ["%PROTOCOL%", "%BYTES_SENT%"]},
        "number": 7,
        "fraction": 1.5,
        "truth": True,
        "nothing": None,
        "mixed": "%RESPONSE_CODE%!",
        "metadata": "%METADATA(ROUTE:test.ns)%",
        "quoted": "%REQ(X-GIVEN)%",
    }
    logs = {
        "http": file_log(site, {"json_format": OPERATORS}),
        "text": file_log(site, {"text_format_source": {"inline_string": TEXT}}),
        "deep": file_log(site, {"json_format": deep}),
        "omitting": file_log(site, {"json_format": deep, "omit_empty_values": True}),
        "text-omitting": file_log(site, {"text_format_source": {"inline_string": TEXT}, "omit_empty_values": True}),
        **{
            f"filter-{name}": file_log(
                site, {"json_format": {"peer": OPERATORS["peer"], "code": "%RESPONSE_CODE%"}}, filter=one
            )
            for name, one in FILTERS.items()
        },
    }
    upstream_failures: Message = {"access_log_options": {"flush_access_log_on_new_request": True}}
    listeners = [listener(site, name, manager(site, hosts=hosts, access_log=[log])) for name, log in logs.items()]
    early = manager(site, hosts=hosts, access_log=[file_log(site, {"json_format": {**OPERATORS}})], **upstream_failures)
    return bootstrap(site, [*listeners, listener(site, "early", early)])


BOOTSTRAPS = {"access-logs": access_logs}

table = Table("access-logs", "access-logs")
CASES = table.cases

GIVEN = [("X-Given", 'quoted "value" \\ and more'), ("User-Agent", "curl/8"), ("X-Forwarded-For", "1.2.3.4")]
BACK = reply(headers=[("X-Back", "returned")])
for _listener in ("http", "text", "deep", "omitting", "text-omitting", "early"):
    table.get(f"get-{_listener}", "/named?x=1", GIVEN, listener=_listener, upstream=BACK)
    table.get(
        f"post-{_listener}", "/rewritten/x", GIVEN, method="POST", body=b"hello", listener=_listener, upstream=BACK
    )
    table.get(f"refused-{_listener}", "/refused", listener=_listener)
    table.get(f"said-{_listener}", "/said", listener=_listener)
table.get("head", "/", method="HEAD", upstream=BACK)
table.get("empty", "/empty")
table.get("timeout", "/timeout", upstream=Reply((ReadBody(), Delay(1.0))))
table.get("retried", "/retried", upstream=[reply(503), reply(200)])
table.get("retried-in-vain", "/retried", upstream=reply(503))
table.get("upstream-closes", "/", upstream=Reply((ReadBody(), Close())))
table.get(
    "upstream-closes-late",
    "/",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", Delay(0.02), Close())),
)
table.get("trailers", "/", upstream=reply(chunks=[b"one"], trailers=[("X-Sum", "1")]))
table.get("non-ascii", "/", [("X-Given", "caf\xe9")])
table.get("tab", "/", [("X-Given", "a\tb")], listener="text")
table.get(
    "grpc",
    "/",
    [("Content-Type", "application/grpc")],
    method="POST",
    body=b"x",
    upstream=reply(headers=[("grpc-status", "14")]),
)
table.get("no-route-host", "/", host="other.test", listener="text")
table.add("bad-request", b"GET / HTTP/1.1\r\n\r\n")
table.add("bad-request-text", b"nonsense\r\n\r\n", listener="text", methods=["GET"])
table.add("too-large", request("GET", "/", [("X-Large", "a" * 70_000)]), listener="text")
table.add("http-1-0", b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", listener="text")
for _name in FILTERS:
    _listener = f"filter-{_name}"
    table.get(f"{_listener}-good", "/", listener=_listener)
    table.get(f"{_listener}-header", "/", [("X-Log", "yes")], listener=_listener)
    table.get(f"{_listener}-refused", "/refused", [("X-Log", "no")], listener=_listener)
table.get("filter-status-404", "/", listener="filter-status", upstream=reply(404))
table.get("filter-duration-slow", "/", listener="filter-duration", upstream=reply(delay=0.06))
table.get("filter-health-check", "/", [("User-Agent", "Envoy/HC")], listener="filter-not-health-check")
table.get(
    "filter-grpc-unavailable",
    "/",
    [("Content-Type", "application/grpc")],
    listener="filter-grpc",
    method="POST",
    body=b"x",
    upstream=reply(headers=[("grpc-status", "14")]),
)
