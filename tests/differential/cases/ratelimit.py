"""The ratelimit filter: what the service is asked, and what becomes of a request by its answer, or without one."""

from __future__ import annotations

from typing import Any

from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
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
from tests.differential.case import Delay, ReadBody, Reply, Table
from tests.differential.http2_case import http2_cluster
from tests.differential.http2_steps import Body, Head, ResetStream

SERVICE: Message = {"grpc_service": {"envoy_grpc": {"cluster_name": "c"}}, "transport_api_version": "V3"}
NEVER: Message = {"default_value": {"numerator": 0}}
ALWAYS: Message = {"default_value": {"numerator": 100}}


def generic(value: str, **fields: Any) -> Message:
    """A rate limit of one generic key."""
    return {"actions": [{"generic_key": {"descriptor_value": value}}], **fields}


def by_header(name: str, key: str, **fields: Any) -> Message:
    return {"request_headers": {"header_name": name, "descriptor_key": key, **fields}}


def limits(*rate_limits: Message, **fields: Any) -> Message:
    return to("a", rate_limits=list(rate_limits), **fields)


LIMIT: Message = {"dynamic_metadata": {"metadata_key": {"key": "limits", "path": [{"key": "one"}]}}}
ACTIONS: dict[str, Message] = {
    "source": {"source_cluster": {}},
    "destination": {"destination_cluster": {}},
    "address": {"remote_address": {}},
    "masked": {"masked_remote_address": {"v4_prefix_mask_len": 8}},
    "masked-0": {"masked_remote_address": {"v4_prefix_mask_len": 0}},
    "generic": {"generic_key": {"descriptor_value": "v", "descriptor_key": "k"}},
    "header": by_header("x-who", "who"),
    "header-skip": by_header("x-who", "who", skip_if_absent=True),
    "path": by_header(":path", "path"),
    "host": by_header("host", "host"),
    "query": {"query_parameters": {"query_parameter_name": "q", "descriptor_key": "query"}},
    "query-skip": {
        "query_parameters": {"query_parameter_name": "q", "descriptor_key": "query", "skip_if_absent": True}
    },
    "match": {
        "header_value_match": {
            "descriptor_value": "matched",
            "headers": [{"name": "x-who", "string_match": {"exact": "me"}}],
        }
    },
    "no-match": {
        "header_value_match": {
            "descriptor_key": "not",
            "descriptor_value": "matched",
            "expect_match": False,
            "headers": [{"name": "x-who", "string_match": {"exact": "me"}}],
        }
    },
    "query-match": {
        "query_parameter_value_match": {
            "descriptor_value": "matched",
            "query_parameters": [{"name": "q", "string_match": {"exact": "1"}}],
        }
    },
    "metadata": {
        "metadata": {
            "descriptor_key": "md",
            "metadata_key": {"key": "m", "path": [{"key": "a"}, {"key": "b"}]},
            "source": "ROUTE_ENTRY",
        }
    },
    "metadata-default": {
        "metadata": {
            "descriptor_key": "md",
            "metadata_key": {"key": "m", "path": [{"key": "none"}]},
            "source": "ROUTE_ENTRY",
            "default_value": "default",
        }
    },
    "metadata-absent": {"metadata": {"descriptor_key": "md", "metadata_key": {"key": "m", "path": [{"key": "none"}]}}},
}


HITS: dict[str, Message] = {
    "hits": {"number": 5},
    "none": {"number": 0},
    "bytes": {"format": "%BYTES_RECEIVED%"},
    "text": {"format": "%REQ(x-hits)%"},
}


