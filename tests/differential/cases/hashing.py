"""Consistent hashing: the same endpoint for the same key as in Envoy, and every hash policy."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, endpoint, listener, manager, route, to
from tests.differential.case import (
    Table,
    request,
    turns,
)

FIVE = ("a", "b", "c", "d", "e")

HASHES: dict[str, list[Message]] = {
    "header": [{"header": {"header_name": "x-key"}}],
    "header-rewritten": [
        {"header": {"header_name": "x-key", "regex_rewrite": {"pattern": {"regex": "[0-9]"}, "substitution": ""}}}
    ],
    "cookie": [{"cookie": {"name": "session"}}],
    "source": [{"connection_properties": {"source_ip": True}}],
    "query": [{"query_parameter": {"name": "key"}}],
    "terminal": [{"header": {"header_name": "x-key"}, "terminal": True}, {"query_parameter": {"name": "key"}}],
    "two": [{"header": {"header_name": "x-key"}}, {"query_parameter": {"name": "key"}}],
}


def hashing(site: Site) -> Message:
    def keyed(upstream: str, **fields: Any) -> Message:
        return endpoint(
            site, upstream, metadata={"filter_metadata": {"envoy.lb": {"hash_key": f"key-{upstream}"}}}, **fields
        )

    def weighted(name: str, **fields: Any) -> Message:
        weights = [endpoint(site, upstream, load_balancing_weight=weight) for weight, upstream in enumerate(FIVE, 1)]
        return cluster(
            site,
            name,
            **{**fields, "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": weights}]}},
        )

    by_key = {"cluster_name": "ring-keyed", "endpoints": [{"lb_endpoints": [keyed(upstream) for upstream in FIVE]}]}
    maglev_by_key = {
        "cluster_name": "maglev-keyed",
        "endpoints": [{"lb_endpoints": [keyed(upstream) for upstream in FIVE]}],
    }
    clusters = [
        cluster(site, "ring", FIVE, lb_policy="RING_HASH"),
        cluster(
            site,
            "ring-small",
            FIVE,
            lb_policy="RING_HASH",
            ring_hash_lb_config={"minimum_ring_size": 5, "maximum_ring_size": 10},
        ),
        cluster(
            site, "ring-murmur", FIVE, lb_policy="RING_HASH", ring_hash_lb_config={"hash_function": "MURMUR_HASH_2"}
        ),
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
    routes += [
        route("/cookie-made", to("ring", hash_policy=[{"cookie": {"name": "made", "ttl": "60s", "path": "/p"}}]))
    ]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


BOOTSTRAPS = {"hashing": hashing}

table = Table("clusters", "hashing")
CASES = table.cases
get = table.get
for _name in (
    "ring",
    "ring-small",
    "ring-murmur",
    "ring-keyed",
    "ring-weighted",
    "maglev",
    "maglev-small",
    "maglev-keyed",
    "maglev-weighted",
):
    table.add(
        f"hash-{_name}", *turns(*(request("GET", f"/{_name}/", [("X-Key", f"key-{number}")]) for number in range(24)))
    )
for _name in HASHES:
    for _number in range(3):
        _given = [("X-Key", f"k{_number}"), ("Cookie", f"a=b; session=s{_number}; c=d")]
        get(f"hash-by-{_name}-{_number}", f"/by/{_name}/?x=1&key=q{_number}", _given)
get("hash-header-two-values", "/by/header/", [("X-Key", "one"), ("X-Key", "two")])
get("hash-header-empty", "/by/two/?key=q", [("X-Key", "")])
get("hash-terminal-missing", "/by/terminal/?key=q")
get("hash-cookie-given", "/cookie-made", [("Cookie", "made=abc")])
get("hash-cookie-quoted", "/by/cookie/", [("Cookie", 'session="abc"')])
