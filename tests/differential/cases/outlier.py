"""Who is found to be an outlier: in a row, by success rate, by failure percentage, on the way and in answers.

``test_outlier.py`` runs the traffic of ``outlier`` whose outcome depends on time; what does not is here.
"""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, to
from tests.differential.case import Close, ReadBody, Reply, Table, reply, request, turns

EVENTS = "outlier-events.log"
HOSTS = ["a", "b", "c", "d", "e"]
RATES = {"consecutive_5xx": 1000, "enforcing_consecutive_gateway_failure": 0, "success_rate_minimum_hosts": 3,
         "success_rate_request_volume": 5, "success_rate_stdev_factor": 1000, "failure_percentage_minimum_hosts": 100,
         "max_ejection_percent": 100}  # fmt: skip
PERCENTAGE = {**RATES, "success_rate_minimum_hosts": 100, "failure_percentage_minimum_hosts": 3,
              "failure_percentage_request_volume": 5, "enforcing_failure_percentage": 100,
              "enforcing_failure_percentage_local_origin": 100}  # fmt: skip
SPLIT = {"split_external_local_origin_errors": True, "consecutive_local_origin_failure": 1000}
AT_ONCE = {"enforcing_success_rate": 0, "base_ejection_time": "0.1s", "max_ejection_percent": 100}

DETECTIONS: dict[str, tuple[list[str], Message]] = {
    "tick": (["a"], {"consecutive_5xx": 1, "base_ejection_time": "0.001s", "max_ejection_percent": 100}),
    "rate": (HOSTS, RATES),
    "rate-near": (HOSTS, {**RATES, "success_rate_stdev_factor": 2001}),
    "rate-not-enforced": (HOSTS, {**RATES, "enforcing_success_rate": 0}),
    "rate-of-few-requests": (HOSTS, {**RATES, "success_rate_request_volume": 11}),
    "rate-of-few-hosts": (HOSTS[:2], RATES),
    "rate-overflow": (HOSTS, {**RATES, "max_ejection_percent": 10}),
    "rate-one-always": (HOSTS, {**RATES, "max_ejection_percent": 10, "always_eject_one_host": True}),
    "rate-local": (["refused", *HOSTS[1:]], {**RATES, **SPLIT}),
    "rate-local-not-enforced": (["refused", *HOSTS[1:]], {**RATES, **SPLIT, "enforcing_local_origin_success_rate": 0}),
    "rate-unsplit": (["refused", *HOSTS[1:]], RATES),
    "percentage": (HOSTS, PERCENTAGE),
    "percentage-not-enforced": (HOSTS, {**PERCENTAGE, "enforcing_failure_percentage": 0}),
    "percentage-local": (["refused", *HOSTS[1:]], {**PERCENTAGE, **SPLIT}),
    "row": (HOSTS, {**AT_ONCE, "consecutive_5xx": 3}),
    "row-not-enforced": (HOSTS, {**AT_ONCE, "consecutive_5xx": 4, "enforcing_consecutive_5xx": 0}),
    "row-overflow": (HOSTS, {**AT_ONCE, "consecutive_5xx": 3, "max_ejection_percent": 19}),
    "row-gateway": (HOSTS, {**AT_ONCE, "consecutive_5xx": 1000, "consecutive_gateway_failure": 4,
                            "enforcing_consecutive_gateway_failure": 100}),
    "checked": (HOSTS, {"enforcing_success_rate": 0, "max_ejection_percent": 100}),
    "checked-in-vain": (HOSTS, {"enforcing_success_rate": 0, "max_ejection_percent": 100,
                                "successful_active_health_check_uneject_host": False}),
    "row-local": (["refused", *HOSTS[1:]], {**AT_ONCE, **SPLIT, "consecutive_local_origin_failure": 3}),
}  # fmt: skip
"""By cluster: its hosts, of which the first one fails, and how outliers are detected. `tick` shows when intervals end."""


CHECKED = {
    "health_checks": [
        {
            "timeout": "1s",
            "interval": "0.2s",
            "no_traffic_interval": "0.2s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 1,
            "tcp_health_check": {},
        }
    ]
}
"""Every host passes."""


HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def head_with(name: str, value: str) -> Message:
    return {"http_response_headers_match": {"headers": [{"name": name, "string_match": {"exact": value}}]}}


PREDICATES: dict[str, Message] = {
    "404": head_with(":status", "404"),
    "503": head_with(":status", "503"),
    "or": {"or_match": {"rules": [head_with(":status", "404"), head_with("x-bad", "yes")]}},
    "and": {"and_match": {"rules": [head_with(":status", "404"), head_with("x-bad", "yes")]}},
    "not": {"not_match": head_with(":status", "200")},
    "any": {"any_match": True},
}


