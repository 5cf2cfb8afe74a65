"""The ext_authz filter: what a gRPC service is asked, and what becomes of a request by its answer, or without one."""

from __future__ import annotations

from typing import Any

from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from google.protobuf.json_format import ParseDict

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
    say,
    to,
    virtual_host,
)
from tests.differential.case import Delay, Pause, ReadBody, Reply, Table, request
from tests.differential.cases.ratelimit import ERRORS, HEAD, NEVER_ANSWERED, grpc
from tests.differential.http2_case import http2_cluster
from tests.differential.http2_steps import Body, Head

SERVICE: Message = {"envoy_grpc": {"cluster_name": "c"}, "timeout": "2s"}
NEVER: Message = {"default_value": {"numerator": 0}}
FLAG: Message = {"default_value": True, "runtime_key": "none"}
MARKED: Message = {
    "filter": "envoy.filters.http.rbac",
    "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
    "value": {"string_match": {"prefix": "istio-ext-authz"}},
}
LOGGED_HERE = {
    **LOGGED,
    "told": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:a)%",
}


def exact(*names: str) -> Message:
    return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}


def shadow(path: str) -> Message:
    """Istio's CUSTOM action, first half: an RBAC filter that marks the requests that are to be asked about."""
    policy = {"permissions": [{"url_path": {"path": {"prefix": path}}}], "principals": [{"any": True}]}
    return http_filter(
        "rbac",
        "RBAC",
        shadow_rules={"action": "DENY", "policies": {"istio-ext-authz-ns[shop]-policy[p]-rule[0]": policy}},
        shadow_rules_stat_prefix="istio_ext_authz_",
    )


LISTENERS: dict[str, Message] = {
    "http": {},
    "allow": {"failure_mode_allow": True},
    "allow-header": {"failure_mode_allow": True, "failure_mode_allow_header_add": True},
    "status": {"status_on_error": {"code": "ServiceUnavailable"}, "stat_prefix": "own"},
    "body": {"with_request_body": {"max_request_bytes": 10}},
    "partial": {"with_request_body": {"max_request_bytes": 10, "allow_partial_message": True}},
    "raw": {"with_request_body": {"max_request_bytes": 10, "allow_partial_message": True, "pack_as_bytes": True}},
    "clear": {"clear_route_cache": True},
    "validate": {"validate_mutations": True},
    "off": {"filter_enabled": NEVER},
    "off-deny": {"filter_enabled": NEVER, "deny_at_disable": FLAG, "status_on_error": {"code": "BadGateway"}},
    "custom": {"filter_enabled_metadata": MARKED},
    "session": {"include_tls_session": True, "include_peer_certificate": True},
    "labels": {"bootstrap_metadata_labels_key": "labels"},
    "labels-none": {"bootstrap_metadata_labels_key": "none"},
    "few": {"allowed_headers": exact("x-one", ":path", "x-many")},
    "not": {"disallowed_headers": {"patterns": [{"prefix": "x-"}, {"exact": ":scheme"}]}},
    "few-not": {"allowed_headers": {"patterns": [{"prefix": "x-"}]}, "disallowed_headers": exact("x-one")},
    "charge-not": {"charge_cluster_response_stats": False},
    "raw-headers": {"encode_raw_headers": True},
    "rules": {"decoder_header_mutation_rules": {}},
    "rules-error": {"decoder_header_mutation_rules": {"disallow_is_error": True}},
    "rules-all": {"decoder_header_mutation_rules": {"disallow_all": True}},
    "rules-free": {"decoder_header_mutation_rules": {"allow_all_routing": True, "allow_envoy": True}},
    "rules-system": {"decoder_header_mutation_rules": {"disallow_system": True, "allow_all_routing": True}},
    "rules-expression": {
        "decoder_header_mutation_rules": {
            "allow_expression": {"regex": "x-a.*|host|:method"},
            "disallow_expression": {"regex": "x-ab.*"},
            "disallow_all": True,
        }
    },
    "metadata-not": {"enable_dynamic_metadata_ingestion": False},
    "namespaces": {
        "metadata_context_namespaces": ["envoy.filters.http.rbac", "none"],
        "route_metadata_context_namespaces": ["m", "none"],
    },
    "cut": {"max_denied_response_body_bytes": 4},
    "limits": {"enforce_response_header_limits": True},
    "slow": {"grpc_service": {**SERVICE, "timeout": "0.2s"}},
    "slow-allow": {"grpc_service": {**SERVICE, "timeout": "0.2s"}, "failure_mode_allow": True},
    "default-timeout": {"grpc_service": {"envoy_grpc": {"cluster_name": "c"}}},
    "authority": {
        "grpc_service": {
            "envoy_grpc": {"cluster_name": "c", "authority": "authz.test"},
            "initial_metadata": [{"key": "X-From", "value": "here"}],
            "timeout": "2s",
        }
    },
    "unreachable": {"grpc_service": {"envoy_grpc": {"cluster_name": "gone"}, "timeout": "2s"}},
    "unreachable-allow": {
        "grpc_service": {"envoy_grpc": {"cluster_name": "gone"}, "timeout": "2s"},
        "failure_mode_allow": True,
    },
    "small": {},
}


