"""Hedging: an attempt that is late goes on beside the next one, and which answer counts; and the time limits of one try."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    HTTP2_OPTIONS,
    Message,
    Site,
    bootstrap,
    cluster,
    endpoint,
    listener,
    manager,
    route,
    to,
    virtual_host,
)
from tests.differential.case import Close, Delay, Pause, ReadBody, Reply, Table, reply, request
from tests.differential.http2_upstream import answer

FAST = {"base_interval": "0.001s", "max_interval": "0.002s"}
HEDGE = {"hedge_policy": {"hedge_on_per_try_timeout": True}}
HTTP2: Message = {"explicit_http_config": {"http2_protocol_options": {}}}


def policy(on: str = "5xx", retries: int = 2, per_try: str = "0.2s", **fields: Any) -> Message:
    return {
        "retry_policy": {
            "retry_on": on,
            "num_retries": retries,
            "retry_back_off": FAST,
            **({"per_try_timeout": per_try} if per_try else {}),
            **fields,
        }
    }


OTHER_PRIORITY = {
    "name": "envoy.retry_priorities.previous_priorities",
    "typed_config": {
        "@type": (
            "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
        ),
        "update_frequency": 1,
    },
}


def routes() -> list[Message]:
    return [
        route("/plain/", to("two", **HEDGE, **policy())),
        route("/once/", to("two", **HEDGE, **policy(retries=1))),
        route("/never/", to("two", **HEDGE, **policy(retries=0))),
        route("/connect-failure/", to("two", **HEDGE, **policy("connect-failure"))),
        route("/no-conditions/", to("two", **HEDGE, **policy(""))),
        route("/idle/", to("two", **HEDGE, **policy(per_try="", per_try_idle_timeout="0.2s"))),
        route("/whole/", to("two", timeout="0.7s", **HEDGE, **policy())),
        route("/levels/", to("levels", **HEDGE, **policy(retry_priority=OTHER_PRIORITY))),
        route("/h2/", to("two-h2", **HEDGE, **policy())),
        route("/breaker/", to("no-retries", **HEDGE, **policy())),
        route(
            "/may/", to("two", **HEDGE, **policy(retriable_request_headers=[{"name": "x-may", "present_match": True}]))
        ),
        route("/off/", to("two", hedge_policy={"hedge_on_per_try_timeout": False}, **policy())),
        route("/inherited/", to("two", **policy())),
        route("/no-retry/", to("two", **HEDGE)),
        route("/none/", to("two")),
    ]


def hedging(site: Site) -> Message:
    inside: Message = {
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
    }
    counts = {
        "include_request_attempt_count": True,
        "include_attempt_count_in_response": True,
        "include_is_timeout_retry_header": True,
    }
    hosts = [
        virtual_host("counted", ["counted.test"], routes(), **counts),
        virtual_host("hedged", ["hedged.test"], routes(), **HEDGE),
        virtual_host("all", ["*"], routes()),
    ]
    levels = {
        "cluster_name": "levels",
        "endpoints": [{"priority": number, "lb_endpoints": [endpoint(site, name)]} for number, name in enumerate("ab")],
    }
    extra = {"typed_extension_protocol_options": {HTTP2_OPTIONS.rpartition("/")[2]: {"@type": HTTP2_OPTIONS, **HTTP2}}}
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, hosts=hosts)),
            listener(site, "inside", manager(site, hosts=hosts, **inside)),
        ],
        [
            cluster(site, "two", ["a"]),
            {"name": "levels", "connect_timeout": "1s", "load_assignment": levels},
            cluster(site, "two-h2", ["a"], **extra),
            cluster(site, "no-retries", ["a"], circuit_breakers={"thresholds": [{"max_retries": 0}]}),
        ],
    )


BOOTSTRAPS = {"hedging": hedging}

table = Table("hedging", "hedging")
CASES = table.cases


def turn(number: int, status: int = 200, delay: float = 0.0) -> Reply:
    return reply(status, headers=[("X-Turn", str(number))], delay=delay)


def http2_turn(number: int, delay: float = 0.0) -> Reply:
    return answer(fields=[("x-turn", str(number))], delay=delay)


def get(name: str, target: str, *upstream: Reply, headers: Any = (), **options: Any) -> None:
    table.get(name, target, headers, upstream=upstream, unordered=True, **options)


HANG = Reply((ReadBody(), Delay(2.0)))

get("no-need", "/plain/", turn(1))
get("second-wins", "/plain/", HANG, turn(2))
get("first-wins", "/plain/", turn(1, delay=0.3), HANG)
get("third-wins", "/plain/", HANG, HANG, turn(3))
get("first-of-three-wins", "/plain/", turn(1, delay=0.5), HANG, HANG)
get("all-hang", "/whole/", HANG)
get("never-and-answers", "/never/", turn(1, delay=0.3))
get("never-and-hangs", "/whole/x", HANG, HANG, HANG)
get("connect-failure-only", "/connect-failure/", HANG, turn(2))
get("no-conditions", "/no-conditions/", turn(1, delay=0.3), turn(2))
get("idle", "/idle/", HANG, turn(2))
get("idle-first-wins", "/idle/", turn(1, delay=0.3), HANG)
get("second-bad-first-good", "/once/", turn(1, delay=0.4), turn(2, 503))
get("second-bad-is-retried", "/plain/", HANG, turn(2, 503), turn(3))
get("first-bad-second-good", "/once/", turn(1, 503, delay=0.3), turn(2, delay=0.25))
get("both-bad", "/once/", turn(1, 503, delay=0.3), turn(2, 502, delay=0.25))
get("second-breaks", "/once/", turn(1, delay=0.4), Reply((ReadBody(), Close())))
get("first-breaks", "/once/", Reply((ReadBody(), Delay(0.3), Close())), turn(2, delay=0.25))
get("both-break", "/once/", Reply((ReadBody(), Delay(0.3), Close())), Reply((ReadBody(), Delay(0.25), Close())))
get("breaker", "/breaker/", turn(1, delay=0.3), turn(2))
get("may-not", "/may/", turn(1, delay=0.3), turn(2))
get("may", "/may/", HANG, turn(2), headers=[("X-May", "1")])
get("off", "/off/", HANG, turn(2))
get("inherited-not", "/inherited/", HANG, turn(2))
get("inherited", "/inherited/", turn(1, delay=0.3), HANG, host="hedged.test")
get("off-over-inherited", "/off/", HANG, turn(2), host="hedged.test")
get("without-retries", "/no-retry/", turn(1, delay=0.3))
get("post", "/plain/", turn(1, delay=0.3), HANG, method="POST", body=b"twice")
get("counted", "/plain/", turn(1, delay=0.3), HANG, host="counted.test")
get("counted-retry", "/plain/", turn(1, 503), turn(2), host="counted.test")
get("h2-second-wins", "/h2/", HANG, http2_turn(2))
get("h2-first-wins", "/h2/", http2_turn(1, delay=0.3), HANG)
get("large-answer", "/plain/", reply(body=b"0123456789" * 20000, delay=0.3), HANG)

table.get("levels-second-wins", "/levels/", upstream={"a": [HANG], "b": [turn(2)]}, unordered=True)
table.get("levels-first-wins", "/levels/", upstream={"a": [turn(1, delay=0.3)], "b": [HANG]}, unordered=True)
table.get(
    "levels-both-break",
    "/levels/",
    upstream={"a": [Reply((ReadBody(), Delay(0.4), Close()))], "b": [Reply((ReadBody(), Delay(0.05), Close()))]},
    unordered=True,
)

for _name, _value in (("true", "true"), ("false", "false"), ("odd", "yes")):
    for _target in ("plain", "inherited", "none"):
        get(
            f"header-{_name}-{_target}",
            f"/{_target}/",
            turn(1, delay=0.3),
            turn(2),
            headers=[("x-envoy-hedge-on-per-try-timeout", _value)],
            listener="inside",
        )
get(
    "header-alone",
    "/none/",
    turn(1, delay=0.3),
    HANG,
    headers=[
        ("x-envoy-hedge-on-per-try-timeout", "true"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "200"),
    ],
    listener="inside",
)
get(
    "header-unknown-condition",
    "/none/",
    turn(1, delay=0.3),
    HANG,
    headers=[
        ("x-envoy-hedge-on-per-try-timeout", "true"),
        ("x-envoy-retry-on", "tuesday"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "200"),
    ],
    listener="inside",
)

_head, _body = request("POST", "/off/", body=b"slowly").split(b"slowly")[0], b"slowly"
table.add("per-try-counts-from-the-end", _head, Pause(0.4), _body, methods=("POST",), upstream=(turn(1), turn(2)))
table.add(
    "per-try-after-a-slow-body", _head, Pause(0.3), _body, methods=("POST",), upstream=(HANG, turn(2)), unordered=True
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
get("interim-before", "/plain/", Reply((ReadBody(), INTERIM, Delay(0.3), WHOLE)), turn(2))
get("interim-late", "/plain/", Reply((ReadBody(), Delay(0.3), INTERIM, Delay(0.1), WHOLE)), turn(2, delay=1.0))
get("interim-of-the-second", "/plain/", turn(1, delay=0.5), Reply((ReadBody(), INTERIM, Delay(0.8), WHOLE)))
