"""Several workers' statistics as one: each form is written as if one process had counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.telemetry import tags
from sidecar.telemetry.groups.cluster import ClusterStats
from sidecar.telemetry.groups.http_connection_manager import connection_manager_stats
from sidecar.telemetry.groups.server import ServerStats
from sidecar.telemetry.merged import Merged, snapshot, sums
from sidecar.telemetry.stats_query import stats_page
from sidecar.telemetry.store import StatsStore


def store(requests: int, *times: int, others: tuple[str, ...] = ()) -> StatsStore:
    made = StatsStore()
    stats, codes = connection_manager_stats(made, "127.0.0.1_80", "one")
    stats.downstream_rq_total, stats.downstream_rq_active = requests, 1
    codes.codes[200] = requests
    for time in times:
        stats.downstream_rq_time.record(time)
    made.shared(ClusterStats, *tags.cluster("up")).membership_total = 3
    for name in others:
        made.shared(ClusterStats, *tags.cluster(name)).upstream_rq_total = 1
    server = made.add(ServerStats(), "server.")
    server.live = 1
    return made


def merged(*stores: StatsStore) -> StatsStore:
    into = Merged(stores[0].settings)
    for each in stores:
        for part in snapshot(each):
            into.add(json.loads(json.dumps(part)))
    return into.store


def page(of: StatsStore, **parameters: str) -> str:
    return b"".join(stats_page(of, parameters).body).decode()


FORMS: list[dict[str, str]] = [
    {},
    {"usedonly": ""},
    {"format": "json"},
    {"format": "prometheus"},
    {"format": "prometheus", "histogram_buckets": "summary"},
    {"histogram_buckets": "cumulative"},
    {"type": "Gauges"},
]


@pytest.mark.parametrize("parameters", FORMS)
def test_one_worker_is_as_it_is(parameters: dict[str, str]) -> None:
    alone = store(4, 1, 20, 300)
    steady: Callable[[str], list[str]] = lambda text: [line for line in text.splitlines() if "memory" not in line]  # noqa: E731
    expected, found = page(alone, **parameters), page(merged(alone), **parameters)
    if parameters.get("format") == "json":
        pick: Any = lambda text: [one for one in json.loads(text)["stats"] if "memory" not in one.get("name", "")]  # noqa: E731
        assert pick(found) == pick(expected)
    else:
        assert steady(found) == steady(expected)


def test_counters_and_histograms_add_up_and_gauges_by_their_meaning() -> None:
    both = merged(store(4, 1, 20), store(6, 20), store(0, others=("late",)))
    text = page(both)
    for line in (
        "http.one.downstream_rq_total: 10",
        "http.one.downstream_rq_2xx: 10",
        "http.one.downstream_rq_active: 3",
        "cluster.up.membership_total: 3",
        "cluster.late.upstream_rq_total: 1",
        "server.live: 1",
    ):
        assert f"{line}\n" in text, line
    histograms = json.loads(page(both, format="json", histogram_buckets="detailed", filter="one.downstream_rq_time$"))
    bins = histograms["stats"][-1]["histograms"]["details"][0]["totals"]
    assert [(one["lower_bound"], one["count"]) for one in bins] == [(1.0, 1), (20.0, 2)]


def test_which_gauges_are_sums() -> None:
    added = ("upstream_cx_active", "memory_allocated", "total_connections", "remaining_cx", "write_total_buffered")
    assert all(map(sums, added))
    assert not any(map(sums, ("live", "membership_healthy", "ejections_active", "concurrency", "uptime", "cx_open")))