def ext_authz(site: Site) -> Message:
    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("ext_authz", "ExtAuthzPerRoute", **fields)}

    def settings(**fields: Any) -> Message:
        return own(check_settings=fields)

    routes = [
        route("/off", **own(disabled=True)),
        route("/extended", **settings(context_extensions={"who": "route", "only": "route"})),
        route("/without-body", **settings(disable_request_body_buffering=True)),
        route("/with-body", **settings(with_request_body={"max_request_bytes": 20})),
        route("/with-partial", **settings(with_request_body={"max_request_bytes": 3, "allow_partial_message": True})),
        route("/elsewhere", **settings(grpc_service={"envoy_grpc": {"cluster_name": "d"}, "timeout": "2s"})),
        route("/no-service", **settings(grpc_service={"envoy_grpc": {"cluster_name": "gone"}, "timeout": "2s"})),
        route("/by-http", **settings(http_service={"server_uri": {"uri": "http://e", "cluster": "e", "timeout": "2s"},
            "path_prefix": "/check"})),
        route({"prefix": "/", "headers": [{"name": "x-to", "string_match": {"exact": "b"}}]}, "b"),
        route({"prefix": "/", "headers": [{"name": "x-to", "string_match": {"exact": "said"}}]}, say(200, "said")),
        route({"prefix": "/", "headers": [{"name": "x-to", "string_match": {"exact": "nowhere"}}]},
            to("a", timeout="1s"), **own(disabled=True)),
        route("/new", "b"),
        route("/said", say(200, "said")),
        route("/metadata", metadata={"filter_metadata": {"m": {"a": {"b": [1, "x", True]}}, "n": {"c": 1}}}),
        route("/refused", "refused"),
        route("/"),
    ]  # fmt: skip
    hosts = [
        virtual_host("extended", ["extended.test"], routes, **settings(context_extensions={"who": "h", "host": "h"})),
        virtual_host("off", ["off.test"], routes, **own(disabled=True)),
        virtual_host("one", ["one.test"], [route({"path": "/one"})]),
        virtual_host("all", ["*"], routes),
    ]
    listeners = []
    for name, fields in LISTENERS.items():
        marks = [shadow("/ask")] if name in ("custom", "namespaces") else []
        authz = http_filter(
            "ext_authz", "ExtAuthz", **{"grpc_service": SERVICE, "transport_api_version": "V3", **fields}
        )
        serving = manager(site, hosts=hosts, filters=[*marks, authz], access_log=[access_log(site, LOGGED_HERE)])
        limit = {"per_connection_buffer_limit_bytes": 20_000} if name == "small" else {}
        listeners.append(listener(site, name, serving, **limit))
    return bootstrap(
        site,
        listeners,
        [
            http2_cluster(site, "c", "c"),
            http2_cluster(site, "d", "d"),
            http2_cluster(site, "gone", "refused"),
            {**http2_cluster(site, "e", "e"), "typed_extension_protocol_options": {}},
        ],
        node={
            "id": "differential",
            "cluster": "differential",
            "metadata": {"labels": {"app": "page", "version": "v1", "count": 3}},
        },
    )


BOOTSTRAPS = {"ext-authz": ext_authz, "ext-authz-stricter": ext_authz}

table = Table("ext-authz", "ext-authz")
stricter = Table("ext-authz-stricter", "ext-authz-stricter")  # where Envoy lets more pass; they are not counted


