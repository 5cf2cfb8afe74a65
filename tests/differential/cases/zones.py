"""Localities, priorities and weights: who gets how much. What is left to chance is compared in ``test_balancing.py``."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, endpoint, listener, manager, route, to
from tests.differential.case import Table, request, turns

POLICIES = "type.googleapis.com/envoy.extensions.load_balancing_policies"
HERE, THERE = {"region": "r", "zone": "here"}, {"region": "r", "zone": "there"}


def group(site: Site, upstreams: str, zone: Message | None = None, health: str = "", **fields: Any) -> Message:
    """The endpoints of one locality; those named in `health` as ``b=UNHEALTHY`` are not healthy."""
    ill = dict(one.split("=") for one in health.split())
    hosts = [endpoint(site, upstream, health_status=ill.get(upstream, "HEALTHY")) for upstream in upstreams]
    return {"lb_endpoints": hosts, **({} if zone is None else {"locality": zone}), **fields}


def of(site: Site, name: str, *groups: Message, policy: Message | None = None, **fields: Any) -> Message:
    assignment = {"cluster_name": name, "endpoints": list(groups), **({} if policy is None else {"policy": policy})}
    return cluster(site, name, load_assignment=assignment, **fields)


def by_zones(**fields: Any) -> Message:
    return {"common_lb_config": {"zone_aware_lb_config": {"min_cluster_size": 1, **fields}}}


def extension(kind: str, **fields: Any) -> Message:
    typed = {"name": "policy", "typed_config": {"@type": f"{POLICIES}.{kind}", **fields}}
    return {"policies": [{"typed_extension_config": typed}]}


def forced(**fields: Any) -> Message:
    zones = {"zone_aware_lb_config": {"min_cluster_size": 1, **fields}}
    return {"load_balancing_policy": extension("round_robin.v3.RoundRobin", locality_lb_config=zones)}


def weighing(site: Site, upstreams: str, weights: tuple[int, ...], zone: Message | None = None) -> Message:
    hosts = [
        endpoint(site, upstream, load_balancing_weight=weight)
        for upstream, weight in zip(upstreams, weights, strict=True)
    ]
    return {"lb_endpoints": hosts, **({} if zone is None else {"locality": zone})}


def zones(site: Site) -> Message:
    return _zones(site, group(site, "ab", HERE), group(site, "cd", THERE))


def zones_ill(site: Site) -> Message:
    """The proxies are in panic: more than half of them are not well."""
    return _zones(site, group(site, "ab", HERE, "a=UNHEALTHY b=UNHEALTHY"), group(site, "c", THERE))


def _zones(site: Site, *own: Message) -> Message:
    near, far = group(site, "a", HERE), group(site, "bcd", THERE)
    clusters = [
        of(site, "own", *own),
        of(site, "direct", group(site, "ab", HERE), group(site, "c", THERE), **by_zones()),
        of(site, "residual", near, far, **by_zones()),
        of(site, "half", near, far, **by_zones(routing_enabled={"value": 50})),
        of(site, "never", near, far, **by_zones(routing_enabled={"value": 0})),
        of(site, "small", near, far),
        of(site, "elsewhere", group(site, "a", {"zone": "x"}), group(site, "bc", {"zone": "y"}), **by_zones()),
        of(site, "one-zone", group(site, "abc", HERE), **by_zones()),
        of(site, "near-is-ill", group(site, "a", HERE, "a=UNHEALTHY"), far, **by_zones()),
        of(site, "panic", group(site, "ab", HERE, "a=UNHEALTHY b=UNHEALTHY"), group(site, "c", THERE), **by_zones()),
        of(
            site,
            "fails-in-panic",
            group(site, "ab", HERE, "a=UNHEALTHY b=UNHEALTHY"),
            group(site, "c", THERE),
            **by_zones(fail_traffic_on_panic=True),
        ),
        of(site, "fails-if-they-panic", near, far, **by_zones(fail_traffic_on_panic=True)),
        of(site, "forced", near, far, **forced(force_local_zone={})),
        of(site, "forced-from-two", near, far, **forced(force_local_zone={"min_size": 2})),
        of(site, "heavy", weighing(site, "a", (9,), HERE), far, **forced(locality_basis="HEALTHY_HOSTS_WEIGHT")),
        of(site, "least-request", near, far, lb_policy="LEAST_REQUEST", **by_zones()),
        of(site, "random", near, far, lb_policy="RANDOM", **by_zones()),
    ]
    routes = [route(f"/{one['name']}/", one["name"]) for one in clusters]
    made = bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)
    made["node"]["locality"] = HERE
    made["cluster_manager"] = {"local_cluster_name": "own"}
    return made


def shares(site: Site) -> Message:
    """Priorities, weights of localities and of hosts, subsets of localities."""
    weighted: Message = {"common_lb_config": {"locality_weighted_lb_config": {}}}
    scan = extension("least_request.v3.LeastRequest", selection_method="FULL_SCAN")
    least = {"lb_policy": "LEAST_REQUEST"}
    second = group(site, "de", priority=1)

    def version(upstream: str, number: str) -> Message:
        return endpoint(site, upstream, metadata={"filter_metadata": {"envoy.lb": {"version": number}}})

    x = {"locality": HERE, "load_balancing_weight": 3, "lb_endpoints": [version("a", "1"), version("b", "2")]}
    y = {"locality": THERE, "load_balancing_weight": 1, "lb_endpoints": [version("c", "1")]}
    subset = {"subset_selectors": [{"keys": ["version"]}], "locality_weight_aware": True}
    clusters = [
        of(site, "spills", group(site, "ab", None, "b=UNHEALTHY"), second),
        of(
            site,
            "spills-sooner",
            group(site, "abc", None, "c=UNHEALTHY"),
            second,
            policy={"overprovisioning_factor": 100},
        ),
        of(site, "first-is-gone", group(site, "ab", None, "a=UNHEALTHY b=DRAINING"), second),
        of(
            site,
            "both-are-weak",
            group(site, "abc", None, "a=UNHEALTHY b=TIMEOUT"),
            group(site, "de", None, "d=UNHEALTHY", priority=1),
        ),
        of(
            site,
            "all-panic",
            group(site, "abc", None, "a=UNHEALTHY b=UNHEALTHY c=UNHEALTHY"),
            group(site, "d", None, "d=UNHEALTHY", priority=1),
        ),
        of(site, "degraded", group(site, "ab", None, "b=DEGRADED")),
        of(site, "degraded-before-second", group(site, "abc", None, "b=DEGRADED c=UNHEALTHY"), second),
        of(
            site,
            "panic-at-thirty",
            group(site, "abc", None, "b=UNHEALTHY c=UNHEALTHY"),
            common_lb_config={"healthy_panic_threshold": {"value": 30}},
        ),
        of(
            site,
            "panic-at-forty",
            group(site, "abc", None, "b=UNHEALTHY c=UNHEALTHY"),
            common_lb_config={"healthy_panic_threshold": {"value": 39.6}},
        ),
        of(site, "hashed-second", group(site, "ab", None, "b=UNHEALTHY"), second, lb_policy="RING_HASH"),
        of(
            site,
            "by-locality",
            group(site, "a", HERE, load_balancing_weight=1),
            group(site, "bc", THERE, load_balancing_weight=2),
            **weighted,
        ),
        of(
            site,
            "by-locality-and-health",
            group(site, "ab", HERE, "b=UNHEALTHY", load_balancing_weight=1),
            group(site, "c", THERE, load_balancing_weight=1),
            **weighted,
        ),
        of(
            site,
            "one-without-weight",
            group(site, "ab", HERE, load_balancing_weight=1),
            group(site, "c", THERE),
            **weighted,
        ),
        of(site, "none-with-weight", group(site, "ab", HERE), group(site, "c", THERE), **weighted),
        of(
            site,
            "maglev-by-locality",
            group(site, "a", HERE, load_balancing_weight=1),
            group(site, "bc", THERE, load_balancing_weight=3),
            lb_policy="MAGLEV",
            **weighted,
        ),
        of(site, "by-weight", weighing(site, "abc", (1, 2, 5))),
        of(site, "least-by-weight", weighing(site, "abc", (1, 2, 5)), **least),
        of(
            site,
            "least-without-bias",
            weighing(site, "abc", (1, 2, 5)),
            **least,
            least_request_lb_config={"active_request_bias": {"default_value": 0, "runtime_key": "none"}},
        ),
        of(site, "least", group(site, "abc"), **least),
        of(site, "full-scan", group(site, "abc"), load_balancing_policy=scan),
        of(
            site,
            "slow-start-of-all",
            weighing(site, "abc", (1, 2, 5)),
            round_robin_lb_config={"slow_start_config": {"slow_start_window": "60s"}},
        ),
        of(site, "any", group(site, "abc"), lb_policy="RANDOM"),
        of(site, "subset-by-locality", x, y, lb_subset_config=subset, **weighted),
        of(site, "subset-scaled", x, y, lb_subset_config={**subset, "scale_locality_weight": True}, **weighted),
    ]
    heavy = [
        weighing(site, "a", (9,)),
        {"lb_endpoints": [endpoint(site, "b", load_balancing_weight=1, health_status="UNHEALTHY")]},
    ]
    clusters.append(of(site, "weight-is-health", *heavy, second, policy={"weighted_priority_health": True}))
    clusters.append(of(site, "number-is-health", *heavy, second))
    match = {"metadata_match": {"filter_metadata": {"envoy.lb": {"version": "1"}}}}
    routes = [
        route(f"/{one['name']}/", to(one["name"], **(match if one["name"].startswith("subset") else {})))
        for one in clusters
    ]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


def busy(site: Site) -> Message:
    """Least request where it takes one host longer to answer."""

    def biased(bias: float) -> Message:
        config = {"active_request_bias": {"default_value": bias, "runtime_key": "none"}}
        hosts = weighing(site, "abc", (3, 1, 1))
        return of(site, f"bias-{bias}", hosts, lb_policy="LEAST_REQUEST", least_request_lb_config=config)

    scan = extension("least_request.v3.LeastRequest", selection_method="FULL_SCAN")
    clusters = [
        *map(biased, (0.0, 0.5, 1.0, 2.0)),
        of(site, "equal", group(site, "abc"), lb_policy="LEAST_REQUEST"),
        of(site, "full-scan", group(site, "abc"), load_balancing_policy=scan),
    ]
    routes = [route(f"/{one['name']}/", one["name"]) for one in clusters]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


BOOTSTRAPS = {"busy": busy, "zones": zones, "zones-ill": zones_ill, "shares": shares}

table = Table("zones", "zones")
CASES = table.cases
for _name in ("direct", "fails-in-panic"):
    table.add(
        _name,
        *turns(*(request("GET", f"/{_name}/") for _ in range(4))),
        spread=True,
        ignore=tuple(f"client[0].response[{number}].body" for number in range(4))
        + tuple(f"access_log[{number}].upstream" for number in range(4)),
    )
table.get("fails-if-they-panic", "/fails-if-they-panic/", bootstrap="zones-ill")
