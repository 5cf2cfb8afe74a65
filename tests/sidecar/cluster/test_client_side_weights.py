"""Weights from load reports: when they count, what hosts without one get, and that picks follow."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cluster.client_side_weights import ClientSideWeights
from sidecar.cluster.host import Host
from sidecar.cluster.manager import ClusterManager
from sidecar.cluster.orca import HEADER
from sidecar.config.address import SocketAddress
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from sidecar.config.lb_policies import ClientSideWeightedRoundRobin
from tests.sidecar.cluster.surroundings import Clock, Stages, make_hosts, picks, seeded


def report(weight: float) -> dict[bytes, bytes]:
    """That of a host which serves so much for each unit of utilization."""
    return {HEADER: b"TEXT cpu_utilization=1,rps_fractional=%f" % weight}


def started(clock: Clock, hosts: list[Host], **options: Any) -> tuple[ClientSideWeights, list[int]]:
    changes: list[int] = []
    config = ClientSideWeightedRoundRobin(**{"blackout_period": 0.0, **options})
    weights = ClientSideWeights(config, lambda: hosts, lambda: changes.append(1), clock.wheel)
    weights.start()
    return weights, changes


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ([None, None, None], [1, 1, 1]),
        ([30, None, None], [30, 30, 30]),
        ([30, 50, None], [30, 50, 40]),
        ([30, 51, None], [30, 51, 40]),
        ([30, 50, 100, None], [30, 50, 100, 50]),
        ([0.5, 7, None], [1, 7, 3]),
    ],
)
def test_hosts_without_a_report_get_the_median(reported: list[float | None], expected: list[int], clock: Clock) -> None:
    hosts = make_hosts(len(reported), [9] * len(reported))
    weights, _ = started(clock, hosts)
    for host, weight in zip(hosts, reported, strict=True):
        if weight is not None:
            assert weights.on_fields(host, report(weight))
    clock.advance(1.0)
    assert [host.weight for host in hosts] == expected


def test_a_weight_counts_after_the_blackout_and_until_it_expires(clock: Clock) -> None:
    (host,) = hosts = make_hosts(1)
    weights, changes = started(clock, hosts, blackout_period=5.0, weight_expiration_period=20.0)
    weights.on_fields(host, report(70))
    clock.advance(4.5)
    assert host.weight == 1
    clock.advance(1.0)
    assert host.weight == 70
    weights.on_fields(host, report(80))
    clock.advance(1.0)
    assert host.weight == 80
    clock.advance(18.0)
    assert host.weight == 80
    clock.advance(3.0)
    assert host.weight == 1
    weights.on_fields(host, report(90))
    clock.advance(4.5)
    assert host.weight == 1, "the blackout begins anew"
    clock.advance(1.5)
    assert host.weight == 90
    assert len(changes) == 4


def test_nothing_is_built_anew_while_weights_stay(clock: Clock) -> None:
    hosts = make_hosts(2)
    weights, changes = started(clock, hosts)
    for _ in range(5):
        for host in hosts:
            weights.on_fields(host, report(10))
        clock.advance(1.0)
    assert len(changes) == 1


def test_wrong_reports_change_nothing(clock: Clock) -> None:
    (host,) = hosts = make_hosts(1)
    weights, _ = started(clock, hosts)
    weights.on_fields(host, report(5))
    assert not weights.on_fields(host, {HEADER: b"TEXT nothing"})
    assert not weights.on_fields(host, {})
    assert weights.on_fields(host, {HEADER: b"TEXT cpu_utilization=1"}), "a report, of which no weight can be made"
    clock.advance(1.0)
    assert host.weight == 5


def test_hosts_that_left_are_forgotten(clock: Clock) -> None:
    hosts = make_hosts(2)
    weights, _ = started(clock, hosts)
    for host in hosts:
        weights.on_fields(host, report(5))
    hosts.pop()
    clock.advance(1.0)
    assert repr(weights) == "<ClientSideWeights 1 hosts report>"


def test_a_cluster_picks_by_the_weights_that_were_reported(clock: Clock) -> None:
    endpoints = tuple(LbEndpoint(SocketAddress("10.0.0.1", port), load_balancing_weight=7) for port in (1, 2, 3))
    config = ClusterConfig(
        "backend",
        "backend",
        "STATIC",
        ClusterLoadAssignment("backend", (LocalityLbEndpoints(endpoints),)),
        lb_policy="CLIENT_SIDE_WEIGHTED_ROUND_ROBIN",
        lb_config=ClientSideWeightedRoundRobin(blackout_period=0.0),
    )
    manager = ClusterManager(Stages(), clock.wheel, seeded())
    cluster = manager.add(config)
    manager.start(lambda: None)
    assert picks(cluster.pick, 300) == {f"10.0.0.1:{port}": 100 for port in (1, 2, 3)}
    assert cluster.load_reports is not None
    for host, weight in zip(cluster.hosts, (100, 200, 700), strict=True):
        cluster.load_reports.on_fields(host, report(weight))
    clock.advance(1.0)
    assert picks(cluster.pick, 1000) == {"10.0.0.1:1": 100, "10.0.0.1:2": 200, "10.0.0.1:3": 700}
    manager.close()
    clock.advance(5.0)
    assert len(clock.wheel) == 0
