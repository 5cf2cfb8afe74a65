"""What lets only so many requests pass: the adaptive concurrency and admission control filters, and limits of pools."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    cluster,
    http_filter,
    listener,
    manager,
    route,
    to,
)
from tests.differential.case import AwaitResponses, AwaitUpstream, Close, ReadBody, Reply, Send, Table, reply, request

GRPC = ("content-type", "application/grpc")
LIMITS = {"concurrency_update_interval": "600s"}


def gradient(**rtt: Any) -> Message:
    """A controller that lets one request through at a time, and measures minRTT with the first three."""
    params = {"interval": "600s", "request_count": 3, "min_concurrency": 1, **rtt}
    return {"concurrency_limit_params": LIMITS, "min_rtt_calc_params": params}


def filtered(site: Site, name: str, *filters: Message, **fields: Any) -> Message:
    return listener(site, name, manager(site, filters=filters, **{"stat_prefix": name, **fields}))


def admission(site: Site) -> Message:
    never = {"default_value": 1_000_000, "runtime_key": "none"}
    always = {"default_value": {"value": 100}, "runtime_key": "none"}
    aggression = {"default_value": 2.0, "runtime_key": "none"}
    ranges = {"http_criteria": {"http_success_status": [{"start": 200, "end": 300}, {"start": 503, "end": 504}]}}
    statuses = {"grpc_criteria": {"grpc_success_status": [0, 14]}}

    def control(**fields: Any) -> Message:
        return http_filter("admission_control", "AdmissionControl", **{"success_criteria": {}, **fields})

    def adaptive(**fields: Any) -> Message:
        given = {"gradient_controller_config": gradient(), **fields}
        return http_filter("adaptive_concurrency", "AdaptiveConcurrency", **given)

    routes = [route("/b", "b"), route("/refused", "refused"), route("/")]
    return bootstrap(
        site,
        [
            filtered(site, "judged", control(rps_threshold=never), routes=routes),
            filtered(site, "ranges", control(success_criteria=ranges, rps_threshold=never)),
            filtered(site, "statuses", control(success_criteria=statuses, rps_threshold=never)),
            filtered(site, "off", control(enabled={"default_value": False, "runtime_key": "none"})),
            filtered(site, "never-bad", control(sr_threshold=always, max_rejection_probability=always)),
            filtered(site, "sheds", control(sr_threshold=always), routes=routes),
            filtered(site, "sheds-hard", control(sr_threshold=always, aggression=aggression), routes=routes),
            filtered(site, "one", adaptive(), routes=routes),
            filtered(site, "one-429", adaptive(concurrency_limit_exceeded_status={"code": 429})),
            filtered(site, "one-200", adaptive(concurrency_limit_exceeded_status={"code": 200})),
            filtered(site, "fixed", adaptive(gradient_controller_config=gradient(fixed_value="0.05s"))),
            filtered(site, "unlimited", adaptive(enabled={"default_value": False, "runtime_key": "none"})),
        ],
    )


def pools(site: Site) -> Message:
    def limited(name: str, hosts: list[str], *thresholds: Message, **fields: Any) -> Message:
        return cluster(site, name, hosts, circuit_breakers={"thresholds": list(thresholds), **fields})

    tracked = {"track_remaining": True, "max_connections": 9, "max_pending_requests": 8, "max_requests": 7,
               "max_retries": 6, "max_connection_pools": 5}  # fmt: skip
    budget = {"budget_percent": {"value": 50}, "min_retry_concurrency": 4}
    retries = {"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}
    clusters = [
        limited("one-pool", ["a", "b"], {"max_connection_pools": 1, "track_remaining": True}),
        limited("no-pool", ["a"], {"max_connection_pools": 0}),
        limited("one-each", ["a"], {}, per_host_thresholds=[{"max_connections": 1}]),
        limited("none-each", ["a"], {"track_remaining": True}, per_host_thresholds=[{"max_connections": 0}]),
        limited("tracked", ["a"], tracked, {**tracked, "priority": "HIGH", "retry_budget": budget}),
        limited("no-high-connections", ["a"], {"priority": "HIGH", "max_connections": 0}),
        limited("budget-none", ["a"], {"retry_budget": {"budget_percent": {"value": 0}, "min_retry_concurrency": 0}}),
        limited("budget-one", ["a"], {"max_retries": 0, "retry_budget": {"min_retry_concurrency": 1}}),
        limited("by-runtime", ["a"], {"max_requests": 5}),
        limited("budget-by-runtime", ["a"], {"max_retries": 9}),
    ]
    routes = [route(f"/{one['name']}/high", to(one["name"], priority="HIGH")) for one in clusters]
    routes += [route(f"/{one['name']}/", to(one["name"], retry_policy=retries)) for one in clusters]
    runtime = {
        "circuit_breakers": {
            "by-runtime": {"default": {"max_requests": 0}, "high": {"max_pending_requests": 0}},
            "budget-by-runtime": {"default": {"retry_budget": {"min_retry_concurrency": 0, "budget_percent": 0}}},
        }
    }
    return bootstrap(
        site,
        [listener(site, "http", manager(site, routes))],
        clusters,
        layered_runtime={"layers": [{"name": "static", "static_layer": runtime}]},
    )


BOOTSTRAPS = {"admission": admission, "pools": pools}

table = Table("admission", "admission")
of_pools = Table("pools", "pools")
BROKEN = Reply((ReadBody(), Close()))


def counted(name: str, listener_name: str, filter: str) -> None:
    """What the filter of a listener has counted so far."""
    target = f"/stats?filter=http.{listener_name}.{filter}"
    table.get(f"{name}-counted", target, listener="admin", access_log=False)


for _status in (200, 204, 302, 404, 429, 499, 500, 501, 503, 504):
    table.get(f"status-{_status}", upstream=reply(_status), listener="judged")
    table.get(f"status-{_status}-of-ranges", upstream=reply(_status), listener="ranges")
table.get("own-answer", "/refused", listener="judged")
table.get("broken-off", "/b", upstream=BROKEN, listener="judged")
for _status in range(18):
    in_head = reply(200, b"", [GRPC, ("grpc-status", str(_status))])
    table.get(f"grpc-{_status}", headers=[GRPC], method="POST", upstream=in_head, listener="judged")
    table.get(f"grpc-{_status}-of-statuses", headers=[GRPC], method="POST", upstream=in_head, listener="statuses")
table.get("grpc-without-status", headers=[GRPC], method="POST", upstream=reply(200, b"x", [GRPC]), listener="judged")
table.get("grpc-status-of-503", upstream=reply(503, b"x", [GRPC, ("grpc-status", "0")]), listener="judged")
table.get("grpc-status-without-type", upstream=reply(200, b"", [("grpc-status", "14")]), listener="judged")
for _name in ("judged", "ranges", "statuses"):
    counted(f"{_name}", _name, "admission_control")
table.get("off", upstream=reply(500), listener="off")
counted("off", "off", "admission_control")
for _number in range(3):
    table.get(f"all-good-{_number}", upstream=reply(404), listener="never-bad")
counted("all-good", "never-bad", "admission_control")


def while_another(name: str, listener_name: str, target: str = "/") -> None:
    """A request while another is under way."""
    table.add(
        name,
        Send(request("GET", "/first")),
        AwaitUpstream(1),
        Send(request("GET", target), 1),
        AwaitResponses(1, 1),
        upstream=reply(delay=0.08),
        listener=listener_name,
    )


for _name in ("one", "one-429", "one-200", "fixed", "unlimited"):
    while_another(f"two-at-once-{_name}", _name)
table.get("own-answer-of-one", "/refused", listener="one")
table.get("grpc-over-limit", headers=[GRPC], method="POST", listener="one")
counted("one", "one", "adaptive_concurrency.gradient_controller.(rq_blocked|min_rtt_calculation|concurrency_limit)")
counted("fixed", "fixed", "adaptive_concurrency.gradient_controller.(rq_blocked|min_rtt|concurrency_limit|gradient)")

get = of_pools.get


def breakers_of(name: str, cluster_name: str, gauges: str = "circuit_breakers") -> None:
    """What a cluster's limits are, the gauges of its breakers, and what they have refused."""
    get(f"{name}-limits", f"/clusters?filter=^{cluster_name}", listener="admin", access_log=False)
    target = f"/stats?filter=cluster.{cluster_name}.({gauges}|upstream_rq_.*overflow|upstream_cx_.*overflow)"
    get(f"{name}-breakers", target, listener="admin", access_log=False)