def ratelimit(site: Site) -> Message:
    added = [
        {"header": {"key": "x-limited", "value": "%RESPONSE_CODE%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    ]
    listeners: dict[str, Message] = {
        "http": {},
        "headers": {"enable_x_ratelimit_headers": "DRAFT_VERSION_03", "response_headers_to_add": added},
        "no-header": {"disable_x_envoy_ratelimited_header": True},
        "status": {"rate_limited_status": {"code": "ServiceUnavailable"}, "stat_prefix": "own"},
        "low-status": {
            "rate_limited_status": {"code": "OK"},
            "status_on_error": {"code": "OK"},
            "failure_mode_deny": True,
        },
        "exhausted": {"rate_limited_as_resource_exhausted": True},
        "deny": {"failure_mode_deny": True},
        "deny-status": {"failure_mode_deny": True, "status_on_error": {"code": "ServiceUnavailable"}},
        "deny-percent": {"failure_mode_deny_percent": ALWAYS},
        "deny-never": {"failure_mode_deny": True, "failure_mode_deny_percent": NEVER},
        "internal": {"request_type": "internal"},
        "external": {"request_type": "external"},
        "stage": {"stage": 2},
        "off": {"filter_enabled": NEVER},
        "shadow": {"filter_enforced": NEVER},
        "by-key": {"filter_enabled": {"runtime_key": "limits.on", "default_value": {"numerator": 0}}},
        "slow": {"timeout": "0.2s"},
        "deny-slow": {"timeout": "0.2s", "failure_mode_deny": True},
        "small": {},
        "own": {"rate_limits": [generic("own", hits_addend={"number": 2})]},
        "metadata": {
            "rate_limits": [
                generic("own", limit=LIMIT),
            ]
        },
        "authority": {
            "rate_limit_service": {
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": "c", "authority": "limits.test"},
                    "initial_metadata": [{"key": "X-From", "value": "here"}],
                },
                "transport_api_version": "V3",
            }
        },
        "unreachable": {
            "rate_limit_service": {
                "grpc_service": {"envoy_grpc": {"cluster_name": "gone"}},
                "transport_api_version": "V3",
            },
        },
        "unreachable-deny": {
            "failure_mode_deny": True,
            "rate_limit_service": {
                "grpc_service": {"envoy_grpc": {"cluster_name": "empty"}},
                "transport_api_version": "V3",
            },
        },
    }
    for fields in listeners.values():
        fields.setdefault("timeout", "2s")
        fields.setdefault("domain", "test")
        fields.setdefault("rate_limit_service", SERVICE)

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("ratelimit", "RateLimitPerRoute", **fields)}

    routes = [
        *(route(f"/{name}", limits({"actions": [action]}), metadata={"filter_metadata": {"m": {"a": {"b": "found"}}}})
          for name, action in sorted(ACTIONS.items(), reverse=True)),
        route("/two", limits({"actions": [ACTIONS["generic"], ACTIONS["header"]]}, generic("other"))),
        route("/skipping", limits({"actions": [ACTIONS["header-skip"], ACTIONS["generic"]]})),
        route("/hits", limits(generic("five", hits_addend={"number": 5}))),
        route("/no-hits", limits(generic("none", hits_addend={"number": 0}))),
        *(route(f"/own-{name}", to("a"), **own(rate_limits=[generic(name, hits_addend=addend)]))
          for name, addend in HITS.items()),
        route("/own-done", to("a"), **own(rate_limits=[
            generic("now"), generic("later", apply_on_stream_done=True, hits_addend={"format": "%BYTES_SENT%"})])),
        route("/disabled", limits(generic("disabled", disable_key="off"), generic("enabled", disable_key="on"))),
        route("/stages", limits(generic("zero"), generic("two", stage=2))),
        route("/done", limits(generic("now"), generic("later", apply_on_stream_done=True))),
        route("/only-done", limits(generic("later", apply_on_stream_done=True, hits_addend={"number": 3}))),
        route("/include-host", limits(generic("route")), **own(vh_rate_limits="INCLUDE")),
        route("/ignore-host", to("a"), **own(vh_rate_limits="IGNORE")),
        route("/override-host", limits(generic("route"))),
        route("/include-action", limits(generic("route"), include_vh_rate_limits=True)),
        route("/own-limits", limits(generic("route")), **own(rate_limits=[generic("per-route")])),
        route("/own-domain", limits(generic("route")), **own(domain="other")),
        route("/said", say(200, "said")),
        route("/unknown", to("refused", rate_limits=[generic("refused")])),
        route("/b", to("b", rate_limits=[generic("b")])),
        route("/"),
    ]  # fmt: skip
    hosts = [
        virtual_host("limited", ["limited.test"], routes, rate_limits=[generic("host"), generic("host-two", stage=2)]),
        virtual_host("all", ["*"], routes),
    ]
    logged = {**LOGGED, "said": "%DYNAMIC_METADATA(envoy.filters.http.ratelimit)%"}
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(
                    site,
                    hosts=hosts,
                    filters=[http_filter("ratelimit", "RateLimit", **fields)],
                    access_log=[access_log(site, logged)],
                    use_remote_address=name in ("internal", "external"),
                ),
                **({"per_connection_buffer_limit_bytes": 20_000} if name == "small" else {}),
            )
            for name, fields in listeners.items()
        ],
        [http2_cluster(site, "c", "c"), http2_cluster(site, "gone", "refused")],
        layered_runtime={
            "layers": [{"name": "static", "static_layer": {"ratelimit.off.http_filter_enabled": 0, "limits.on": 100}}]
        },
    )


BOOTSTRAPS = {"ratelimit": ratelimit}

