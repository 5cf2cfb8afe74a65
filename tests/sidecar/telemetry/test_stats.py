"""Groups of statistics and the store that holds them."""

from __future__ import annotations

import pytest

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.telemetry import tags
from sidecar.telemetry.groups.cluster import BreakerStats, ClusterStats
from sidecar.telemetry.groups.http_connection_manager import connection_manager_stats
from sidecar.telemetry.groups.listener import ListenerStats
from sidecar.telemetry.groups.server import ServerStats
from sidecar.telemetry.stats import Counter, Gauge, Kind, StatGroup, stat_group
from sidecar.telemetry.store import StatsStore


def values(group: StatGroup, *kinds: Kind) -> dict[str, object]:
    return {name: value for name, value in group.samples(*kinds) if value}


def test_a_group_has_slots_for_exactly_its_statistics() -> None:
    stats = ClusterStats()
    assert stats.upstream_rq_total == 0
    assert not hasattr(stats, "__dict__")
    with pytest.raises(AttributeError):
        stats.upstream_rq_totall = 1  # type: ignore[attr-defined]


def test_what_is_no_statistic_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.name is no statistic"):

        @stat_group
        class Wrong(StatGroup):
            name: str

    with pytest.raises(TypeError, match="Unwritten has no statistic missing"):

        @stat_group
        class Unwritten(StatGroup):
            USED_WITH = {"present": ("missing",)}
            present: Gauge

    with pytest.raises(TypeError, match="Other has no statistic missing"):

        @stat_group
        class Other(StatGroup):
            LEAVES = {"missing": "not.there"}
            present: Counter


def test_responses_are_counted_once_and_shown_under_all_of_envoys_names() -> None:
    stats = StatsStore().add(ClusterStats(), *tags.cluster("a"))
    stats.external_codes[200] += 2
    stats.external_codes[503] += 1
    stats.internal_codes[204] += 4
    stats.retry_codes[503] += 1
    assert values(stats, Kind.COUNTER) == {
        "cluster.a.upstream_rq_200": 2,
        "cluster.a.upstream_rq_204": 4,
        "cluster.a.upstream_rq_503": 1,
        "cluster.a.upstream_rq_2xx": 6,
        "cluster.a.upstream_rq_5xx": 1,
        "cluster.a.upstream_rq_completed": 7,
        "cluster.a.external.upstream_rq_200": 2,
        "cluster.a.external.upstream_rq_503": 1,
        "cluster.a.external.upstream_rq_2xx": 2,
        "cluster.a.external.upstream_rq_5xx": 1,
        "cluster.a.external.upstream_rq_completed": 3,
        "cluster.a.internal.upstream_rq_204": 4,
        "cluster.a.internal.upstream_rq_2xx": 4,
        "cluster.a.internal.upstream_rq_completed": 4,
        "cluster.a.retry.upstream_rq_503": 1,
        "cluster.a.retry.upstream_rq_5xx": 1,
        "cluster.a.retry.upstream_rq_completed": 1,
    }


def test_codes_of_no_class_are_counted_together() -> None:
    stats = StatsStore().add(ClusterStats(), *tags.cluster("a"))
    for status in (99, 599, 600, 999):
        stats.external_codes[status] += 1
    assert values(stats, Kind.COUNTER) == {
        f"cluster.a.{words}upstream_rq_{name}": value
        for words in ("", "external.")
        for name, value in {"599": 1, "5xx": 1, "unknown": 3, "completed": 4}.items()
    }


def test_upstream_times_are_recorded_once() -> None:
    stats = StatsStore().add(ClusterStats(), *tags.cluster("a"))
    stats.external_upstream_rq_time.record(3)
    stats.internal_upstream_rq_time.record(3)
    found = {name: view.cumulative for name, view in stats.samples(Kind.HISTOGRAM) if view.cumulative}
    assert found == {
        "cluster.a.upstream_rq_time": {3: 2},
        "cluster.a.external.upstream_rq_time": {3: 1},
        "cluster.a.internal.upstream_rq_time": {3: 1},
    }