for _name in ("one-pool", "tracked", "none-each"):
    breakers_of(f"{_name}-before", _name)
get("no-pool", "/no-pool/")
get("no-pool-post", "/no-pool/", method="POST", body=b"body")
get("no-pool-grpc", "/no-pool/", [GRPC], method="POST", body=b"x")
get("no-pool-high", "/no-pool/high")
breakers_of("no-pool", "no-pool", "remaining")
of_pools.add(
    "one-pool",
    *[one for number in range(6) for one in (request("GET", f"/one-pool/high/{number}"), AwaitResponses(number + 1))],
    upstream={"a": [reply(body=b"one")], "b": [reply(body=b"one")]},
    spread=True,
    access_log=False,  # which of the two is the first is left to chance
)
get("none-each", "/none-each/")
get("tracked", "/tracked/")
breakers_of("tracked-after", "tracked")
of_pools.add(
    "one-each-taken",
    Send(request("GET", "/one-each/1")),
    AwaitUpstream(1),
    Send(request("GET", "/one-each/2"), 1),
    AwaitResponses(1, 1),
    upstream=reply(delay=0.08),
    unordered=True,
    connections=True,
)
get("no-high-connections", "/no-high-connections/high")
for _name in ("budget-none", "budget-one", "budget-by-runtime"):
    get(f"{_name}", f"/{_name}/", upstream=[reply(503), reply(503), reply()])
    breakers_of(_name, _name, "remaining")
get("by-runtime", "/by-runtime/")
get("by-runtime-high", "/by-runtime/high")
target = "/stats?filter=cluster.by-runtime.upstream_rq_.*overflow"
get("by-runtime-breakers", target, listener="admin", access_log=False)
CASES = [*table.cases, *of_pools.cases]