def says(**fields: Any) -> Reply:
    return grpc(ParseDict(fields, CheckResponse()).SerializeToString())


def option(key: str, value: str, action: str | int = "APPEND_IF_EXISTS_OR_ADD") -> Message:
    return {"header": {"key": key, "value": value}, "append_action": action}


def ok(**fields: Any) -> Reply:
    return says(ok_response=fields)


def denied(code: int = 0, status: int = 7, kind: str = "denied_response", **fields: Any) -> Reply:
    return says(status={"code": status}, **{kind: {**({"status": {"code": code}} if code else {}), **fields}})


OK = ok()
DENIED = says(status={"code": 7})


def get(
    name: str, target: str = "/", answer: Reply = OK, headers: Any = (), *, into: Table = table, **fields: Any
) -> None:
    into.get(name, target, headers, upstream={"c": (answer,), "d": (OK,)}, **fields)


# what is asked
MANY = [("X-One", "1"), ("x-many", "a"), ("x-many", "b"), ("Authorization", "Bearer x"), ("x-empty", ""),
        ("x-envoy-auth-partial-body", "client"), ("x-envoy-downstream-service-cluster", "caller")]  # fmt: skip
for _listener in LISTENERS:
    if "unreachable" not in _listener:
        get(f"asks-{_listener}", "/ask?q=1&r=2", headers=MANY, listener=_listener)
        get(f"asks-post-{_listener}", "/ask", headers=MANY, listener=_listener, method="POST", body=b"12345")
get("asks-latin", headers=[("x-name", "caf\xe9")])
get("asks-latin-raw", headers=[("x-name", "caf\xe9")], listener="raw-headers")
get("asks-metadata", "/metadata", listener="namespaces")
get("asks-both-metadata", "/ask/metadata", listener="namespaces")
table.add("asks-1.0", request("GET", "/", version="HTTP/1.0"), methods=("GET",), upstream={"c": (OK,)})
get("not-marked", "/other", listener="custom")
for _name in (
    "off",
    "extended",
    "without-body",
    "with-body",
    "with-partial",
    "elsewhere",
    "no-service",
    "by-http",
    "said",
):
    for _listener in ("http", "body"):
        get(f"route-{_name}-{_listener}", f"/{_name}", listener=_listener)
        get(f"route-{_name}-{_listener}-post", f"/{_name}", listener=_listener, method="POST", body=b"12345")
get("route-of-extended-host", "/extended", host="extended.test")
get("of-extended-host", "/plain", host="extended.test")
get("of-host-off", "/plain", host="off.test")
get("extended-of-host-off", "/extended", host="off.test")
get("no-route", "/two", host="one.test")
get("cluster-is-gone", "/refused")

# the body
for _listener in ("body", "partial", "raw"):
    for _size in (1, 9, 10, 11, 500):
        get(f"body-{_listener}-{_size}", listener=_listener, method="POST", body=b"b" * _size)
    get(f"body-{_listener}-none", listener=_listener, method="POST", headers=[("content-length", "0")])
    get(f"body-{_listener}-binary", listener=_listener, method="POST", body=b"\xff\xfe\x00ab")
    get(f"body-{_listener}-denied", answer=DENIED, listener=_listener, method="POST", body=b"12345")
    table.add(
        f"body-{_listener}-chunks",
        request("POST", "/", chunks=[b"123", b"45"], trailers=[("x-trailer", "t")]),
        methods=("POST",), listener=_listener, upstream={"c": (OK,)},
    )  # fmt: skip
    table.add(
        f"body-{_listener}-in-pieces",
        request("POST", "/", body=b"1234567890")[:-6], Pause(0.05), b"567890",
        methods={0: ("POST",)}, listener=_listener, upstream={"c": (OK,)},
    )  # fmt: skip
    get(f"body-{_listener}-upgrade", listener=_listener, headers=[("connection", "upgrade"), ("upgrade", "websocket")])
get("body-large", answer=OK, method="POST", body=b"x" * 200_000, listener="small", ignore=("access_log[0].received",))