def test_a_connection_manager_adds_up_its_listeners() -> None:
    store = StatsStore()
    manager, first = connection_manager_stats(store, "127.0.0.1:1", "in")
    same, second = connection_manager_stats(store, "127.0.0.1:2", "in")
    again = connection_manager_stats(store, "127.0.0.1:2", "in")
    assert same is manager
    assert again == (manager, second)
    first.codes[200] += 1
    second.codes[204] += 1
    second.codes[404] += 1
    assert values(manager, Kind.COUNTER) == {
        "http.in.downstream_rq_2xx": 2,
        "http.in.downstream_rq_4xx": 1,
        "http.in.downstream_rq_completed": 3,
    }


def test_owners_of_one_name_share_a_group_until_the_last_gives_it_back() -> None:
    store = StatsStore()
    first = store.shared(ClusterStats, *tags.cluster("a"))
    second = store.shared(ClusterStats, *tags.cluster("a"))
    assert first is second
    assert len(store) == 1
    store.remove(first)
    assert list(store) == [first]
    store.remove(second)
    assert list(store) == []
    assert not store.metrics[Kind.COUNTER]
    with pytest.raises(KeyError):
        store.remove(second)


def test_two_groups_of_a_class_at_one_prefix_are_refused() -> None:
    store = StatsStore()
    store.add(ClusterStats(), *tags.cluster("a"))
    with pytest.raises(ValueError, match=r"two groups of statistics ClusterStats at 'cluster\.a\.'"):
        store.add(ClusterStats(), *tags.cluster("a"))


def test_the_store_is_in_order_of_prefixes_and_survives_changes_while_it_is_read() -> None:
    store = StatsStore()
    groups = {name: store.add(ClusterStats(), *tags.cluster(name)) for name in ("b", "c", "a")}
    seen = []
    for group in store:
        seen.append(group.prefix)
        if group is groups["a"]:
            store.remove(groups["b"])
            store.add(ClusterStats(), *tags.cluster("d"))
    assert seen == ["cluster.a.", "cluster.b.", "cluster.c."]
    assert [group.prefix for group in store] == ["cluster.a.", "cluster.c.", "cluster.d."]


def test_reset_sets_counters_to_zero_and_leaves_gauges_and_histograms() -> None:
    store = StatsStore()
    stats = store.add(ClusterStats(), *tags.cluster("a"))
    stats.upstream_rq_total, stats.upstream_cx_active = 3, 2
    stats.external_codes[200] += 1
    stats.upstream_cx_length_ms.record(1)
    store.reset_counters()
    assert values(stats, Kind.COUNTER) == {}
    assert values(stats, Kind.GAUGE) == {"cluster.a.upstream_cx_active": 2}
    assert stats.upstream_cx_length_ms.view().cumulative == {1: 1}
    stats.external_codes[500] += 1
    assert stats.external_codes == {200: 0, 500: 1}


def used(group: StatGroup) -> dict[str, object]:
    return dict(group.samples(Kind.COUNTER, Kind.GAUGE, used_only=True))


def test_what_was_written_counts_as_used_though_it_be_0_again() -> None:
    stats = StatsStore().add(ClusterStats(), *tags.cluster("a"))
    assert used(stats) == {"cluster.a.warming_state": 0}
    stats.membership_change = 1
    stats.upstream_rq_total = 2
    assert used(stats) == {
        "cluster.a.membership_change": 1,
        "cluster.a.membership_degraded": 0,
        "cluster.a.membership_excluded": 0,
        "cluster.a.membership_healthy": 0,
        "cluster.a.membership_total": 0,
        "cluster.a.upstream_rq_active": 0,
        "cluster.a.upstream_rq_total": 2,
        "cluster.a.warming_state": 0,
    }


def test_after_a_reset_the_same_statistics_count_as_used() -> None:
    """As in Envoy, where a reset leaves the mark, and the counters by response code, where they are."""
    store = StatsStore()
    stats = store.add(ClusterStats(), *tags.cluster("a"))
    stats.upstream_rq_total = 2
    stats.external_codes[404] += 2
    before = used(stats)
    assert {"cluster.a.upstream_rq_4xx", "cluster.a.external.upstream_rq_404"} < before.keys()
    store.reset_counters()
    store.reset_counters()
    assert used(stats) == dict.fromkeys(before, 0)


