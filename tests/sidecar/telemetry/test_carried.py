"""What one process has counted, in the next one: counters go on, gauges of what is under way count twice until it ends."""

from __future__ import annotations

import json
from typing import Any

from sidecar.telemetry import tags
from sidecar.telemetry.carried import Ledger, Receiver
from sidecar.telemetry.groups.cluster import ClusterStats, OutlierDetectionStats
from sidecar.telemetry.groups.listener import ListenerStats
from sidecar.telemetry.groups.server import ServerStats
from sidecar.telemetry.store import StatsStore


def carry(ledger: Ledger, receiver: Receiver, *, ending: bool = False) -> int:
    """Tell what has changed, as the channel does; how many groups that were."""
    count = 0
    for part in ledger.changes(ending=ending):
        told: list[Any] = json.loads(json.dumps(part))
        receiver.add(told)
        count += len(told)
    return count


def test_counters_go_on_and_gauges_come_to_an_end() -> None:
    old, new = StatsStore(), StatsStore()
    before, after = (store.shared(ClusterStats, *tags.cluster("up")) for store in (old, new))
    server = [store.add(ServerStats(), "server.") for store in (old, new)]
    ejections = old.shared(OutlierDetectionStats, *tags.cluster("up").below("outlier_detection."))
    before.upstream_rq_total, before.upstream_rq_active, before.membership_total = 7, 3, 2
    before.external_codes[200] = 5
    server[0].live, ejections.ejections_active = 1, 1
    after.upstream_rq_total, after.upstream_rq_active = 10, 1
    after.external_codes[200] = 1
    ledger, receiver = Ledger(old), Receiver(new)
    carry(ledger, receiver)
    assert (after.upstream_rq_total, after.upstream_rq_active, after.membership_total) == (17, 4, 0)
    assert after.external_codes == {200: 6}
    assert server[1].live == 0
    assert carry(ledger, receiver) == 0
    before.upstream_rq_total, before.upstream_rq_active = 9, 1
    before.external_codes[200] = 6
    before.external_codes[503] = 1
    carry(ledger, receiver)
    assert (after.upstream_rq_total, after.upstream_rq_active) == (19, 2)
    assert after.external_codes == {200: 7, 503: 1}
    carry(ledger, receiver, ending=True)
    assert (after.upstream_rq_total, after.upstream_rq_active) == (19, 1)


def test_a_group_that_is_not_there_yet_gets_its_counts_when_it_comes() -> None:
    old, new = StatsStore(), StatsStore()
    old.shared(ListenerStats, *tags.listener("one")).downstream_cx_total = 4
    ledger, receiver = Ledger(old), Receiver(new)
    carry(ledger, receiver)
    late = new.shared(ListenerStats, *tags.listener("one"))
    receiver.add([])
    assert late.downstream_cx_total == 4


def test_parts_are_short() -> None:
    old, new = StatsStore(), StatsStore()
    for number in range(450):
        old.shared(ClusterStats, *tags.cluster(f"c{number}")).upstream_rq_total = number
        new.shared(ClusterStats, *tags.cluster(f"c{number}"))
    parts = list(Ledger(old).changes())
    assert [len(part) for part in parts] == [199, 200, 50]  # one of them has counted nothing
    receiver = Receiver(new)
    for part in parts:
        receiver.add(part)
    assert new.shared(ClusterStats, *tags.cluster("c449")).upstream_rq_total == 449


def test_what_another_version_counts_is_left_out() -> None:
    new = StatsStore()
    stats = new.shared(ListenerStats, *tags.listener("one"))
    name = f"{ListenerStats.__module__}.{ListenerStats.__qualname__}"
    prefix = stats.prefix
    Receiver(new).add([[name, prefix, {"no_such_counter": 3, "downstream_cx_total": 2}, {"no_codes": {"200": 1}}]])
    assert stats.downstream_cx_total == 2
    assert not hasattr(stats, "no_such_counter")