# OK, with changes
ACTIONS = ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")
WITH = [("X-A", "old"), ("x-twice", "1"), ("x-twice", "2"), ("accept", "text/a")]
for _action in ACTIONS:
    _changes = [option(name, "new", _action) for name in ("x-a", "X-B", "x-twice", "accept", "x-b")]
    get(f"request-{_action}", answer=ok(headers=_changes), headers=WITH)
    get(f"request-{_action}-rules", answer=ok(headers=_changes), headers=WITH, listener="rules")
    get(f"response-{_action}", answer=ok(response_headers_to_add=[
        option(name, "new", _action) for name in ("x-a", "X-B", "content-type", "x-b", "server", "x-twice")]))  # fmt: skip
    get(f"denied-{_action}", answer=denied(headers=[
        option(name, "new", _action) for name in ("x-a", "X-B", "content-type", "x-b", "content-length")],
        body="no"))  # fmt: skip
for _append in (True, False):
    _old = [
        {"header": {"key": name, "value": "new"}, "append": _append} for name in ("x-a", "x-b", "x-twice", "accept")
    ]
    get(f"request-append-{_append}", answer=ok(headers=_old), headers=WITH)
    get(f"response-append-{_append}", answer=ok(response_headers_to_add=_old))
    get(f"denied-append-{_append}", answer=denied(headers=_old))
for _listener in ("http", "validate"):
    for _name, _value in (("x-a", ""), ("x-a", "a\tb"), ("x a", "b"), ("", "b"), ("x-a", "a\nb"), ("x-a", "caf\u00e9")):
        _label = f"{_listener}-{_name or 'empty'}-{_value.encode('unicode_escape').decode() or 'none'}"
        _into = table if _name else stricter
        if _listener == "validate" or ("\n" not in _value and _name == "x-a"):
            get(f"odd-request-{_label}", answer=ok(headers=[option(_name, _value)]), listener=_listener, into=_into)
            get(
                f"odd-response-{_label}",
                answer=ok(response_headers_to_add=[option(_name, _value)]),
                listener=_listener,
                into=_into,
            )
            get(f"odd-denied-{_label}", answer=denied(headers=[option(_name, _value)]), listener=_listener, into=_into)
            get(f"odd-removal-{_label}", answer=ok(headers_to_remove=[_name]), listener=_listener, into=_into)
    get(f"unknown-action-{_listener}", answer=ok(headers=[option("x-a", "new", 7)]), headers=WITH, listener=_listener)
    get(f"unknown-action-response-{_listener}", answer=ok(response_headers_to_add=[option("x-a", "new", 7)]),
        listener=_listener)  # fmt: skip
    get(f"response-status-{_listener}", answer=ok(response_headers_to_add=[option(":status", "201", _action)]),
        listener=_listener)  # fmt: skip
    get(f"unknown-action-denied-{_listener}", answer=denied(headers=[option("x-a", "new", 7)]), listener=_listener)
    get(f"query-odd-{_listener}", "/?a=1", answer=ok(query_parameters_to_set=[{"key": "a b", "value": "c d"}]),
        listener=_listener, into=table if _listener == "validate" else stricter)  # fmt: skip
for _letter in "-._~!$'()*,;:@/?%+=&#^|[ \"":
    get(f"query-letter-{ord(_letter)}", "/p", answer=ok(query_parameters_to_set=[{"key": "a", "value": f"1{_letter}2"}]),
        listener="validate")  # fmt: skip
get("raw-value", answer=ok(headers=[{"header": {"key": "x-a", "raw_value": "cmF3"}}]))
ROUTING = {":path": "/new", ":authority": "b.test", "host": "c.test", ":method": "PUT", ":scheme": "https",
           "x-envoy-foo": "1", "x-abc": "1", "x-acb": "1", "x-b": "1"}  # fmt: skip
for _listener in (
    "http",
    "clear",
    "rules",
    "rules-error",
    "rules-all",
    "rules-free",
    "rules-system",
    "rules-expression",
):
    for _name, _value in ROUTING.items():
        _answer = ok(headers=[option(_name, _value, "OVERWRITE_IF_EXISTS_OR_ADD")])
        get(f"sets-{_name.strip(':')}{':' in _name}-{_listener}", answer=_answer, listener=_listener)
        get(f"removes-{_name.strip(':')}{':' in _name}-{_listener}", answer=ok(headers_to_remove=[_name]),
            listener=_listener, headers=[("x-abc", "o"), ("x-acb", "o"), ("x-b", "o"), ("x-envoy-foo", "o")])  # fmt: skip