def test_circuit_breakers_count_as_used_once_their_resource_was_taken() -> None:
    breaker, other = CircuitBreaker(), CircuitBreaker(max_requests=0)
    stats = breaker.counters = ClusterStats()
    store = StatsStore()
    group = store.add(BreakerStats(breaker), "cluster.a.circuit_breakers.default.")
    high = store.add(BreakerStats(other), "cluster.a.circuit_breakers.high.")
    assert used(group) == {}
    stats.upstream_rq_total = stats.upstream_rq_retry = 1
    assert used(group) == {f"{group.prefix}rq_open": 0, f"{group.prefix}rq_retry_open": 0}
    assert used(high) == {f"{high.prefix}rq_open": 1}


def test_the_codec_of_a_cluster_is_shown_once_there_was_a_connection() -> None:
    store = StatsStore()
    stats = store.add(ClusterStats(), *tags.cluster("a"))
    name = "cluster.a.http1.response_flood"
    assert name not in dict(stats.samples(Kind.COUNTER))
    stats.upstream_cx_http1_total = 1
    store.reset_counters()
    assert dict(stats.samples(Kind.COUNTER))[name] == 0
    assert name not in used(stats)


def test_the_gauges_of_a_balancer_are_shown_by_clusters_that_have_it() -> None:
    stats = StatsStore().add(ClusterStats(), *tags.cluster("a"))
    assert not any("ring_hash" in name for name, _ in stats.samples(Kind.GAUGE))
    stats.ring_hash_size = 0
    assert used(stats)["cluster.a.ring_hash_lb.size"] == 0
    assert not any("maglev" in name for name, _ in stats.samples(Kind.GAUGE))


def test_extensions_are_missing_on_no_listener_and_unheard_of_on_the_admins() -> None:
    store = StatsStore()
    own = store.add(ListenerStats(), *tags.listener("127.0.0.1:80"))
    admin = store.add(ListenerStats(), *tags.listener("admin"))
    assert dict(own.samples(Kind.COUNTER))["listener.127.0.0.1_80.extension_config_missing"] == 0
    assert not any("extension" in name for name, _ in admin.samples(Kind.COUNTER))


def test_the_admins_connections_are_the_main_threads() -> None:
    assert tags.worker(tags.listener("admin"), 0) == ("listener.admin.main_thread.", (), "listener.admin.main_thread.")


def test_the_server_says_what_memory_it_has_and_that_no_certificate_expires() -> None:
    server = dict(StatsStore().add(ServerStats(), "server.").samples(Kind.GAUGE))
    assert server["server.days_until_first_cert_expiring"] == 0xFFFFFFFF
    assert server["server.memory_physical_size"] > server["server.memory_allocated"] > 1 << 20
    assert server["server.memory_heap_size"] > 1 << 20


def test_latching_pauses_and_reaches_every_histogram() -> None:
    store = StatsStore()
    groups = [store.add(ClusterStats(), *tags.cluster(f"c{n}")) for n in range(7)]
    for group in groups:
        group.upstream_rq_per_cx.record(4)
    assert len(list(store.latch(step=3))) == 2
    assert all(group.upstream_rq_per_cx.view().interval == {4: 1} for group in groups)


def test_a_group_speaks() -> None:
    assert repr(BreakerStats(CircuitBreaker())) == "<BreakerStats 'not in a store'>"
    assert repr(StatsStore().add(ClusterStats(), *tags.cluster("a"))) == "<ClusterStats 'cluster.a.'>"


def test_gauges_and_counters_are_told_apart() -> None:
    @stat_group
    class Both(StatGroup):
        up: Counter
        level: Gauge

    assert (Both.COUNTERS, Both.GAUGES, Both.HISTOGRAMS) == (("up",), ("level",), ())
