"""The Prometheus text and the listings: what a parser reads, what is left out, and how finely the work is cut."""

from __future__ import annotations

import json as json_library
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.telemetry import tags
from sidecar.telemetry.exposition import prometheus
from sidecar.telemetry.groups.cluster import BreakerStats, ClusterStats
from sidecar.telemetry.groups.server import SubscriptionStats
from sidecar.telemetry.listing import json, text
from sidecar.telemetry.stats_query import stats_page
from sidecar.telemetry.store import StatsStore


def store_of(*names: str) -> StatsStore:
    store = StatsStore()
    for name in names:
        store.add(ClusterStats(), *tags.cluster(name))
        store.add(BreakerStats(CircuitBreaker()), *tags.cluster(name).below("circuit_breakers.default."))
    return store


def cluster_of(store: StatsStore, name: str) -> ClusterStats:
    found = next(g for g in store if isinstance(g, ClusterStats) and g.prefix == f"cluster.{name}.")
    assert isinstance(found, ClusterStats)
    return found


def page(store: StatsStore, parameters: dict[str, str], *, as_prometheus: bool = False) -> str:
    return b"".join(stats_page(store, parameters, as_prometheus=as_prometheus).body).decode()


def test_prometheus_reads_it() -> None:
    store = store_of("a", "b", 'c"\\d')
    cluster_of(store, "a").upstream_rq_total += 7
    cluster_of(store, "a").external_codes[503] += 2
    for value in (3, 40, 40):
        cluster_of(store, "b").upstream_cx_length_ms.record(value)
    got = page(store, {}, as_prometheus=True)
    families = list(text_string_to_metric_families(got))
    headings = [line for line in got.splitlines() if line.startswith("#")]
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}
    assert len(set(headings)) == len(headings) == len(families)
    assert samples["envoy_cluster_upstream_rq_total", ("envoy_cluster_name", "a")] == 7
    assert samples["envoy_cluster_upstream_rq_total", ("envoy_cluster_name", 'c"\\d')] == 0
    code = ("envoy_response_code", "503")  # this parser gives every counter the ending _total
    assert samples["envoy_cluster_external_upstream_rq_total", ("envoy_cluster_name", "a"), code] == 2
    length = "envoy_cluster_upstream_cx_length_ms"
    assert samples[f"{length}_bucket", ("envoy_cluster_name", "b"), ("le", "5")] == 1
    assert samples[f"{length}_bucket", ("envoy_cluster_name", "b"), ("le", "+Inf")] == 3
    assert samples[f"{length}_count", ("envoy_cluster_name", "b")] == 3
    assert samples[f"{length}_sum", ("envoy_cluster_name", "b")] == pytest.approx(83, rel=0.05)


def test_two_prefixes_that_are_one_metric_stand_together() -> None:
    store = store_of("x.a-b", "x.a_b")
    heading = "# TYPE envoy_cluster_a_b_upstream_rq_total counter\n"
    got = page(store, {"filter": "upstream_rq_total"}, as_prometheus=True)
    assert got == heading + 'envoy_cluster_a_b_upstream_rq_total{envoy_cluster_name="x"} 0\n' * 2


@pytest.mark.parametrize(
    ("as_prometheus", "found"),
    [
        (False, {"cluster.b.upstream_cx_active", "cluster.b.upstream_cx_length_ms", "cluster.b.warming_state"}),
        (
            True,
            {"envoy_cluster_upstream_cx_active", "envoy_cluster_upstream_cx_length_ms", "envoy_cluster_warming_state"},
        ),
    ],
)
def test_usedonly_shows_what_was_written(as_prometheus: bool, found: set[str]) -> None:
    """The warming state is written when a cluster is made."""
    store = store_of("b")
    cluster_of(store, "b").upstream_cx_active = 1
    cluster_of(store, "b").upstream_cx_length_ms.record(0)
    lines = page(store, {"usedonly": ""}, as_prometheus=as_prometheus).splitlines()
    names = {re.split("[:{]", line)[0] for line in lines if not line.startswith("#")}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in names} == found