get("appends-path", answer=ok(headers=[option(":path", "/new")]))
get("adds-path-if-absent", answer=ok(headers=[option(":path", "/new", "ADD_IF_ABSENT")]))
for _to in ("b", "said", "nowhere", "c"):
    for _listener in ("http", "clear"):
        get(f"reroutes-{_to}-{_listener}", answer=ok(headers=[option("x-to", _to)]), listener=_listener)
        get(f"reroutes-post-{_to}-{_listener}", answer=ok(headers=[option("x-to", _to)]), listener=_listener,
            method="POST", body=b"12345")  # fmt: skip
get("reroutes-by-removal", answer=ok(headers_to_remove=["x-to"]), headers=[("x-to", "b")], listener="clear")
get("reroutes-nothing", answer=OK, headers=[("x-to", "b")], listener="clear")
get("reroutes-to-no-route", "/one", host="one.test", listener="clear",
    answer=ok(headers=[option(":path", "/two", "OVERWRITE_IF_EXISTS_OR_ADD")]))  # fmt: skip
get("removes", answer=ok(headers_to_remove=["X-A", "x-none", "x-twice"]), headers=WITH)
get("changes-then-removes", answer=ok(headers=[option("x-a", "new")], headers_to_remove=["x-a"]), headers=WITH)
get("in-order", answer=ok(headers=[
    option("x-a", "1", "OVERWRITE_IF_EXISTS_OR_ADD"), option("x-a", "2"), option("x-a", "3", "OVERWRITE_IF_EXISTS"),
    option("x-a", "4"), option("x-c", "5", "OVERWRITE_IF_EXISTS"), option("x-c", "6", "ADD_IF_ABSENT"),
    option("x-c", "7", "ADD_IF_ABSENT")]), headers=WITH)  # fmt: skip
for _label, _set, _remove in (
    ("set", {"a": "new", "c": "3"}, ()),
    ("remove", {}, ("a",)),
    ("both", {"a": "new"}, ("a", "b")),
    ("all", {}, ("a", "b", "z")),
    ("encoded", {"z": "%20x"}, ("b",)),
):
    _parameters = [{"key": key, "value": value} for key, value in _set.items()]
    _answer = ok(query_parameters_to_set=_parameters, query_parameters_to_remove=list(_remove))
    for _listener in ("http", "validate", "clear"):
        get(f"query-{_label}-{_listener}", "/p?z=0&a=1&b=2&a=3", answer=_answer, listener=_listener)
    get(f"query-{_label}-without", "/p", answer=_answer)
    get(f"query-{_label}-escaped", "/p?%61=1&b%20=%2f&c", answer=_answer)
for _count in (20, 80, 97, 99, 120):
    _named = [option(f"x-{number}", "v") for number in range(_count)]
    for _listener in ("http", "limits"):
        get(f"adds-{_count}-{_listener}", answer=ok(headers=_named), listener=_listener)
        get(f"adds-{_count}-to-response-{_listener}", answer=ok(response_headers_to_add=_named), listener=_listener)
        get(f"denied-with-{_count}-{_listener}", answer=denied(headers=_named), listener=_listener)
get("adds-much", answer=ok(headers=[option("x-long", "v" * 70_000)]))
get("adds-to-direct-response", "/said", answer=ok(response_headers_to_add=[option("x-a", "1")]))
get("adds-to-failure", "/refused", answer=ok(response_headers_to_add=[option("x-a", "1")]))
get("ok-without-response", answer=says())
get("ok-with-denied-response", answer=says(denied_response={"status": {"code": 401}}))

# refusals
for _code in (0, 200, 201, 204, 301, 304, 400, 401, 403, 404, 418, 429, 500, 503, 511):
    get(f"denied-{_code}", answer=denied(_code, body="no"))
for _status in (1, 2, 5, 13, 16, 99, -1):
    get(f"denied-by-{_status}", answer=denied(status=_status, body="no"))
for _listener in ("http", "allow", "status", "charge-not", "cut", "validate", "clear"):
    get(f"denied-on-{_listener}", answer=denied(401, body="nothing for you", headers=[option("www-authenticate", "x")]),
        listener=_listener)  # fmt: skip
    get(f"denied-plainly-on-{_listener}", answer=DENIED, listener=_listener)
    get(f"denied-call-on-{_listener}", answer=denied(401, body="nothing for you"), listener=_listener, method="POST",
        body=b"x", headers=[("content-type", "application/grpc")])  # fmt: skip
