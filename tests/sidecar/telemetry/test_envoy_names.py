"""Our groups beside real Envoy: the same objects must give the same names, types and labels, and the same figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.telemetry import tags
from sidecar.telemetry.groups import cluster, http_filters, listener, network_filters, server
from sidecar.telemetry.groups import http_connection_manager as http
from sidecar.telemetry.histogram import Histogram, approximate_sum, below, quantiles
from sidecar.telemetry.stats_query import stats_page
from sidecar.telemetry.store import StatsStore
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.sidecar.telemetry.envoy_stats import EnvoyStats, running_envoy

ENVOY_ONLY = (
    r"(http|listener)\.admin\.",  # the admin server; its groups are those of any other listener
    r"http\.async-client\.",  # the client of Envoy's filters
    r"(main_thread|workers|server\.(main_thread|worker_0))\.watchdog",  # there is no second thread to watch this one
    r"thread_local_cluster_manager\.",
    r"overload\.|envoy\.overload_actions",  # they are there when a monitor or an action is configured
    r"server\.compilation_settings\.",
)
"""Names that Envoy has and we intend not to have."""


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyStats]:
    try:
        with running_envoy(tmp_path_factory.mktemp("envoy")) as running:
            yield running
    except EnvoyUnavailableError as unavailable:
        pytest.skip(f"needs Envoy: {unavailable}")


def _cluster(store: StatsStore, name: str) -> cluster.ClusterStats:
    naming = tags.cluster(name)
    stats = store.add(cluster.ClusterStats(), *naming)
    for priority in ("default", "high"):
        store.add(cluster.BreakerStats(CircuitBreaker()), *naming.below(f"circuit_breakers.{priority}."))
    return stats


def _clusters(store: StatsStore) -> None:
    one = _cluster(store, "one")
    naming = tags.cluster("one")
    store.add(cluster.BreakerRemainingStats(CircuitBreaker()), *naming.below("circuit_breakers.default."))
    store.add(cluster.OutlierDetectionStats(), *naming.below("outlier_detection."))
    store.add(cluster.HealthCheckStats(), *naming.below("health_check."))
    one.upstream_cx_http1_total += 1
    for codes, seen in ((one.external_codes, (200, 503)), (one.internal_codes, (200,)), (one.retry_codes, (503,))):
        for status in seen:
            codes[status] += 1
    for status in (200, 503):
        one.canary_codes[status] += 1
    for times in (one.external_upstream_rq_time, one.internal_upstream_rq_time, one.canary_upstream_rq_time):
        times.record(1)
    _cluster(store, "two")
    store.add(cluster.TimeoutBudgetStats(), *tags.cluster("two"))
    store.add(cluster.RequestResponseSizeStats(), *tags.cluster("two"))
    ring = _cluster(store, "ring.hash")
    ring.ring_hash_size = ring.ring_hash_min_hashes_per_host = ring.ring_hash_max_hashes_per_host = 1
    maglev = _cluster(store, "mag:lev")
    maglev.maglev_min_entries_per_host = maglev.maglev_max_entries_per_host = 1


def _http_filters(store: StatsStore) -> None:
    manager = tags.http_connection_manager("ingress")
    store.add(http_filters.FaultStats(), *manager.below("fault."))
    store.add(http_filters.CorsStats(), *manager.below("cors."))
    store.add(http_filters.HealthCheckFilterStats(), *manager.below("health_check."))
    for rules, shadow in (("rp.", "sp"), ("", "")):
        store.add(http_filters.RbacStats(), *tags.http_rbac("ingress", rules))
        store.add(http_filters.RbacShadowStats(), *tags.http_rbac("ingress", shadow))
    store.add(http_filters.RbacPolicyStats(), *tags.http_rbac_policy("ingress", "", "pol1")).counts["allowed"] += 1
    for stat_prefix in ("hlrl", "h.dotted"):
        store.add(http_filters.LocalRateLimitStats(), *tags.http_local_rate_limit(stat_prefix))
    compressor = manager.below("compressor.gz.gzip.")
    store.add(http_filters.CompressorResponseStats(), *compressor)
    store.add(http_filters.CompressorStats(), *compressor)
    store.add(http_filters.CompressorStats(), *compressor.below("request."))
    for direction in ("request", "response"):
        store.add(http_filters.DecompressorStats(), *manager.below(f"decompressor.gz.gzip.{direction}."))


def _listeners(store: StatsStore) -> None:
    for name in ("127.0.0.1:0", "127.0.0.2:0", "myl"):
        naming = tags.listener(name)
        store.add(listener.ListenerStats(), *naming)
        store.add(listener.WorkerConnectionStats(), *tags.worker(naming, 0))
    for name, stat_prefix in (("127.0.0.1:0", "ingress"), ("myl", "in.side")):
        http.connection_manager_stats(store, name, stat_prefix)
        store.add(http.RouterStats(), *tags.http_connection_manager(stat_prefix))
    route = store.add(http.RouteStats(), *tags.route("vh1", "named"))
    route.codes[200] += 1
    route.upstream_rq_time.record(1)
    store.add(listener.TlsInspectorStats(), "tls_inspector.")
    store.add(listener.HttpInspectorStats(), "http_inspector.")
    store.add(listener.ProxyProtocolStats(), "proxy_proto.")
    store.add(listener.ProxyProtocolErrorStats())
    for version in (1, 2):
        store.add(listener.ProxyProtocolVersionStats(), *tags.proxy_protocol_version(version))
    store.add(network_filters.NetworkLocalRateLimitStats(), *tags.network_local_rate_limit("nlrl"))
    store.add(network_filters.NetworkRbacStats(), *tags.network_rbac("nrbac"))
    store.add(network_filters.NetworkRbacShadowStats(), *tags.network_rbac("nrbac"))
    store.add(network_filters.ConnectionLimitStats(), *tags.connection_limit("ncl"))
    store.add(network_filters.TcpProxyStats(), *tags.tcp_proxy("tcpout"))


@pytest.fixture(scope="module")
def store() -> StatsStore:
    """The groups of the objects that Envoy's bootstrap has."""
    made = StatsStore()
    _clusters(made)
    _http_filters(made)
    _listeners(made)
    made.add(server.ServerStats(), "server.")
    made.add(server.ClusterManagerStats(), "cluster_manager.")
    made.add(listener.ListenerManagerStats(), "listener_manager.")
    made.add(server.SubscriptionStats(), "listener_manager.lds.").version_text = "1"
    made.add(server.FilesystemStats(), "filesystem.")
    made.add(server.RuntimeStats(), "runtime.")
    made.add(server.DnsStats(), "dns.cares.")
    return made


