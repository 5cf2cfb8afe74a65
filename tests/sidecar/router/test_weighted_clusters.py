"""One of several clusters, or one that a header names."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from sidecar.router.route import Route
from tests.sidecar.router.compiling import one_host, request, stream, table


def _route(**action: Any) -> Route:
    return table(one_host({"match": {"prefix": "/"}, "route": action, "name": "n"})).routes[0]


def test_clusters_are_drawn_in_proportion() -> None:
    clusters = [{"name": "a", "weight": 10}, {"name": "b", "weight": 0}, {"name": "b", "weight": 30}]
    pick = _route(weighted_clusters={"clusters": clusters}).pick_cluster
    assert pick is not None
    random = Random(1)
    drawn = [pick(request(), random) for _ in range(4000)]
    counts = Counter(name for name, _ in drawn)
    assert abs(counts["a"] - 1000) < 120
    assert all(entry is not None and entry.cluster_name == name for name, entry in drawn)
    assert len({id(entry) for _, entry in drawn}) == 2


def test_an_entry_is_its_route_with_what_the_cluster_says() -> None:
    cluster = {
        "name": "b",
        "weight": 1,
        "host_rewrite_literal": "entry.test",
        "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v2"}}},
    }
    route = _route(
        weighted_clusters={"clusters": [cluster]},
        timeout="3s",
        metadata_match={"filter_metadata": {"envoy.lb": {"version": "v1", "stage": "prod"}}},
    )
    assert route.pick_cluster is not None
    name, entry = route.pick_cluster(request(), Random(1))
    assert entry is not None
    assert (name, entry.name, entry.virtual_host_name, entry.timeout) == ("b", "n", "v", 3.0)
    assert route.metadata_match == (("stage", '"prod"'), ("version", '"v1"'))
    assert entry.metadata_match == (("stage", '"prod"'), ("version", '"v2"'))
    context = stream(request())
    assert entry.mutate_request is not None
    entry.mutate_request(context)
    assert context.request is not None
    assert context.request.authority == b"entry.test"


def test_a_header_names_the_cluster() -> None:
    pick = _route(cluster_header="x-cluster").pick_cluster
    assert pick is not None
    assert pick(request(headers=[("x-cluster", "a")]), Random(1)) == ("a", None)
    assert pick(request(headers=[("x-cluster", "a"), ("x-cluster", "b")]), Random(1)) == ("a", None)
    assert pick(request(), Random(1)) == ("", None)
    by_host = _route(cluster_header=":authority").pick_cluster
    assert by_host is not None
    assert by_host(request(host="a"), Random(1)) == ("a", None)


def test_a_header_names_one_of_the_weighted_clusters() -> None:
    pick = _route(weighted_clusters={"clusters": [{"cluster_header": "x-cluster", "weight": 1}]}).pick_cluster
    assert pick is not None
    assert pick(request(headers=[("x-cluster", "b")]), Random(1))[0] == "b"
    assert pick(request(), Random(1))[0] == ""


def test_a_number_that_is_none_or_not_alone_leaves_it_to_chance() -> None:
    clusters = [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]
    pick = _route(weighted_clusters={"clusters": clusters, "header_name": "x-number"}).pick_cluster
    assert pick is not None
    for headers in ([], [("x-number", "no")], [("x-number", "-1")], [("x-number", "0"), ("x-number", "0")]):
        random = Random(1)
        assert {pick(request(headers=headers), random)[0] for _ in range(60)} == {"a", "b"}
    assert {pick(request(headers=[("x-number", "3")]), Random(1))[0] for _ in range(60)} == {"b"}
