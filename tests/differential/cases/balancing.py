"""Which endpoint is picked: subsets, priorities, health, weights, names and original destinations."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, address, bootstrap, cluster, endpoint, listener, manager, route, to
from tests.differential.case import (
    Table,
    request,
    turns,
)


def subsets(site: Site) -> Message:
    def member(upstream: str, **metadata: str) -> Message:
        return endpoint(site, upstream, metadata={"filter_metadata": {"envoy.lb": metadata}})

    members = [
        member("a", version="1", stage="prod"),
        member("b", version="2", stage="prod"),
        member("c", version="2", stage="dev"),
        member("d", version="3"),
    ]

    def subset(name: str, policy: str, **fields: Any) -> Message:
        config = {
            "fallback_policy": policy,
            "subset_selectors": [{"keys": ["version"]}, {"keys": ["version", "stage"]}],
            **fields,
        }
        endpoints = {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]}
        return cluster(site, name, lb_subset_config=config, load_assignment=endpoints)

    def matching(**metadata: str) -> Message:
        return {"metadata_match": {"filter_metadata": {"envoy.lb": metadata}}}

    clusters = [
        subset("none", "NO_FALLBACK"),
        subset("any", "ANY_ENDPOINT"),
        subset("default", "DEFAULT_SUBSET", default_subset={"version": "3"}),
        subset(
            "single",
            "NO_FALLBACK",
            subset_selectors=[
                {"keys": ["version", "stage"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["version"]},
                {"keys": ["version"]},
            ],
        ),
    ]
    wanted = {
        "v1": matching(version="1"),
        "v2-dev": matching(version="2", stage="dev"),
        "v9": matching(version="9"),
        "v1-dev": matching(version="1", stage="dev"),
        "stage": matching(stage="dev"),
        "nothing": {},
    }
    routes = [
        route(f"/{one['name']}/{name}", to(one["name"], **match)) for one in clusters for name, match in wanted.items()
    ]
    routes.append(
        route(
            "/weighted",
            {
                "route": {
                    "weighted_clusters": {"clusters": [{"name": "none", "weight": 1, **matching(stage="dev")}]},
                    **matching(version="2"),
                }
            },
        )
    )
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


def balancing(site: Site) -> Message:
    def groups(name: str, *endpoints: Message, **fields: Any) -> Message:
        return cluster(site, name, load_assignment={"cluster_name": name, "endpoints": list(endpoints)}, **fields)

    def group(*upstreams: str, health: str = "HEALTHY", **fields: Any) -> Message:
        return {"lb_endpoints": [endpoint(site, upstream, health_status=health) for upstream in upstreams], **fields}

    no_panic = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
    weighted = [endpoint(site, "a", load_balancing_weight=1), endpoint(site, "b", load_balancing_weight=3)]
    clusters = [
        cluster(site, "round-robin", ["a", "b", "c"]),
        cluster(site, "least-request", ["a"], lb_policy="LEAST_REQUEST"),
        cluster(site, "random", ["a"], lb_policy="RANDOM"),
        groups("weighted", {"lb_endpoints": weighted}),
        groups("first-priority", group("a"), group("b", priority=1)),
        groups("second-priority", group("a", health="UNHEALTHY"), group("b", priority=1)),
        groups("draining", group("a", health="DRAINING"), group("b", priority=1)),
        groups("degraded", group("a", health="DEGRADED"), group("b", priority=1)),
        groups("only-degraded", group("a", health="DEGRADED"), **no_panic),
        groups("timeout-status", group("a", health="TIMEOUT"), group("b", priority=1)),
        groups("panic", group("a", health="UNHEALTHY")),
        groups("no-panic", group("a", health="UNHEALTHY"), **no_panic),
        groups(
            "fails-in-panic",
            group("a", health="UNHEALTHY"),
            common_lb_config={"zone_aware_lb_config": {"fail_traffic_on_panic": True}},
        ),
        groups("empty-first", {"lb_endpoints": []}, group("b", priority=1)),
        groups(
            "localities",
            group("a", locality={"zone": "one"}, load_balancing_weight=1),
            group("b", locality={"zone": "two"}, load_balancing_weight=1),
            common_lb_config={"locality_weighted_lb_config": {}},
        ),
    ]
    routes = [route(f"/{one['name']}/", to(one["name"])) for one in clusters]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


def discovery(site: Site) -> Message:
    """Clusters whose endpoints are found by name or by the request."""

    def by_name(name: str, kind: str, host: str = "localhost") -> Message:
        endpoints = [{"endpoint": {"address": address(site.upstreams["a"], host)}}]
        return cluster(
            site,
            name,
            type=kind,
            dns_lookup_family="V4_ONLY",
            load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        )

    original = {
        "name": "original",
        "connect_timeout": "1s",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True},
    }
    named = {
        **original,
        "name": "original-named",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": "x-target"},
    }
    forced = {
        **original,
        "name": "original-forced",
        "original_dst_lb_config": {"use_http_header": True, "upstream_port_override": site.upstreams["b"]},
    }
    clusters = [
        by_name("strict", "STRICT_DNS"),
        by_name("logical", "LOGICAL_DNS"),
        by_name("literal", "STRICT_DNS", "127.0.0.1"),
        original,
        named,
        forced,
    ]
    routes = [route(f"/{one['name']}/", to(one["name"])) for one in clusters]
    routes.append(route("/rewritten", to("logical", auto_host_rewrite=True)))
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


BOOTSTRAPS = {"subsets": subsets, "balancing": balancing, "discovery": discovery}

table = Table("clusters", "subsets")
CASES = table.cases
get = table.get

on: dict[str, Any] = {"bootstrap": "subsets"}
for _cluster in ("none", "any", "default", "single"):
    for _match in ("v1", "v2-dev", "v9", "v1-dev", "stage", "nothing"):
        _several = _cluster == "any" and _match in ("v9", "v1-dev", "stage", "nothing")
        if not _several:
            get(f"subset-{_cluster}-{_match}", f"/{_cluster}/{_match}", **on)
get("subset-weighted-cluster", "/weighted", **on)

on = {"bootstrap": "balancing"}
table.add(
    "round-robin",
    *turns(*(request("GET", "/round-robin/") for _ in range(6))),
    spread=True,
    ignore=tuple(f"client[0].response[{number}].body" for number in range(6))
    + tuple(f"access_log[{number}].upstream" for number in range(6)),
    **on,
)
for _name in (
    "least-request",
    "random",
    "first-priority",
    "second-priority",
    "draining",
    "degraded",
    "only-degraded",
    "timeout-status",
    "panic",
    "no-panic",
    "fails-in-panic",
    "empty-first",
):
    get(f"pick-{_name}", f"/{_name}/", **on)
table.add(
    "weighted",
    *turns(*(request("GET", "/weighted/") for _ in range(8))),
    spread=True,
    ignore=tuple(f"client[0].response[{number}].body" for number in range(8))
    + tuple(f"access_log[{number}].upstream" for number in range(8)),
    **on,
)

on = {"bootstrap": "discovery"}
for _name in ("strict", "logical", "literal"):
    get(f"discovery-{_name}", f"/{_name}/", **on)
get("discovery-auto-host", "/rewritten", **on)
get("original-by-header", "/original/", [("x-envoy-original-dst-host", "127.0.0.1:{port-a}")], **on)
get("original-by-named-header", "/original-named/", [("X-Target", "127.0.0.1:{port-b}")], **on)
get("original-port-override", "/original-forced/", [("x-envoy-original-dst-host", "127.0.0.1:{port-a}")], **on)
get("original-bad-header", "/original/", [("x-envoy-original-dst-host", "nowhere")], **on)
get("original-refused", "/original/", [("x-envoy-original-dst-host", "127.0.0.1:{port-refused}")], **on)
