"""Retries: every condition, the x-envoy headers and who may send them, attempt counts, and their limits."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, to, virtual_host
from tests.differential.case import Close, Delay, Header, ReadBody, Reply, Reset, Table, UpstreamStep, reply

PREDICATES = "type.googleapis.com/envoy.extensions.retry.host"
FAST = {"base_interval": "0.001s", "max_interval": "0.002s"}


def policy(on: str, retries: int = 2, **fields: Any) -> Message:
    return {"retry_policy": {"retry_on": on, "num_retries": retries, "retry_back_off": FAST, **fields}}


POLICIES: dict[str, Message] = {
    "5xx": policy("5xx"),
    "gateway-error": policy("gateway-error"),
    "reset": policy("reset"),
    "reset-before-request": policy("reset-before-request"),
    "connect-failure": policy("connect-failure"),
    "retriable-4xx": policy("retriable-4xx"),
    "refused-stream": policy("refused-stream"),
    "retriable-status-codes": policy("retriable-status-codes", retriable_status_codes=[418, 503]),
    "retriable-headers": policy(
        "retriable-headers", retriable_headers=[{"name": "x-again", "string_match": {"exact": "yes"}}]
    ),
    "retriable-request-headers": policy("5xx", retriable_request_headers=[{"name": "x-may", "present_match": True}]),
    "envoy-ratelimited": policy("envoy-ratelimited"),
    "http3-post-connect-failure": policy("http3-post-connect-failure"),
    "several": policy("connect-failure,refused-stream,gateway-error"),
    "none": {},
    "zero": policy("5xx", 0),
    "one": policy("5xx", 1),
    "per-try": policy("5xx", per_try_timeout="0.05s"),
    "per-try-reset": policy("reset", per_try_timeout="0.05s"),
    "per-try-no-retry": policy("connect-failure", per_try_timeout="0.05s"),
    "per-try-idle": policy("5xx", per_try_idle_timeout="0.05s"),
    "whole-timeout": {**policy("5xx", 10, per_try_timeout="0.04s"), "timeout": "0.1s"},
    "rate-limited": policy(
        "5xx",
        rate_limited_retry_back_off={
            "reset_headers": [{"name": "x-reset", "format": "SECONDS"}],
            "max_interval": "0.05s",
        },
    ),
}


def retries(site: Site) -> Message:
    routes = [route(f"/{name}/", to("a", **fields)) for name, fields in POLICIES.items()]
    routes += [
        route("/refused/", to("refused", **POLICIES["connect-failure"])),
        route("/refused-5xx/", to("refused", **POLICIES["5xx"])),
        route("/refused-none/", to("refused", **POLICIES["retriable-4xx"])),
        route("/empty/", to("empty", **POLICIES["5xx"])),
        route(
            "/other-host/",
            to(
                "two",
                **policy(
                    "5xx",
                    1,
                    retry_host_predicate=[
                        {
                            "name": "envoy.retry_host_predicates.previous_hosts",
                            "typed_config": {"@type": f"{PREDICATES}.previous_hosts.v3.PreviousHostsPredicate"},
                        }
                    ],
                    host_selection_retry_max_attempts=5,
                ),
            ),
        ),
        route("/breaker/", to("no-retries", **POLICIES["5xx"])),
        route("/budget/", to("budget", **policy("5xx", 5))),
        route(
            "/weighted/",
            {"route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 1}]}, **POLICIES["5xx"]}},
        ),
    ]
    counts = {"include_request_attempt_count": True, "include_attempt_count_in_response": True}
    hosts = [
        virtual_host("counted", ["counted.test"], routes, **counts),
        virtual_host(
            "host-policy",
            ["host-policy.test"],
            [route("/own", to("a", **policy("5xx", 0))), route("/", to("a"))],
            **policy("5xx", 1),
        ),
        virtual_host("all", ["*"], routes),
    ]
    inside: Message = {
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
    }
    no_retries = {"thresholds": [{"max_retries": 0}]}
    budget = {"thresholds": [{"retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 1}}]}
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, hosts=hosts)),
            listener(site, "inside", manager(site, hosts=hosts, **inside)),
            listener(site, "edge", manager(site, hosts=hosts, use_remote_address=True)),
        ],
        [
            cluster(site, "two", ["a", "b"]),
            cluster(site, "no-retries", ["a"], circuit_breakers=no_retries),
            cluster(site, "budget", ["a"], circuit_breakers=budget),
        ],
    )


BOOTSTRAPS = {"retries": retries}

table = Table("retries", "retries")
CASES = table.cases
get = table.get


def answers(*statuses: int) -> list[Reply]:
    return [reply(status, headers=[("X-Turn", str(turn))]) for turn, status in enumerate(statuses, 1)]


CLOSED = Reply((ReadBody(), Close()))
RESET = Reply((ReadBody(), Reset()))
HANG = Reply((ReadBody(), Delay(2.0)))
GONE: tuple[UpstreamStep, ...] = (Close(),)


def fresh(*statuses: int) -> list[Reply]:
    """Answers after each of which the connection is closed."""
    return [reply(status, headers=[("Connection", "close")], then=GONE) for status in statuses]


for _on in (
    "5xx",
    "gateway-error",
    "reset",
    "connect-failure",
    "retriable-4xx",
    "retriable-status-codes",
    "several",
    "none",
):
    for _status in (500, 503, 409, 418):
        get(f"{_on}-{_status}", f"/{_on}/", host="counted.test", upstream=answers(_status, 200))
for _on in ("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "none"):
    get(f"{_on}-closed", f"/{_on}/", host="counted.test", upstream=[CLOSED, *answers(200)])
    get(f"{_on}-reset", f"/{_on}/", host="counted.test", upstream=[RESET, *answers(200)])
    get(
        f"{_on}-post-closed",
        f"/{_on}/",
        host="counted.test",
        method="POST",
        body=b"body",
        upstream=[CLOSED, *answers(200)],
    )
_turns: tuple[int, ...]
for _turns in ((503, 503, 200), (503, 503, 503), (500, 404), (503, 302)):
    get(f"turns-{'-'.join(map(str, _turns))}", "/5xx/", host="counted.test", upstream=answers(*_turns))
get("uncounted", "/5xx/", upstream=answers(503, 200))
get("post-with-body", "/5xx/", method="POST", body=b"repeat me", upstream=answers(503, 200))
get("large-body", "/5xx/", method="POST", body=b"x" * 200_000, upstream=answers(503, 200))
get("zero-retries", "/zero/", upstream=answers(503, 200))
get("one-retry", "/one/", host="counted.test", upstream=answers(503, 503, 200))
get("retriable-headers", "/retriable-headers/", upstream=[reply(200, headers=[("X-Again", "yes")]), reply(201)])
get("retriable-headers-other", "/retriable-headers/", upstream=[reply(200, headers=[("X-Again", "no")]), reply(201)])
get("request-header-missing", "/retriable-request-headers/", upstream=answers(503, 200))
get("request-header-there", "/retriable-request-headers/", [("X-May", "1")], upstream=answers(503, 200))
get("ratelimited", "/envoy-ratelimited/", upstream=[reply(429, headers=[("x-envoy-ratelimited", "true")]), reply(200)])
get("ratelimited-without-header", "/envoy-ratelimited/", upstream=[reply(429), reply(200)])
get("ratelimited-5xx", "/5xx/", upstream=[reply(503, headers=[("x-envoy-ratelimited", "true")]), reply(200)])
get("overloaded-from-upstream", "/5xx/", upstream=[reply(503, headers=[("x-envoy-overloaded", "true")]), reply(200)])
get("per-try-then-good", "/per-try/", host="counted.test", upstream=[HANG, reply()])
get("per-try-always", "/per-try/", host="counted.test", upstream=HANG)
get("per-try-reset", "/per-try-reset/", upstream=[HANG, reply()])
get("per-try-no-retry", "/per-try-no-retry/", upstream=[HANG, reply()])
get("per-try-idle", "/per-try-idle/", upstream=[HANG, reply()])
get("whole-timeout", "/whole-timeout/", upstream=HANG)
get("rate-limited-back-off", "/rate-limited/", upstream=[reply(503, headers=[("X-Reset", "0")]), reply()])
get("refused", "/refused/", host="counted.test")
get("refused-5xx", "/refused-5xx/", host="counted.test")
get("refused-none", "/refused-none/", host="counted.test")
get("empty", "/empty/", host="counted.test")
get(
    "other-host",
    "/other-host/",
    host="counted.test",
    upstream={"a": [reply(503), reply(503)], "b": [reply(503)]},
    spread=True,
    ignore=("client[0].response[0].body", "access_log[0].upstream"),
)
get("breaker", "/breaker/", host="counted.test", upstream=answers(503, 200))
get("budget", "/budget/", host="counted.test", upstream=answers(503, 503, 200))
get("weighted", "/weighted/", host="counted.test", upstream=answers(503, 200))
get("host-policy", "/", host="host-policy.test", upstream=answers(503, 503, 200))
get("host-policy-own", "/own", host="host-policy.test", upstream=answers(503, 503, 200))
get(
    "after-response-began",
    "/5xx/",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", Delay(0.02), Close())),
)
get("attempt-count-given", "/none/", [("x-envoy-attempt-count", "9")], host="counted.test")
get("attempt-count-given-uncounted", "/none/", [("x-envoy-attempt-count", "9")])
get("connection-closed-after-503", "/5xx/", upstream=[*fresh(503), reply()])

TRUSTED: tuple[tuple[str, list[Header], tuple[int, ...]], ...] = (
    ("retry-on", [("x-envoy-retry-on", "5xx")], (503, 200)),
    ("retry-on-and-max", [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3")], (503, 503, 503, 200)),
    ("max-retries-0", [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "0")], (503, 200)),
    ("max-retries-bad", [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "many")], (503, 200)),
    ("retry-on-unknown", [("x-envoy-retry-on", "tuesday")], (503, 200)),
    ("retry-on-spaced", [("x-envoy-retry-on", "reset, 5xx")], (503, 200)),
    (
        "codes",
        [("x-envoy-retry-on", "retriable-status-codes"), ("x-envoy-retriable-status-codes", "418,419")],
        (418, 200),
    ),
    (
        "names",
        [("x-envoy-retry-on", "retriable-headers"), ("x-envoy-retriable-header-names", "x-turn")],
        (200, 201),
    ),
    ("grpc-on", [("x-envoy-retry-grpc-on", "unavailable")], (503, 200)),
    ("hedge", [("x-envoy-hedge-on-per-try-timeout", "false")], (200,)),
)
for _listener in ("http", "inside", "edge"):
    for _name, _headers, _turns in TRUSTED:
        get(f"header-{_name}-{_listener}", "/none/", _headers, listener=_listener, upstream=answers(*_turns))
    get(
        f"header-over-policy-{_listener}",
        "/5xx/",
        [("x-envoy-max-retries", "1")],
        listener=_listener,
        upstream=answers(503, 503, 200),
    )
for _name, _headers in (
    ("timeout", [("x-envoy-upstream-rq-timeout-ms", "60")]),
    ("per-try", [("x-envoy-retry-on", "5xx"), ("x-envoy-upstream-rq-per-try-timeout-ms", "40")]),
    (
        "per-try-above-timeout",
        [("x-envoy-upstream-rq-timeout-ms", "60"), ("x-envoy-upstream-rq-per-try-timeout-ms", "90")],
    ),
    (
        "alternative-response",
        [("x-envoy-upstream-rq-timeout-ms", "60"), ("x-envoy-upstream-rq-timeout-alt-response", "1")],
    ),
):
    get(f"header-{_name}-inside", "/none/", _headers, listener="inside", upstream=[HANG, HANG, *answers(200)])
get("header-timeout-bad-inside", "/none/", [("x-envoy-upstream-rq-timeout-ms", "soon")], listener="inside")
get(
    "grpc-status-retried",
    "/none/",
    [("x-envoy-retry-grpc-on", "unavailable"), ("Content-Type", "application/grpc")],
    listener="inside",
    method="POST",
    body=b"x",
    upstream=[reply(200, headers=[("grpc-status", "14")]), reply(200, headers=[("grpc-status", "0")])],
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
for _name, _interim in (("103", INTERIM), ("100", CONTINUE)):
    get(
        f"interim-{_name}-then-503",
        "/5xx/",
        upstream=[Reply((ReadBody(), _interim, b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")), *answers(200)],
    )
    get(f"interim-{_name}-then-closed", "/5xx/", upstream=[Reply((ReadBody(), _interim, Close())), *answers(200)])
    get(
        f"interim-{_name}-then-late",
        "/per-try/",
        upstream=[Reply((ReadBody(), _interim, Delay(0.3))), *answers(200)],
        deadline=0.5,
    )