table = Table("ratelimit", "ratelimit")
CASES = table.cases

HEAD = Head([(":status", "200"), ("content-type", "application/grpc")])


def grpc(message: bytes, status: str = "0", **fields: str) -> Reply:
    """A unary reply."""
    body = b"\0" + len(message).to_bytes(4, "big") + message
    trailers = [("grpc-status", status), *fields.items()]
    return Reply((ReadBody(), HEAD, Body(body), Head(trailers, end=True)))


def says(overall_code: str = "OK", **fields: Any) -> Reply:
    return grpc(ParseDict({"overall_code": overall_code, **fields}, RateLimitResponse()).SerializeToString())


OK = says()
OVER = says("OVER_LIMIT")


def get(name: str, target: str = "/generic", answer: Reply = OK, headers: Any = (), **fields: Any) -> None:
    table.get(name, target, headers, upstream={"c": (answer,)}, **fields)


for _name in ACTIONS:
    get(f"action-{_name}", f"/{_name}")
    get(f"action-{_name}-found", f"/{_name}?q=1", headers=[("X-Who", "me"), ("x-who", "you")])
get("action-query-match-not", "/query-match?q=2")
get("action-header-not-utf-8", "/header", headers=[("x-who", "caf\xe9")])
for _name in ("two", "skipping", "hits", "no-hits", "disabled", "stages", "said", "unknown", "b", "plain"):
    get(_name, f"/{_name}")
    get(f"{_name}-with-header", f"/{_name}", headers=[("X-Who", "me"), ("x-hits", "7")])
for _hits in ("0", "-1", "1000000000", "1000000001", "x", "1.5", "007"):
    get(f"hits-by-text-{_hits}", "/own-text", headers=[("x-hits", _hits)])
for _name in HITS:
    get(f"hits-{_name}", f"/own-{_name}", method="POST", body=b"12345")
for _name in (
    "include-host",
    "ignore-host",
    "override-host",
    "include-action",
    "own-limits",
    "own-domain",
    "plain",
    "stages",
):
    get(f"{_name}-of-host", f"/{_name}", host="limited.test")
get("stage", "/stages", listener="stage")
get("stage-of-host", "/plain", host="limited.test", listener="stage")
get("own", "/plain", listener="own")
get("own-and-route", "/generic", listener="own")
get("own-and-per-route", "/own-limits", listener="own")
get("own-and-host", "/plain", host="limited.test", listener="own")
get("limit-without-metadata", "/plain", listener="metadata")
get("authority", listener="authority")

for _listener in (
    "http",
    "headers",
    "no-header",
    "status",
    "low-status",
    "exhausted",
    "shadow",
    "off",
    "by-key",
    "deny",
):
    get(f"over-{_listener}", answer=OVER, listener=_listener)
    get(f"over-{_listener}-call", answer=OVER, listener=_listener, method="POST", body=b"x",
        headers=[("content-type", "application/grpc")])  # fmt: skip
get("over-head", answer=OVER, method="HEAD")
for _listener in ("internal", "external"):
    get(_listener, listener=_listener)
    get(f"{_listener}-from-outside", headers=[("x-forwarded-for", "8.8.8.8")], listener=_listener)
    get(f"{_listener}-says-internal", headers=[("x-envoy-internal", "true")], listener=_listener)

STATUS: Message = {"code": "OK", "current_limit": {"requests_per_unit": 10, "unit": "MINUTE"}, "limit_remaining": 7,
                   "duration_until_reset": "30.9s"}  # fmt: skip
NEARER: Message = {
    **STATUS,
    "current_limit": {"requests_per_unit": 4, "unit": "HOUR", "name": "by"},
    "limit_remaining": 3,
}
for _unit in ("UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR"):
    _limit = {"requests_per_unit": 10, "unit": _unit}
    get(f"headers-{_unit}", answer=says(statuses=[{**STATUS, "current_limit": _limit}]), listener="headers")
get("headers-two", answer=says(statuses=[STATUS, NEARER, STATUS]), listener="headers")
get("headers-none", answer=says(statuses=[{"code": "OK", "limit_remaining": 1}]), listener="headers")
get("headers-over", answer=says("OVER_LIMIT", statuses=[NEARER]), listener="headers")
get("headers-not-wanted", answer=says(statuses=[STATUS]))