def _ours(store: StatsStore, parameters: Mapping[str, str], *, as_prometheus: bool = False) -> str:
    page = stats_page(store, parameters, as_prometheus=as_prometheus)
    assert page.status == 200
    return b"".join(page.body).decode()


def _without(pattern: str, names: set[str]) -> set[str]:
    return {name for name in names if not re.match(pattern, name)}


def _names(text: str) -> set[str]:
    return {line.split(": ", 1)[0] for line in text.splitlines()}


def _families(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("# TYPE ")]


def _series(text: str) -> set[tuple[str, frozenset[str]]]:
    """Name and labels of every series; a label's place in the line means nothing to Prometheus."""
    found = set()
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels = line.rsplit(" ", 1)[0].rstrip("}").split("{", 1)
            found.add((name, frozenset(re.findall(r'[^,=]+="(?:[^"\\]|\\.)*"', labels))))
    return found


@pytest.mark.parametrize("kind", ["Counters", "Gauges", "Histograms", "TextReadouts"])
def test_every_name_is_envoys(envoy: EnvoyStats, store: StatsStore, kind: str) -> None:
    theirs = _names(envoy.get(f"/stats?type={kind}")[1])
    ours = _names(_ours(store, {"type": kind}))
    assert ours
    assert sorted(ours - theirs) == []
    assert sorted(_without("|".join(ENVOY_ONLY), theirs - ours)) == []


ENVOY_ONLY_METRICS = (
    r"envoy_(listener_admin|main_thread|workers|server_worker|server_main_thread|thread_local|overload|envoy_overload"
    r"|server_compilation)"
)


def _comparable(series: set[tuple[str, frozenset[str]]]) -> set[tuple[str, frozenset[str]]]:
    left_out = {'envoy_http_conn_manager_prefix="admin"', 'envoy_http_conn_manager_prefix="async-client"'}
    return {
        (name, labels) for name, labels in series if not re.match(ENVOY_ONLY_METRICS, name) and not labels & left_out
    }


@pytest.mark.parametrize("query", ["text_readouts", "histogram_buckets=summary", ""])
def test_every_series_is_envoys(envoy: EnvoyStats, store: StatsStore, query: str) -> None:
    theirs = envoy.get(f"/stats/prometheus?{query}")[1]
    ours = _ours(store, dict([query.partition("=")[::2]]), as_prometheus=True)
    assert sorted(_comparable(_series(ours)) ^ _comparable(_series(theirs)), key=repr) == []


