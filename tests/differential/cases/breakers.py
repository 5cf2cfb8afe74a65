"""Circuit breakers, outlier detection, and which requests share a connection to the upstream."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, to
from tests.differential.case import (
    AwaitResponses,
    AwaitUpstream,
    Close,
    Delay,
    ReadBody,
    Reply,
    Send,
    Table,
    reply,
    request,
    turns,
)

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def breakers(site: Site) -> Message:
    def limits(priority: str = "DEFAULT", **fields: Any) -> Message:
        return {"circuit_breakers": {"thresholds": [{"priority": priority, **fields}]}}

    def detection(**fields: Any) -> Message:
        always = {
            "base_ejection_time": "600s",
            "interval": "600s",
            "max_ejection_percent": 100,
            "enforcing_consecutive_gateway_failure": 100,
        }
        return {
            "outlier_detection": {**always, **fields},
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        }

    def protocol(**fields: Any) -> Message:
        options = {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http_protocol_options": {}},
            **fields,
        }
        return {"typed_extension_protocol_options": {HTTP_OPTIONS: options}}

    once = protocol(common_http_protocol_options={"max_requests_per_connection": 1})
    idle = protocol(common_http_protocol_options={"idle_timeout": "0.05s"})
    clusters = [
        cluster(site, "no-requests", ["a"], **limits(max_requests=0)),
        cluster(site, "no-connections", ["a"], **limits(max_connections=0)),
        cluster(site, "no-pending", ["a"], **limits(max_pending_requests=0)),
        cluster(site, "one-request", ["a"], **limits(max_requests=1)),
        cluster(site, "one-connection", ["a"], **limits(max_connections=1, max_pending_requests=1)),
        cluster(site, "high-priority", ["a"], **limits("HIGH", max_requests=0)),
        cluster(site, "once", ["a"], **once),
        cluster(site, "idle", ["a"], **idle),
        cluster(site, "ejects-5xx", ["a"], **detection(consecutive_5xx=2)),
        cluster(site, "ejects-gateway", ["a"], **detection(consecutive_gateway_failure=2, consecutive_5xx=100)),
        cluster(site, "ejects-500-gateway", ["a"], **detection(consecutive_gateway_failure=2, consecutive_5xx=100)),
        cluster(site, "ejects-closed", ["a"], **detection(consecutive_5xx=2)),
        cluster(
            site,
            "ejects-local",
            ["refused"],
            **detection(split_external_local_origin_errors=True, consecutive_local_origin_failure=2),
        ),
        cluster(site, "ejects-never", ["a"], **detection(consecutive_5xx=2, enforcing_consecutive_5xx=0)),
        cluster(
            site,
            "ejects-one-of-two",
            ["a", "b"],
            **{
                **detection(consecutive_5xx=2),
                "outlier_detection": {
                    "consecutive_5xx": 2,
                    "max_ejection_percent": 10,
                    "base_ejection_time": "600s",
                    "interval": "600s",
                },
            },
        ),
        cluster(site, "reset-by-good", ["a"], **detection(consecutive_5xx=2)),
    ]
    routes = [route(f"/{one['name']}/", to(one["name"])) for one in clusters]
    routes.insert(0, route("/high-priority/high", to("high-priority", priority="HIGH")))
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


BOOTSTRAPS = {"breakers": breakers}

table = Table("clusters", "breakers")
CASES = table.cases
get = table.get

on: dict[str, Any] = {"bootstrap": "breakers"}
HANG = reply(delay=0.08)
for _name in ("no-requests", "no-connections", "no-pending", "high-priority"):
    get(f"breaker-{_name}", f"/{_name}/", **on)
get("breaker-high-of-high-priority", "/high-priority/high", **on)
get("breaker-post", "/no-requests/", method="POST", body=b"body", **on)
get("breaker-grpc", "/no-requests/", [("Content-Type", "application/grpc")], method="POST", body=b"x", **on)
for _name in ("one-request", "one-connection"):
    table.add(
        f"breaker-{_name}-taken",
        Send(request("GET", f"/{_name}/1")),
        AwaitUpstream(1),
        Send(request("GET", f"/{_name}/2"), 1),
        Send(request("GET", f"/{_name}/3"), 2),
        AwaitResponses(1, 2),
        upstream=HANG,
        unordered=_name == "one-connection",
        **on,
    )
for _name in ("once", "idle"):
    table.add(
        f"pool-{_name}",
        *turns(request("GET", f"/{_name}/1"), request("GET", f"/{_name}/2")),
        upstream=reply(),
        connections=True,
        **on,
    )
EJECTION = 0.04
"""Seconds: an ejection takes effect a little after the answer that causes it."""

CLOSED = Reply((ReadBody(), Close()))
for _name, _answer in (
    ("ejects-5xx", reply(500)),
    ("ejects-gateway", reply(503)),
    ("ejects-500-gateway", reply(500)),
    ("ejects-closed", CLOSED),
    ("ejects-never", reply(500)),
    ("ejects-local", reply(500)),
):
    table.add(
        f"outlier-{_name}",
        *turns(*(request("GET", f"/{_name}/{number}") for number in range(4)), pause=EJECTION),
        upstream=_answer,
        **on,
    )
table.add(
    "outlier-reset-by-good",
    *turns(*(request("GET", f"/reset-by-good/{number}") for number in range(5)), pause=EJECTION),
    upstream=[reply(500), reply(), reply(500), reply(), reply()],
    **on,
)
table.add(
    "outlier-one-of-two",
    *turns(*(request("GET", "/ejects-one-of-two/") for _ in range(12)), pause=EJECTION),
    upstream={"a": [reply(500, body=b"x")], "b": [reply(body=b"x")]},
    spread=True,
    ignore=tuple(f"client[0].response[{number}].{part}" for number in range(12) for part in ("start", "body")),
    access_log=False,
    **on,
)

table.add(
    "connections-reused",
    *turns(request("GET", "/by/header/1"), request("POST", "/by/header/2", body=b"x"), request("GET", "/by/header/3")),
    upstream={"*": [reply()]},
    listener="http",
    bootstrap="plain",
    connections=True,
)
table.add(
    "connections-after-close",
    *turns(request("GET", "/1"), request("GET", "/2")),
    upstream=[reply(headers=[("Connection", "close")], then=[Close()]), reply()],
    bootstrap="plain",
    connections=True,
)
table.add(
    "connections-after-early-response",
    *turns(request("GET", "/1"), request("GET", "/2")),
    upstream=[reply(version="HTTP/1.0", headers=[("Connection", "keep-alive")]), reply()],
    bootstrap="plain",
    connections=True,
)
table.add(
    "reused-connection-closes-without-answer",
    *turns(request("GET", "/1"), request("GET", "/2")),
    upstream=[reply(), CLOSED, reply(body=b"again")],
    bootstrap="plain",
)
table.add(
    "reused-connection-closes-without-answer-post",
    *turns(request("GET", "/1"), request("POST", "/2", body=b"once")),
    upstream=[reply(), CLOSED, reply(body=b"again")],
    bootstrap="plain",
)
get("slow-then-answered", "/", upstream=Reply((ReadBody(), Delay(0.02), *reply().steps)), bootstrap="plain")
