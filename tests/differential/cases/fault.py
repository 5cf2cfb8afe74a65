"""The fault filter: delays, aborts and response rate limits, from the configuration and from headers."""

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
        "small": delay,
        "small-abort": {**delay, **abort(500)},
        "never": abort(503, numerator=0),
        "by-header": by_header,
        "matched": matched,
        "cluster": {**abort(503), "upstream_cluster": "b"},
        "nodes": {**abort(503), "downstream_nodes": ["known"]},
        "grpc": {"abort": {"grpc_status": 5, "percentage": ALWAYS}},
        "limited": {"response_rate_limit": {"fixed_limit": {"limit_kbps": 10}, "percentage": ALWAYS}},
        "none-at-once": {**abort(503), "max_active_faults": 0},
        "of-HUNDRED": abort(503, numerator=100),
        "of-TEN_THOUSAND": abort(503, numerator=10000, denominator="TEN_THOUSAND"),
        "of-MILLION": abort(503, numerator=1000000, denominator="MILLION"),
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
            listener(
                site,
                name,
                manager(site, routes, filters=[http_filter("fault", "HTTPFault", **fields)]),
                **({"per_connection_buffer_limit_bytes": 20_000} if "small" in name else {}),
            )
            for name, fields in listeners.items()
        ],
    )


def fault_runtime(site: Site) -> Message:
    """Faults that the runtime changes, also those of one downstream cluster."""
    abort = {"abort": {"http_status": 503, "percentage": ALWAYS}}
    call = {"abort": {"grpc_status": 3, "percentage": ALWAYS}}
    delay = {"delay": {"fixed_delay": "0.02s", "percentage": ALWAYS}}
    by_header = {
        "abort": {"header_abort": {}, "percentage": ALWAYS},
        "delay": {"header_delay": {}, "percentage": ALWAYS},
    }
    own_keys = {
        "abort_percent_runtime": "own.abort",
        "abort_http_status_runtime": "own.status",
        "abort_grpc_status_runtime": "own.grpc",
        "delay_percent_runtime": "own.delay",
        "delay_duration_runtime": "own.duration",
        "max_active_faults_runtime": "own.active",
        "response_rate_limit_percent_runtime": "own.limit",
    }
    listeners: dict[str, Message] = {
        "http": {**abort, **delay},
        "call": call,
        "own": {**abort, **delay, **own_keys},
        "own-headers": {**by_header, **own_keys},
        "own-call": {**call, **own_keys},
        "metadata": {**abort, "filter_metadata": {"why": "a test", "n": [1, {"b": True}]}, **own_keys},
        "metadata-of-delay": {**delay, "filter_metadata": {"why": "delay"}, **own_keys},
        "none-active": {**abort, "abort_percent_runtime": "own.abort", "max_active_faults_runtime": "own.none"},
    }
    layer = {
        "fault.http.abort.abort_percent": 0,
        "fault.http.abort.http_status": 418,
        "fault.http.known.abort.abort_percent": 100,
        "fault.http.known.abort.http_status": 429,
        "fault.http.known.abort.grpc_status": 7,
        "fault.http.never.abort.abort_percent": {"numerator": 0, "denominator": "MILLION"},
        "fault.http.with.dots.abort.http_status": 404,
        "fault.http.wrong.abort.http_status": "x",
        "own.abort": 100,
        "own.status": 599,
        "own.grpc": 9,
        "own.delay": 100,
        "own.duration": 1,
        "own.none": 0,
    }
    logged = {**LOGGED, "fault": "%DYNAMIC_METADATA(envoy.filters.http.fault)%"}
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(
                    site,
                    [route("/")],
                    filters=[http_filter("fault", "HTTPFault", **fields)],
                    access_log=[access_log(site, logged)],
                ),
            )
            for name, fields in listeners.items()
        ],
        layered_runtime={"layers": [{"name": "static", "static_layer": layer}]},
    )


BOOTSTRAPS = {"fault": fault, "fault-runtime": fault_runtime}

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
for _listener in ("small", "small-abort"):
    table.get(f"more-than-is-held-{_listener}", method="POST", body=b"x" * 200_000, listener=_listener,
              ignore=("access_log[0].received",))  # fmt: skip
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

for _listener in ("http", "call", "own", "own-call", "metadata", "metadata-of-delay", "none-active"):
    for _cluster in ("", "known", "unknown", "never", "with.dots", "wrong"):
        _named = [("x-envoy-downstream-service-cluster", _cluster)] if _cluster else []
        _call = [("content-type", "application/grpc")] if "call" in _listener else []
        table.get(f"runtime-{_listener}-{_cluster or 'nobody'}", headers=[*_named, *_call], listener=_listener,
                  bootstrap="fault-runtime")  # fmt: skip
for _name, _value in (("abort-request", "429"), ("abort-grpc-request", "5"), ("delay-request", "3"), ("none", "1")):
    table.get(f"runtime-own-headers-{_name}", headers=[(f"x-envoy-fault-{_name}", _value)], listener="own-headers",
              bootstrap="fault-runtime")  # fmt: skip
    table.get(
        f"runtime-own-headers-{_name}-share",
        headers=[(f"x-envoy-fault-{_name}", _value), (f"x-envoy-fault-{_name}-percentage", "0"),
                 ("x-envoy-fault-abort-request-percentage", "0")],
        listener="own-headers",
        bootstrap="fault-runtime",
    )  # fmt: skip
table.get(
    "runtime-counted", "/stats?filter=ingress.fault", listener="admin", access_log=False, bootstrap="fault-runtime"
)
for _denominator, _numerator in (("HUNDRED", 100), ("TEN_THOUSAND", 10000), ("MILLION", 1000000)):
    table.get(f"of-{_denominator}", listener=f"of-{_denominator}")