@pytest.mark.parametrize("as_prometheus", [False, True])
def test_usedonly_shows_gauges_that_are_0_again(as_prometheus: bool) -> None:
    store = store_of("b")
    cluster_of(store, "b").upstream_cx_total = 1
    parameters = {"usedonly": "", "filter": "_active$"}
    found = page(store, parameters, as_prometheus=as_prometheus).splitlines()[-1]
    assert found == ('envoy_cluster_upstream_cx_active{envoy_cluster_name="b"} 0' if as_prometheus else
                     "cluster.b.upstream_cx_active: 0")  # fmt: skip


def test_an_inverted_filter_leaves_out_what_matches() -> None:
    store = store_of("a")
    rest = page(store, {"filter": "upstream|lb_|circuit|member", "invert_filter": "", "type": "Gauges"})
    assert rest == "cluster.a.max_host_weight: 0\ncluster.a.version: 0\ncluster.a.warming_state: 0\n"


def test_text_readouts_come_first_and_are_quoted() -> None:
    store = store_of("a")
    store.add(SubscriptionStats(), "cluster_manager.cds.").version_text = 'v"1'
    assert page(store, {}).startswith('cluster_manager.cds.version_text: "v"1"\ncluster.a.assignment_stale: 0\n')
    assert json_library.loads(page(store, {"format": "json"}))["stats"][0] == {
        "name": "cluster_manager.cds.version_text",
        "value": 'v"1',
    }


def test_a_summary_is_of_the_last_interval() -> None:
    store = store_of("a")
    cluster_of(store, "a").upstream_rq_per_cx.record(40)
    for _ in store.latch():
        pass
    cluster_of(store, "a").upstream_rq_per_cx.record(5)
    query = {"histogram_buckets": "summary", "filter": "per_cx"}
    first, *_, total, number = page(store, query, as_prometheus=True).splitlines()[1:]
    assert first == 'envoy_cluster_upstream_rq_per_cx{envoy_cluster_name="a",quantile="0"} 40.5'
    assert number == 'envoy_cluster_upstream_rq_per_cx_count{envoy_cluster_name="a"} 1'
    assert total.startswith('envoy_cluster_upstream_rq_per_cx_sum{envoy_cluster_name="a"} 40.49')
    assert "P0(40.5,5.05)" in page(store, {"filter": "per_cx"})


def test_a_format_that_we_do_not_have_is_refused() -> None:
    refused = stats_page(store_of(), {"format": "html"})
    assert (refused.status, b"".join(refused.body)) == (400, b"usage: /stats?format=(json|prometheus|text)\n\n")


PAGES: list[Callable[[StatsStore], Iterator[bytes]]] = [
    prometheus,
    lambda store: prometheus(store, used_only=True),
    lambda store: prometheus(store, histogram_buckets="summary"),
    lambda store: prometheus(store, matches=lambda name: False),
    text,
    lambda store: text(store, histogram_buckets="detailed"),
    lambda store: text(store, matches=lambda name: False),
    json,
    lambda store: json(store, histogram_buckets="cumulative"),
]


@pytest.mark.parametrize("make", PAGES)
def test_the_work_is_cut_into_small_pieces(make: Callable[[StatsStore], Iterator[bytes]]) -> None:
    """No piece looks at more than a few hundred statistics, whether or not it writes them."""
    looked = 0
    most = 0

    class Counted(ClusterStats):
        def __getattribute__(self, name: str) -> Any:
            nonlocal looked
            looked += name.startswith(("upstream_", "lb_", "circuit_"))
            return super().__getattribute__(name)

    store = StatsStore()
    for number in range(150):
        store.add(Counted(), *tags.cluster(f"c{number}")).upstream_cx_length_ms.record(number)
    for piece in make(store):
        most = max(most, looked, piece.count(b"\n"))
        looked = 0
    assert most <= 700


def test_groups_may_come_and_go_during_a_scrape() -> None:
    store = store_of(*(f"c{number}" for number in range(300)))
    pieces = prometheus(store)
    got = next(pieces).decode()
    for group in store:
        store.remove(group)
    store.add(ClusterStats(), *tags.cluster("late"))
    got += b"".join(pieces).decode()
    assert got.count("envoy_cluster_assignment_stale{") == 300
    assert "envoy_cluster_upstream_cx_active{" in got
    assert all(family.samples for family in text_string_to_metric_families(got))
