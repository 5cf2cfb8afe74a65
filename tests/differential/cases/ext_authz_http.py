"""The ext_authz filter with an HTTP service."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
)
from tests.differential.case import Close, Delay, ReadBody, Reply, Reset, Table, reply
from tests.differential.http2_case import http2_cluster

LOGGED_HERE = {**LOGGED, "told": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:x-told)%"}


def exact(*names: str) -> Message:
    return {"patterns": [{"exact": name} for name in names]}


def service(cluster: str = "c", timeout: str = "2s", **fields: Any) -> Message:
    return {"server_uri": {"uri": f"http://{cluster}.test/x", "cluster": cluster, "timeout": timeout}, **fields}


RESPONSE: Message = {
    "allowed_upstream_headers": {"patterns": [{"exact": "x-up"}, {"prefix": "x-both"}]},
    "allowed_upstream_headers_to_append": {"patterns": [{"exact": "x-more"}, {"prefix": "x-both"}]},
    "allowed_client_headers": exact("x-down", "x-told"),
    "allowed_client_headers_on_success": exact("x-fine", "set-cookie"),
    "dynamic_metadata_from_headers": exact("x-told"),
}
LISTENERS: dict[str, Message] = {
    "http": {},
    "prefix": {"http_service": service(path_prefix="/check")},
    "request": {
        "http_service": service(
            authorization_request={
                "allowed_headers": {"patterns": [{"prefix": "x-"}]},
                "headers_to_add": [
                    {"key": "X-Added", "value": "%REQ(x-one)% of %PROTOCOL%"},
                    {"key": "x-many", "value": "replaced"},
                ],
            }
        )
    },
    "allowed": {"allowed_headers": exact("x-one", "x-forwarded-for", "cookie", "content-type", "user-agent")},
    "not": {"allowed_headers": {"patterns": [{"prefix": "x-"}]}, "disallowed_headers": exact("x-one", "authorization")},
    "response": {"http_service": service(authorization_response=RESPONSE)},
    "response-clear": {"http_service": service(authorization_response=RESPONSE), "clear_route_cache": True},
    "allow": {"failure_mode_allow": True, "failure_mode_allow_header_add": True},
    "status": {"status_on_error": {"code": "ServiceUnavailable"}},
    "body": {"with_request_body": {"max_request_bytes": 10}},
    "partial": {"with_request_body": {"max_request_bytes": 10, "allow_partial_message": True}},
    "slow": {"http_service": service(timeout="0.2s")},
    "unreachable": {"http_service": service("refused")},
    "unreachable-allow": {"http_service": service("refused"), "failure_mode_allow": True},
    "http2": {"http_service": service("d2")},
    "retry": {"http_service": service(retry_policy={"retry_on": "5xx", "num_retries": 2,
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.02s"}})},
    "cut": {"max_denied_response_body_bytes": 4},
    "validate": {"validate_mutations": True},
}  # fmt: skip


def ext_authz_http(site: Site) -> Message:
    def settings(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("ext_authz", "ExtAuthzPerRoute", check_settings=fields)}

    routes = [
        route("/off", typed_per_filter_config=per_filter("ext_authz", "ExtAuthzPerRoute", disabled=True)),
        route("/extended", **settings(context_extensions={"who": "route"})),
        route("/elsewhere", **settings(http_service=service("b", path_prefix="/b",
            authorization_response={"allowed_upstream_headers": exact("x-up")}))),
        route("/by-grpc", **settings(grpc_service={"envoy_grpc": {"cluster_name": "d2"}, "timeout": "2s"})),
        route({"prefix": "/", "headers": [{"name": "x-up", "string_match": {"exact": "b"}}]}, "b"),
        route("/"),
    ]  # fmt: skip
    listeners = [
        listener(
            site,
            name,
            manager(
                site,
                routes,
                filters=[http_filter("ext_authz", "ExtAuthz", **{"http_service": service(), **fields})],
                access_log=[access_log(site, LOGGED_HERE)],
            ),
        )
        for name, fields in LISTENERS.items()
    ]
    return bootstrap(site, listeners, [http2_cluster(site, "d2", "d")])


BOOTSTRAPS = {"ext-authz-http": ext_authz_http}

table = Table("ext-authz-http", "ext-authz-http")
CASES = table.cases
FINE = reply(200)


def get(
    name: str, target: str = "/", answer: Reply | tuple[Reply, ...] = FINE, headers: Any = (), **fields: Any
) -> None:
    answers = answer if isinstance(answer, tuple) else (answer,)
    table.get(name, target, headers, upstream={"c": answers, "b": answers}, **fields)


MANY = [("X-One", "1"), ("x-many", "a"), ("x-many", "b"), ("Authorization", "Bearer x"), ("x-empty", ""),
        ("cookie", "a=1"), ("user-agent", "test"), ("content-type", "text/x"), ("x-forwarded-for", "10.0.0.1"),
        ("x-envoy-auth-partial-body", "client")]  # fmt: skip
TOLD = [("x-up", "b"), ("x-up", "c"), ("x-more", "m"), ("x-both", "1"), ("x-down", "d"), ("x-fine", "f"),
        ("x-told", "t"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-other", "o"), ("location", "/login"),
        ("www-authenticate", "Basic"), ("content-type", "text/own"),
        ("x-envoy-auth-headers-to-remove", "x-one, X-Gone ,,authorization")]  # fmt: skip
for _listener in LISTENERS:
    if "unreachable" not in _listener:
        get(f"asks-{_listener}", "/ask?q=1&r=2", headers=MANY, listener=_listener)
        get(f"asks-post-{_listener}", "/ask", headers=MANY, listener=_listener, method="POST", body=b"12345")
        get(f"denied-{_listener}", answer=reply(401, headers=TOLD), headers=MANY, listener=_listener)
        get(f"told-{_listener}", answer=reply(200, headers=TOLD), headers=[*MANY, ("x-gone", "1"), ("x-more", "old"),
            ("x-both", "old")], listener=_listener)  # fmt: skip
        get(f"fails-{_listener}", answer=reply(500, headers=TOLD), listener=_listener)
for _status in (201, 204, 301, 302, 304, 400, 403, 404, 429, 499, 500, 503, 599):
    get(
        f"status-{_status}", answer=reply(_status, headers=[("x-a", "1")], body=b"" if _status in (204, 304) else b"no")
    )
for _name in ("off", "extended", "elsewhere", "by-grpc"):
    get(f"route-{_name}", f"/{_name}", headers=MANY)
    get(f"route-{_name}-post", f"/{_name}", method="POST", body=b"12345")
for _listener in ("body", "partial"):
    for _size in (1, 10, 11, 500):
        get(f"body-{_listener}-{_size}", listener=_listener, method="POST", body=b"b" * _size)
    get(f"body-{_listener}-binary", listener=_listener, method="POST", body=b"\xff\xfe\x00ab")
get("denied-head", answer=reply(401, body=b""), method="HEAD")
get("denied-chunked", answer=reply(401, chunks=[b"not ", b"for you"]))
get("denied-without-length", answer=reply(401, length=False, then=(Close(),)))
get("denied-huge", answer=reply(401, body=b"x" * 500_000))
get("denied-empty", answer=reply(401, body=b""))
get(
    "denied-call",
    answer=reply(401, body=b"no"),
    method="POST",
    body=b"x",
    headers=[("content-type", "application/grpc")],
)
get("ok-with-body", answer=reply(200, body=b"fine"))
FAILS: dict[str, Reply] = {
    "closes": Reply((ReadBody(), Close())),
    "resets": Reply((ReadBody(), Reset())),
    "cut-short": Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Close())),
    "no-http": Reply((ReadBody(), b"what?\r\n\r\n", Close())),
}
for _name, _answer in FAILS.items():
    for _listener in ("http", "allow", "status"):
        get(f"{_name}-{_listener}", answer=_answer, listener=_listener, method="POST", body=b"x")
get("too-slow", answer=Reply((ReadBody(), Delay(3.0))), listener="slow")
get("slow", answer=reply(200, delay=0.1))
get("unreachable", listener="unreachable")
get("unreachable-allow", listener="unreachable-allow")
get("retries", answer=(reply(503), reply(503), reply(200)), listener="retry")
get("retries-in-vain", answer=(reply(503), reply(503), reply(503)), listener="retry")
for _name in ("a", "b"):
    table.get(f"counted-{_name}", f"/stats?filter=cluster.{_name}.ext_authz", listener="admin", access_log=False)
table.get("counted", "/stats?filter=http.ingress.ext_authz", listener="admin", access_log=False)
