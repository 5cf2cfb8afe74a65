"""Clusters: which endpoint is picked, and what happens when none can be."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, address, bootstrap, cluster, endpoint, listener, manager, route, to
from tests.differential.case import AwaitResponses, AwaitUpstream, Close, Delay, Pause, ReadBody, Reply, Send, Step, Table, reply, request

FIVE = ("a", "b", "c", "d", "e")
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

HASHES: dict[str, list[Message]] = {
    "header": [{"header": {"header_name": "x-key"}}],
    "header-rewritten": [{"header": {"header_name": "x-key", "regex_rewrite": {"pattern": {"regex": "[0-9]"}, "substitution": ""}}}],
    "cookie": [{"cookie": {"name": "session"}}],
    "source": [{"connection_properties": {"source_ip": True}}],
    "query": [{"query_parameter": {"name": "key"}}],
    "terminal": [{"header": {"header_name": "x-key"}, "terminal": True}, {"query_parameter": {"name": "key"}}],
    "two": [{"header": {"header_name": "x-key"}}, {"query_parameter": {"name": "key"}}],
}


def hashing(site: Site) -> Message:
    def keyed(upstream: str, **fields: Any) -> Message:
        return endpoint(site, upstream, metadata={"filter_metadata": {"envoy.lb": {"hash_key": f"key-{upstream}"}}}, **fields)

    def weighted(name: str, **fields: Any) -> Message:
        weights = [endpoint(site, upstream, load_balancing_weight=weight) for weight, upstream in enumerate(FIVE, 1)]
        return cluster(site, name, **{**fields, "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": weights}]}})

    by_key = {"cluster_name": "ring-keyed", "endpoints": [{"lb_endpoints": [keyed(upstream) for upstream in FIVE]}]}
    maglev_by_key = {"cluster_name": "maglev-keyed", "endpoints": [{"lb_endpoints": [keyed(upstream) for upstream in FIVE]}]}
    clusters = [
        cluster(site, "ring", FIVE, lb_policy="RING_HASH"),
        cluster(site, "ring-small", FIVE, lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 5, "maximum_ring_size": 10}),
        cluster(site, "ring-murmur", FIVE, lb_policy="RING_HASH", ring_hash_lb_config={"hash_function": "MURMUR_HASH_2"}),
        cluster(site, "ring-keyed", lb_policy="RING_HASH", load_assignment=by_key),
        weighted("ring-weighted", lb_policy="RING_HASH"),
        cluster(site, "maglev", FIVE, lb_policy="MAGLEV"),
        cluster(site, "maglev-small", FIVE, lb_policy="MAGLEV", maglev_lb_config={"table_size": 11}),
        cluster(site, "maglev-keyed", lb_policy="MAGLEV", load_assignment=maglev_by_key),
        weighted("maglev-weighted", lb_policy="MAGLEV"),
    ]
    header = HASHES["header"]
    routes = [route(f"/{one['name']}/", to(one["name"], hash_policy=header)) for one in clusters]
    routes += [route(f"/by/{name}/", to("ring", hash_policy=hashes)) for name, hashes in HASHES.items()]
    routes += [route("/cookie-made", to("ring", hash_policy=[{"cookie": {"name": "made", "ttl": "60s", "path": "/p"}}]))]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


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
        subset("single", "NO_FALLBACK", subset_selectors=[{"keys": ["version", "stage"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["version"]}, {"keys": ["version"]}]),
    ]  # fmt: skip
    wanted = {
        "v1": matching(version="1"),
        "v2-dev": matching(version="2", stage="dev"),
        "v9": matching(version="9"),
        "v1-dev": matching(version="1", stage="dev"),
        "stage": matching(stage="dev"),
        "nothing": {},
    }
    routes = [route(f"/{one['name']}/{name}", to(one["name"], **match)) for one in clusters for name, match in wanted.items()]
    routes.append(
        route(
            "/weighted",
            {"route": {"weighted_clusters": {"clusters": [{"name": "none", "weight": 1, **matching(stage="dev")}]}, **matching(version="2")}},
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
        groups("fails-in-panic", group("a", health="UNHEALTHY"), common_lb_config={"zone_aware_lb_config": {"fail_traffic_on_panic": True}}),
        groups("empty-first", {"lb_endpoints": []}, group("b", priority=1)),
        groups("localities", group("a", locality={"zone": "one"}, load_balancing_weight=1), group("b", locality={"zone": "two"}, load_balancing_weight=1), common_lb_config={"locality_weighted_lb_config": {}}),
    ]  # fmt: skip
    routes = [route(f"/{one['name']}/", to(one["name"])) for one in clusters]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


def breakers(site: Site) -> Message:
    def limits(priority: str = "DEFAULT", **fields: Any) -> Message:
        return {"circuit_breakers": {"thresholds": [{"priority": priority, **fields}]}}

    def detection(**fields: Any) -> Message:
        always = {"base_ejection_time": "600s", "interval": "600s", "max_ejection_percent": 100, "enforcing_consecutive_gateway_failure": 100}
        return {
            "outlier_detection": {**always, **fields},
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        }

    def protocol(**fields: Any) -> Message:
        options = {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {"http_protocol_options": {}}, **fields}
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
        cluster(site, "ejects-local", ["refused"], **detection(split_external_local_origin_errors=True, consecutive_local_origin_failure=2)),
        cluster(site, "ejects-never", ["a"], **detection(consecutive_5xx=2, enforcing_consecutive_5xx=0)),
        cluster(site, "ejects-one-of-two", ["a", "b"], **{**detection(consecutive_5xx=2), "outlier_detection": {"consecutive_5xx": 2, "max_ejection_percent": 10, "base_ejection_time": "600s", "interval": "600s"}}),
        cluster(site, "reset-by-good", ["a"], **detection(consecutive_5xx=2)),
    ]  # fmt: skip
    routes = [route(f"/{one['name']}/", to(one["name"])) for one in clusters]
    routes.insert(0, route("/high-priority/high", to("high-priority", priority="HIGH")))
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


def discovery(site: Site) -> Message:
    """Clusters whose endpoints are found by name or by the request."""

    def by_name(name: str, kind: str, host: str = "localhost") -> Message:
        endpoints = [{"endpoint": {"address": address(site.upstreams["a"], host)}}]
        return cluster(site, name, type=kind, dns_lookup_family="V4_ONLY", load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]})

    original = {"name": "original", "connect_timeout": "1s", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "original_dst_lb_config": {"use_http_header": True}}  # fmt: skip
    named = {**original, "name": "original-named", "original_dst_lb_config": {"use_http_header": True, "http_header_name": "x-target"}}
    forced = {**original, "name": "original-forced", "original_dst_lb_config": {"use_http_header": True, "upstream_port_override": site.upstreams["b"]}}
    clusters = [by_name("strict", "STRICT_DNS"), by_name("logical", "LOGICAL_DNS"), by_name("literal", "STRICT_DNS", "127.0.0.1"), original, named, forced]
    routes = [route(f"/{one['name']}/", to(one["name"])) for one in clusters]
    routes.append(route("/rewritten", to("logical", auto_host_rewrite=True)))
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


BOOTSTRAPS = {
    "hashing": hashing,
    "subsets": subsets,
    "balancing": balancing,
    "breakers": breakers,
    "discovery": discovery,
}

table = Table("clusters", "hashing")
CASES = table.cases
get = table.get


def turns(*requests: bytes) -> list[Step | bytes]:
    """Requests on one connection, each after the answer to the one before."""
    steps: list[Step | bytes] = []
    for number, one in enumerate(requests, 1):
        steps += [one, AwaitResponses(number)]
    return steps


def spaced(*requests: bytes) -> list[Step | bytes]:
    """As `turns`, with time for an ejection, which takes effect a little after the answer that causes it."""
    steps: list[Step | bytes] = []
    for step in turns(*requests):
        steps += [step] if isinstance(step, bytes) else [step, Pause(0.04)]
    return steps


for _name in ("ring", "ring-small", "ring-murmur", "ring-keyed", "ring-weighted", "maglev", "maglev-small", "maglev-keyed", "maglev-weighted"):
    table.add(f"hash-{_name}", *turns(*(request("GET", f"/{_name}/", [("X-Key", f"key-{number}")]) for number in range(24))))
for _name in HASHES:
    for _number in range(3):
        _given = [("X-Key", f"k{_number}"), ("Cookie", f"a=b; session=s{_number}; c=d")]
        get(f"hash-by-{_name}-{_number}", f"/by/{_name}/?x=1&key=q{_number}", _given)
get("hash-header-two-values", "/by/header/", [("X-Key", "one"), ("X-Key", "two")])
get("hash-header-empty", "/by/two/?key=q", [("X-Key", "")])
get("hash-terminal-missing", "/by/terminal/?key=q")
get("hash-cookie-given", "/cookie-made", [("Cookie", "made=abc")])
get("hash-cookie-quoted", "/by/cookie/", [("Cookie", 'session="abc"')])

on = {"bootstrap": "subsets"}
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
    ignore=tuple(f"client[0].response[{number}].body" for number in range(6)) + tuple(f"access_log[{number}].upstream" for number in range(6)),
    **on,
)
for _name in ("least-request", "random", "first-priority", "second-priority", "draining", "degraded", "only-degraded", "timeout-status", "panic", "no-panic", "fails-in-panic", "empty-first"):  # fmt: skip
    get(f"pick-{_name}", f"/{_name}/", **on)
table.add(
    "weighted",
    *turns(*(request("GET", "/weighted/") for _ in range(8))),
    spread=True,
    ignore=tuple(f"client[0].response[{number}].body" for number in range(8)) + tuple(f"access_log[{number}].upstream" for number in range(8)),
    **on,
)

on = {"bootstrap": "breakers"}
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
    table.add(f"pool-{_name}", *turns(request("GET", f"/{_name}/1"), request("GET", f"/{_name}/2")), upstream=reply(), connections=True, **on)
CLOSED = Reply((ReadBody(), Close()))
for _name, _answer in (
    ("ejects-5xx", reply(500)),
    ("ejects-gateway", reply(503)),
    ("ejects-500-gateway", reply(500)),
    ("ejects-closed", CLOSED),
    ("ejects-never", reply(500)),
    ("ejects-local", reply(500)),
):
    table.add(f"outlier-{_name}", *spaced(*(request("GET", f"/{_name}/{number}") for number in range(4))), upstream=_answer, **on)
table.add("outlier-reset-by-good", *spaced(*(request("GET", f"/reset-by-good/{number}") for number in range(5))), upstream=[reply(500), reply(), reply(500), reply(), reply()], **on)  # fmt: skip
table.add(
    "outlier-one-of-two",
    *spaced(*(request("GET", "/ejects-one-of-two/") for _ in range(12))),
    upstream={"a": [reply(500, body=b"x")], "b": [reply(body=b"x")]},
    spread=True,
    ignore=tuple(f"client[0].response[{number}].{part}" for number in range(12) for part in ("start", "body")),
    access_log=False,
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

table.add("connections-reused", *turns(request("GET", "/by/header/1"), request("POST", "/by/header/2", body=b"x"), request("GET", "/by/header/3")), upstream={"*": [reply()]}, listener="http", bootstrap="plain", connections=True)  # fmt: skip
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