get("denied-with-ok-response", answer=says(status={"code": 7}, ok_response={"headers": [option("x-a", "1")]}))
get("denied-head", answer=denied(401, body="no"), method="HEAD")
get("denied-cookies", answer=denied(302, headers=[
    option("set-cookie", "a=1"), option("set-cookie", "b=2"), option("location", "http://login.test/")]))  # fmt: skip
get("denied-status-header", answer=denied(headers=[option(":status", "200", "OVERWRITE_IF_EXISTS_OR_ADD")]))
get("denied-json", answer=denied(headers=[option("content-type", "application/json")], body="{}"))
get("denied-empty-with-length", answer=denied(headers=[option("content-length", "10")]))
get("denied-huge", answer=denied(body="x" * 1_000_000))
get("denied-post", answer=DENIED, method="POST", body=b"x" * 3000)
get("denied-metadata", answer=says(status={"code": 7}, dynamic_metadata={"a": "x"}))

# errors
for _code in (0, 200, 403, 503):
    for _listener in ("http", "allow", "status", "cut"):
        get(f"error-{_code}-{_listener}", answer=denied(_code, kind="error_response", body="sorry",
            headers=[option("x-a", "1"), option("retry-after", "5", "OVERWRITE_IF_EXISTS")]), listener=_listener)  # fmt: skip
get("error-ok", answer=says(error_response={"status": {"code": 503}, "body": "sorry"}))
for _name, _answer in ERRORS.items():
    if _name not in ("unknown-code", "code-7", "empty", "error-with-answer"):
        for _listener in ("http", "allow", "allow-header", "status"):
            get(f"{_name}-{_listener}", answer=_answer, listener=_listener)
get("empty", answer=grpc(b""))
get("error-call", answer=ERRORS["error-status"], method="POST", body=b"x",
    headers=[("content-type", "application/grpc")])  # fmt: skip
get("error-with-client-header", answer=ERRORS["error-status"], listener="allow-header",
    headers=[("x-envoy-auth-failure-mode-allowed", "false")])  # fmt: skip
SLOWLY = Reply((ReadBody(), Delay(0.1), *OK.steps[1:]))
for _listener in ("slow", "slow-allow", "default-timeout"):
    get(f"too-slow-{_listener}", answer=NEVER_ANSWERED, listener=_listener)
get("slow", answer=SLOWLY)
get("slow-post", answer=SLOWLY, method="POST", body=b"x" * 3000)
get("slow-with-more-than-is-held", answer=SLOWLY, method="POST", body=b"x" * 200_000, listener="small",
    ignore=("access_log[0].received",))  # fmt: skip
get("unreachable", listener="unreachable")
get("unreachable-allow", listener="unreachable-allow")
TWICE = Reply((ReadBody(), HEAD, Body(b"\0\0\0\0\0" * 2), Head([("grpc-status", "0")], end=True)))
get("two-messages", answer=TWICE, into=stricter)

# metadata
for _listener in ("metadata-not", "custom"):
    get(f"metadata-{_listener}", "/ask", answer=says(dynamic_metadata={"a": "x"}), listener=_listener)
get("metadata-denied", answer=says(status={"code": 7}, dynamic_metadata={"a": 1, "b": {"c": ["d", True, None]}}))
get("metadata-denied-old", answer=says(status={"code": 7}, dynamic_metadata={"a": 1}, ok_response={}))
get("metadata-empty", answer=says(dynamic_metadata={}))

for _name in ("a", "b", "refused"):
    table.get(f"counted-{_name}", f"/stats?filter=cluster.{_name}.ext_authz", listener="admin", access_log=False)
table.get("counted", "/stats?filter=http.ingress.ext_authz", listener="admin", access_log=False)
table.get("tagged", "/stats/prometheus?filter=ext_authz\\.own\\.(ok|denied|error)$", listener="admin", access_log=False)
table.get("counted-codes", "/stats?filter=cluster.a..*upstream_rq_(4|5|completed)", listener="admin", access_log=False)
table.get("counted-rbac", "/stats?filter=http.ingress.rbac", listener="admin", access_log=False)

CASES = [*table.cases, *stricter.cases]
