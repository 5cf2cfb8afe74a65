"""The health_check and buffer filters."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    to,
)
from tests.differential.case import AwaitResponses, Delay, ReadBody, Reply, Table, reply, request


def health_check(site: Site) -> Message:
    at_health = [{"name": ":path", "string_match": {"exact": "/health"}}]
    listeners: dict[str, Message] = {
        "http": {"pass_through_mode": False, "headers": at_health},
        "pass": {"pass_through_mode": True, "headers": at_health},
        "cached": {"pass_through_mode": True, "cache_time": "60s", "headers": at_health},
        "percentages": {
            "pass_through_mode": False,
            "headers": at_health,
            "cluster_min_healthy_percentages": {"a": {"value": 50}, "empty": {"value": 0}},
        },
        "percentages-empty": {
            "pass_through_mode": False,
            "headers": at_health,
            "cluster_min_healthy_percentages": {"empty": {"value": 50}},
        },
        "two-headers": {
            "pass_through_mode": False,
            "headers": [*at_health, {"name": "x-check", "present_match": True}],
        },
    }
    return bootstrap(
        site,
        [
            listener(site, name, manager(site, filters=[http_filter("health_check", "HealthCheck", **fields)]))
            for name, fields in listeners.items()
        ],
    )


def buffer(site: Site) -> Message:
    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("buffer", "BufferPerRoute", **fields)}

    routes = [
        route("/off", to("a"), **own(disabled=True)),
        route("/more", to("a"), **own(buffer={"max_request_bytes": 2000})),
        route("/"),
    ]
    filters = [http_filter("buffer", "Buffer", max_request_bytes=1000)]
    return bootstrap(site, [listener(site, "http", manager(site, routes, filters=filters))])


BOOTSTRAPS = {"health-check": health_check, "buffer": buffer}

table = Table("health-check", "health-check")
for _listener in ("http", "pass", "percentages", "percentages-empty", "two-headers"):
    table.get(f"{_listener}-health", "/health", listener=_listener)
    table.get(f"{_listener}-other", "/other", listener=_listener)
table.get("query", "/health?x=1")
table.get("two-headers-both", "/health", [("X-Check", "1")], listener="two-headers")
table.get("head", "/health", method="HEAD")
table.get("pass-fails", "/health", listener="pass", upstream=reply(503))
table.add(
    "cached-twice",
    request("GET", "/health"),
    AwaitResponses(1),
    request("GET", "/health"),
    listener="cached",
    upstream=reply(200),
)


buffered = Table("buffer", "buffer")
for _size in (0, 999, 1000, 1001, 5000):
    buffered.get(f"size-{_size}", method="POST", body=b"x" * _size)
    buffered.add(f"chunked-{_size}", request("POST", "/", chunks=[b"x" * _size] if _size else []))
buffered.get("off", "/off", method="POST", body=b"x" * 5000)
buffered.get("more", "/more", method="POST", body=b"x" * 1500)
buffered.get("more-too-large", "/more", method="POST", body=b"x" * 2500)
buffered.get("expect", "/", [("Expect", "100-continue")], method="POST", body=b"x" * 10)
buffered.add("trailers", request("POST", "/", chunks=[b"x" * 10], trailers=[("X-Sum", "1")]))
buffered.add(
    "slow-upstream", request("POST", "/", chunks=[b"x"]), upstream=Reply((ReadBody(), Delay(0.03), *reply().steps))
)

CASES = [*table.cases, *buffered.cases]