def test_types_and_their_order_are_envoys(envoy: EnvoyStats, store: StatsStore) -> None:
    wanted = _families(_ours(store, {"text_readouts": ""}, as_prometheus=True))
    theirs = _families(envoy.get("/stats/prometheus?text_readouts")[1])
    assert [line for line in theirs if line in set(wanted)] == wanted
    assert len(set(wanted)) == len(wanted) > 300


@pytest.mark.parametrize("mode", ["", "cumulative", "disjoint", "detailed"])
def test_json_has_envoys_form(envoy: EnvoyStats, store: StatsStore, mode: str) -> None:
    query = f"&histogram_buckets={mode}" if mode else ""
    theirs = json.loads(envoy.get(f"/stats?format=json{query}&filter=^cluster.two")[1])["stats"]
    parameters = {"format": "json", "filter": "^cluster.two"} | ({"histogram_buckets": mode} if mode else {})
    ours = json.loads(_ours(store, parameters))["stats"]
    assert ours[:-1]
    assert [list(entry) for entry in ours] == [list(entry) for entry in theirs]
    assert [entry["name"] for entry in ours[:-1]] == [entry["name"] for entry in theirs[:-1]]
    assert _shape(ours[-1]) == _shape(theirs[-1])


def _shape(value: Any) -> Any:
    """Keys and numbers that are no measurement: names, bounds, quantiles."""
    if isinstance(value, dict):
        return {k: _shape(v) for k, v in value.items() if k not in ("totals", "intervals", "cumulative", "interval")}
    return [_shape(item) for item in value] if isinstance(value, list) else value


def test_text_stands_in_envoys_order(envoy: EnvoyStats, store: StatsStore) -> None:
    ours = [line.split(": ")[0] for line in _ours(store, {"filter": "^(cluster|http)[.]"}).splitlines()]
    theirs = [line.split(": ")[0] for line in envoy.get("/stats?filter=^(cluster|http)[.]")[1].splitlines()]
    assert [name for name in theirs if name in set(ours)] == ours


def _details(envoy: EnvoyStats) -> list[dict[str, Any]]:
    page = json.loads(envoy.get("/stats?format=json&type=Histograms&histogram_buckets=detailed")[1])
    details: list[dict[str, Any]] = page["stats"][0]["histograms"]["details"]
    return details


def _quiet(envoy: EnvoyStats) -> tuple[list[dict[str, Any]], str]:
    """Every bin, and the Prometheus text of the same moment: no sample was merged between the two."""
    for _ in range(100):
        before = _details(envoy)
        text = envoy.get("/stats/prometheus")[1]
        if [entry["totals"] for entry in before] == [entry["totals"] for entry in _details(envoy)]:
            return before, text
    raise AssertionError("Envoy's histograms never came to rest")


def test_histogram_figures_are_envoys(envoy: EnvoyStats) -> None:
    """Envoy's own bins, recorded into our histogram, give Envoy's quantiles, sums and buckets."""
    details, text = _quiet(envoy)
    compared = 0
    for entry in details:
        histogram = Histogram()
        for each in entry["totals"]:
            for _ in range(each["count"]):
                histogram.record(round(each["lower_bound"]))
        bins = histogram.view().cumulative
        if not bins:
            continue
        assert quantiles(bins) == [each["cumulative"] for each in entry["percentiles"]]
        if match := re.match(r"cluster\.(two|one)\.(upstream_(?:cx|rq)_[a-z_]+)$", entry["name"]):
            metric, label = f"envoy_cluster_{match[2]}", f'envoy_cluster_name="{match[1]}"'
            assert f"{metric}_sum{{{label}}} {approximate_sum(bins):.32g}\n" in text
            assert f'{metric}_bucket{{{label},le="5"}} {below(bins, [5])[0]}\n' in text
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize(
    "query",
    [
        "format=bogus",
        "histogram_buckets=bogus",
        "type=bogus",
        "filter=[",
        "format=prometheus&histogram_buckets=detailed",
    ],
)
def test_what_envoy_refuses_is_refused(envoy: EnvoyStats, store: StatsStore, query: str) -> None:
    status, text = envoy.get(f"/stats?{query}")
    page = stats_page(store, dict(pair.split("=", 1) for pair in query.split("&")))
    ours = b"".join(page.body).decode()
    assert (page.status, ours.split("(")[0]) == (status, text.split("(")[0])


def test_nothing_found_looks_the_same(envoy: EnvoyStats, store: StatsStore) -> None:
    assert _ours(store, {"filter": "^zzz$", "format": "json"}) == envoy.get("/stats?filter=^zzz$&format=json")[1]
    assert _ours(store, {"filter": "^zzz$"}) == envoy.get("/stats?filter=^zzz$")[1] == ""