def detection(fields: Message, **more: Any) -> Message:
    given = {"interval": "4s", "base_ejection_time": "600s", **fields, **more}
    return {"outlier_detection": given, "common_lb_config": {"healthy_panic_threshold": {"value": 0}}}


def outlier(site: Site) -> Message:
    clusters = [
        cluster(site, name, hosts, **detection(fields), **(CHECKED if name.startswith("checked") else {}))
        for name, (hosts, fields) in DETECTIONS.items()
    ]
    # With no word about retries, what a host refuses would go to another one here, and to none in Envoy.
    routes = [route(f"/{name}/", to(name, retry_policy={})) for name in DETECTIONS]
    return bootstrap(
        site,
        [listener(site, "http", manager(site, routes))],
        clusters,
        cluster_manager={"outlier_detection": {"event_log_path": str(site.directory / EVENTS)}},
    )


def outlier_counts(site: Site) -> Message:
    def counting(name: str, hosts: list[str], **fields: Any) -> Message:
        return cluster(site, name, hosts, **detection(fields, interval="600s", max_ejection_percent=100))

    def matching(name: str, predicate: Message) -> Message:
        options = {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http_protocol_options": {}},
            "outlier_detection": {"error_matcher": predicate},
        }
        made = counting(name, ["a"], consecutive_5xx=2, consecutive_gateway_failure=2, enforcing_consecutive_5xx=0)
        return {**made, "typed_extension_protocol_options": {HTTP_OPTIONS: options}}

    clusters = [
        *(matching(f"matched-{name}", predicate) for name, predicate in PREDICATES.items()),
        counting("split", ["a"], split_external_local_origin_errors=True, consecutive_local_origin_failure=2),
        counting("split-refused", ["refused"], split_external_local_origin_errors=True,
                 consecutive_local_origin_failure=2),
        counting("together", ["a"], consecutive_5xx=2, consecutive_gateway_failure=2),
        counting("by-runtime", ["a"], consecutive_5xx=1000),
    ]  # fmt: skip
    routes = [route(f"/{one['name']}/", to(one["name"], timeout="0.1s")) for one in clusters]
    return bootstrap(
        site,
        [listener(site, "http", manager(site, routes))],
        clusters,
    )


def outlier_runtime(site: Site) -> Message:
    detected = detection({"consecutive_5xx": 1000, "enforcing_consecutive_5xx": 0, "max_ejection_percent": 100})
    runtime = {"outlier_detection": {"consecutive_5xx": 2, "enforcing_consecutive_5xx": 100, "interval_ms": 600000}}
    return bootstrap(
        site,
        [listener(site, "http", manager(site, [route("/", to("runtime"))]))],
        [cluster(site, "runtime", ["a"], **detected)],
        layered_runtime={"layers": [{"name": "static", "static_layer": runtime}]},
    )


BOOTSTRAPS = {"outlier": outlier, "outlier-counts": outlier_counts, "outlier-runtime": outlier_runtime}

table = Table("outlier", "outlier-counts")
CASES = table.cases
CLOSED = Reply((ReadBody(), Close()))
SLOW = reply(delay=0.3)


def in_turn(name: str, path: str, *answers: Reply, bootstrap: str = "outlier-counts") -> None:
    """Requests one after the other, and then what was detected."""
    table.add(
        name,
        *turns(*(request("POST", path, body=b"x") for _ in answers), pause=0.04),
        upstream=list(answers),
        bootstrap=bootstrap,
    )
    target = "/stats?filter=outlier_detection.ejections_"
    table.get(f"{name}-counted", target, listener="admin", access_log=False, bootstrap=bootstrap)


in_turn("split-closes", "/split/", *[CLOSED] * 4)
in_turn("split-timeouts", "/split/", *[SLOW] * 4)
in_turn("split-refused", "/split-refused/", *[reply()] * 3)
in_turn("together-timeouts", "/together/", SLOW, reply(500), reply())
in_turn("by-runtime", "/", reply(500), reply(500), reply(), bootstrap="outlier-runtime")

BAD = [("x-bad", "yes")]
for _name in PREDICATES:
    path = f"/matched-{_name}/"
    in_turn(f"matched-{_name}-404", path, reply(404), reply(404))
    in_turn(f"matched-{_name}-500", path, reply(500), reply(500))
    in_turn(f"matched-{_name}-503-between", path, reply(503), reply(404, headers=BAD), reply(503), reply(503))
    in_turn(f"matched-{_name}-good", path, *[reply()] * 3)
    in_turn(f"matched-{_name}-header", path, reply(headers=BAD), reply(404, headers=BAD))
    in_turn(f"matched-{_name}-timeouts", path, SLOW, SLOW)
    table.get(f"matched-{_name}-hosts", f"/clusters?filter=^matched-{_name}", listener="admin", access_log=False)