ADDED: Message = {
    "response_headers_to_add": [{"key": "X-Told", "value": "one"}, {"key": "x-told", "value": "two"}],
    "request_headers_to_add": [{"key": "X-Asked", "value": "one"}, {"key": "x-who", "value": "service"}],
}
get("adds", answer=says(**ADDED))
get("adds-to-what-is-there", answer=says(**ADDED), headers=[("X-Who", "me")])
get("adds-over", answer=says("OVER_LIMIT", **ADDED))
get("adds-over-shadow", answer=says("OVER_LIMIT", **ADDED), listener="shadow")
get("adds-type", answer=says("OVER_LIMIT", raw_body="e30=",
    response_headers_to_add=[{"key": "content-type", "value": "application/json"}]))  # fmt: skip
get("adds-type-to-response", answer=says(response_headers_to_add=[{"key": "content-type", "value": "x/y"}]))
get("adds-to-direct-response", "/refused", answer=says(**ADDED))
get("body", answer=says("OVER_LIMIT", raw_body="c2xvdyBkb3du"))
get("body-of-call", answer=says("OVER_LIMIT", raw_body="c2xvdyBkb3du"), method="POST", body=b"x",
    headers=[("content-type", "application/grpc")])  # fmt: skip
get("body-ok", answer=says(raw_body="c2xvdyBkb3du"))
get("metadata", answer=says(dynamic_metadata={"a": 1, "b": {"c": ["d"]}}))
get("metadata-over", answer=says("OVER_LIMIT", dynamic_metadata={"a": "x"}))
get("quota", answer=says(quota={"requests": 5, "id": "q"}))

ERRORS: dict[str, Reply] = {
    "error-status": grpc(b"", "14"),
    "error-with-answer": grpc(b"\x08\x02", "8"),
    "not-a-message": grpc(b"\xff\xff\xff"),
    "no-message": Reply((ReadBody(), HEAD, Head([("grpc-status", "0")], end=True))),
    "trailers-only": Reply((ReadBody(), Head([(":status", "200"), ("grpc-status", "12")], end=True))),
    "http-503": Reply((ReadBody(), Head([(":status", "503")], end=True))),
    "reset": Reply((ReadBody(), ResetStream(8))),
    "reset-after-head": Reply((ReadBody(), HEAD, ResetStream(2))),
    "unknown-code": says("UNKNOWN"),
    "code-7": grpc(b"\x08\x07"),
    "empty": grpc(b""),
    "cut-short": Reply((ReadBody(), HEAD, Body(b"\0\0\0\0\5\x08\1"), Head([("grpc-status", "0")], end=True))),
}
for _name, _answer in ERRORS.items():
    if _name not in ("unknown-code", "empty"):  # Envoy's debug builds end there, and its others say OK
        for _listener in ("http", "deny"):
            get(f"{_name}-{_listener}", answer=_answer, listener=_listener)
for _listener in ("deny-status", "low-status", "deny-percent", "deny-never", "shadow", "headers"):
    get(f"error-{_listener}", answer=ERRORS["error-status"], listener=_listener)
get("error-call", answer=ERRORS["error-status"], listener="deny", method="POST", body=b"x",
    headers=[("content-type", "application/grpc")])  # fmt: skip
NEVER_ANSWERED = Reply((ReadBody(), Delay(3.0)))
SLOWLY = Reply((ReadBody(), Delay(0.1), *OK.steps[1:]))
get("too-slow", answer=NEVER_ANSWERED, listener="slow")
get("too-slow-deny", answer=NEVER_ANSWERED, listener="deny-slow")
get("slow", answer=SLOWLY)
get("slow-post", answer=SLOWLY, method="POST", body=b"x" * 3000)
for _name, _answer in {"slow": SLOWLY, "over": Reply((ReadBody(), Delay(0.1), *OVER.steps[1:]))}.items():
    get(f"{_name}-with-more-than-is-held", answer=_answer, method="POST", body=b"x" * 200_000, listener="small",
        ignore=("access_log[0].received",))  # fmt: skip
get("unreachable", listener="unreachable")
get("unreachable-deny", listener="unreachable-deny")
get("done", "/done", upstream_requests=3, unordered=True)
get("only-done", "/only-done", upstream_requests=2, unordered=True)
get("own-done", "/own-done", upstream_requests=3, unordered=True)
get("done-over", "/done", answer=OVER, upstream_requests=2, unordered=True)
for _name in ("a", "b", "refused"):
    table.get(f"counted-{_name}", f"/stats?filter=cluster.{_name}.ratelimit", listener="admin", access_log=False)
table.get("counted-codes", "/stats?filter=cluster.a..*upstream_rq_(4|5|completed)", listener="admin", access_log=False)
TWO_MESSAGES = Reply((ReadBody(), HEAD, Body(b"\0\0\0\0\2\x08\1" * 2), Head([("grpc-status", "0")], end=True)))
get("two-messages", answer=TWO_MESSAGES, listener="deny")
