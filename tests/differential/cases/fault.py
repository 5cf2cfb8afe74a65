"""The fault filter: delays, aborts and response rate limits, from the configuration and from headers."""

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
    say,
    to,
)
from tests.differential.case import Table, reply

ALWAYS = {"numerator": 100}


def fault(site: Site) -> Message:
    def abort(status: int, **percentage: Any) -> Message:
        return {"abort": {"http_status": status, "percentage": percentage or ALWAYS}}

    delay = {"delay": {"fixed_delay": "0.05s", "percentage": ALWAYS}}
    by_header = {
        "abort": {"header_abort": {}, "percentage": ALWAYS},
        "delay": {"header_delay": {}, "percentage": ALWAYS},
        "response_rate_limit": {"header_limit": {}, "percentage": ALWAYS},
    }
    matched = {**abort(418), "headers": [{"name": "x-fault", "string_match": {"exact": "yes"}}]}

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("fault", "HTTPFault", **fields)}

    listeners = {
        "http": {**abort(503)},
        "delay": delay,
        "delay-abort": {**delay, **abort(500)},
        "never": abort(503, numerator=0),
        "by-header": by_header,
        "matched": matched,
        "cluster": {**abort(503), "upstream_cluster": "b"},
        "nodes": {**abort(503), "downstream_nodes": ["known"]},
        "grpc": {"abort": {"grpc_status": 5, "percentage": ALWAYS}},
        "limited": {"response_rate_limit": {"fixed_limit": {"limit_kbps": 10}, "percentage": ALWAYS}},
        "none-at-once": {**abort(503), "max_active_faults": 0},
    }
    routes = [
        route("/b", to("b")),
        route("/own", to("a"), **own(**abort(429))),
        route("/off", to("a"), **own()),
        route("/said", say(200, "said")),
        route("/"),
    ]
    return bootstrap(
        site,
        [
            listener(site, name, manager(site, routes, filters=[http_filter("fault", "HTTPFault", **fields)]))
            for name, fields in listeners.items()
        ],
    )


BOOTSTRAPS = {"fault": fault}

table = Table("fault", "fault")
CASES = table.cases
for _listener in (
    "http",
    "delay",
    "delay-abort",
    "never",
    "matched",
    "cluster",
    "nodes",
    "grpc",
    "none-at-once",
    "by-header",
    "limited",
):
    table.get(_listener, listener=_listener)
table.get("matched-by-header", headers=[("X-Fault", "yes")], listener="matched")
table.get("cluster-other", "/b", listener="cluster")
table.get("node-known", headers=[("x-envoy-downstream-service-node", "known")], listener="nodes")
table.get("route-own", "/own")
table.get("route-off", "/off")
table.get("direct-response", "/said")
table.get("head", method="HEAD")
table.get("post", method="POST", body=b"body", listener="delay")
table.get("grpc-request", headers=[("Content-Type", "application/grpc")], method="POST", listener="grpc")
table.get("abort-header", headers=[("x-envoy-fault-abort-request", "429")], listener="by-header")
table.get("abort-header-out-of-range", headers=[("x-envoy-fault-abort-request", "999")], listener="by-header")
table.get("abort-header-bad", headers=[("x-envoy-fault-abort-request", "soon")], listener="by-header")
table.get(
    "abort-header-percentage",
    headers=[("x-envoy-fault-abort-request", "429"), ("x-envoy-fault-abort-request-percentage", "0")],
    listener="by-header",
)
table.get("abort-header-grpc", headers=[("x-envoy-fault-abort-grpc-request", "5")], listener="by-header")
table.get("delay-header", headers=[("x-envoy-fault-delay-request", "20")], listener="by-header")
table.get("delay-header-bad", headers=[("x-envoy-fault-delay-request", "later")], listener="by-header")
table.get("throughput-header", headers=[("x-envoy-fault-throughput-response", "1000")], listener="by-header")
table.get("limited-body", listener="limited", upstream=reply(body=b"x" * 2000))
