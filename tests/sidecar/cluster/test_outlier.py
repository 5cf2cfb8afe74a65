"""Outlier detection: sequences of answers, and who is ejected for how long; limits and counts as in Envoy 1.40."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import host_sets_of
from sidecar.cluster.load_balancers.flat import RoundRobin
from sidecar.cluster.load_balancers.layered import CommonOptions, LayeredBalancer
from sidecar.cluster.outlier import OutlierDetector
from sidecar.config.circuit_breakers import OutlierDetection
from sidecar.core.upstream import CONNECTION_FAILURE, CONNECTION_TIMEOUT, OVERFLOW
from tests.sidecar.cluster.surroundings import Clock, Counts, make_cluster, make_hosts, picks, seeded


class Setting:
    """A cluster with outlier detection, whose clock the test holds."""

    def __init__(self, clock: Clock, hosts: int, **config: Any) -> None:
        self.clock = clock
        self.hosts = make_hosts(hosts)
        self.stats = Counts()
        random = seeded()
        options = CommonOptions(random, Counts(), healthy_panic_threshold=0.0)
        self.cluster: Cluster = make_cluster(
            clock, LayeredBalancer(RoundRobin(random), options), host_sets_of(self.hosts)
        )
        self.detector = OutlierDetector(
            OutlierDetection(**config),
            self.stats,
            lambda: len(self.cluster.hosts),
            self.cluster.refresh_health,
            clock.wheel,
            random,
        )
        self.cluster.outlier = self.detector

    def answers(self, host: Host, *statuses: int) -> None:
        """What the hot path does with each status."""
        for status in statuses:
            if status >= 500 or host.consecutive_5xx or host.consecutive_gateway:
                self.detector.on_status(host, status)

    def ejected(self) -> list[int]:
        return [number for number, host in enumerate(self.hosts) if not host.usable]


def test_five_errors_in_a_row_eject_and_nothing_less_does(clock: Clock) -> None:
    setting = Setting(clock, 10)
    setting.answers(setting.hosts[0], 500, 500, 500, 500, 200, 500, 500, 500, 500)
    assert setting.ejected() == []
    setting.answers(setting.hosts[0], 503)
    assert setting.ejected() == [0]
    assert set(picks(setting.cluster.pick, 100)) == {host.address.text for host in setting.hosts[1:]}
    assert setting.hosts[0].health_flags() == "/failed_outlier_check"
    assert setting.stats.seen() == {
        "ejections_active": 1,
        "ejections_total": 1,
        "ejections_enforced_total": 1,
        "ejections_consecutive_5xx": 1,
        "ejections_detected_consecutive_5xx": 1,
        "ejections_enforced_consecutive_5xx": 1,
    }


def test_ejection_ends_the_connections_to_the_host(clock: Clock) -> None:
    setting = Setting(clock, 2, max_ejection_percent=50)
    drained: list[int] = []
    for number, host in enumerate(setting.hosts):
        host.pool = SimpleNamespace(drain_connections=lambda number=number: drained.append(number))
    setting.answers(setting.hosts[1], *[500] * 5)
    setting.answers(setting.hosts[0], *[500] * 5)
    assert drained == setting.ejected() == [1]


def test_an_ejected_host_comes_back_on_a_tick_of_the_sweep(clock: Clock) -> None:
    setting = Setting(clock, 10)
    clock.advance(3.0)
    setting.answers(setting.hosts[0], *[500] * 5)
    clock.advance(30.0)
    assert setting.ejected() == [0]
    clock.advance(8.0)  # ejected at 3, over at 33, swept at 40
    assert setting.ejected() == []
    assert len(picks(setting.cluster.pick, 100)) == 10
    assert setting.stats.ejections_active == 0
    assert setting.hosts[0].ejected_until == 0.0
    setting.answers(setting.hosts[0], *[500] * 4)
    assert setting.ejected() == []


def test_each_ejection_is_longer_and_good_intervals_forgive(clock: Clock) -> None:
    setting = Setting(clock, 10, interval=1.0, base_ejection_time=30.0, max_ejection_time=100.0)
    host, times = setting.hosts[0], []
    for _ in range(7):
        setting.answers(host, *[500] * 5)
        start = clock.now
        while not host.usable:
            clock.advance(0.5)
        times.append(clock.now - start)
    assert [round(seconds / 10) * 10 for seconds in times] == [30, 60, 90, 100, 100, 100, 100]
    assert host.ejections == 5
    clock.advance(10.0)
    assert host.ejections == 0
    assert len(clock.wheel) == 0
    setting.answers(host, *[500] * 5)
    assert host.ejected_until == pytest.approx(clock.now + 30.0)


def test_jitter_lengthens_an_ejection(clock: Clock) -> None:
    setting = Setting(clock, 100, max_ejection_time_jitter=20.0)
    until = []
    for host in setting.hosts[:10]:
        setting.answers(host, *[500] * 5)
        until.append(host.ejected_until - clock.now)
    assert all(30.0 <= seconds <= 50.0 for seconds in until)
    assert len(set(until)) == 10


@pytest.mark.parametrize(
    ("hosts", "config", "ejected"),
    [
        (5, {}, 0),
        (5, {"always_eject_one_host": True}, 1),
        (10, {}, 1),
        (2, {"max_ejection_percent": 50}, 1),
        (3, {"max_ejection_percent": 50}, 1),
        (4, {"max_ejection_percent": 50}, 2),
        (4, {"max_ejection_percent": 100}, 4),
        (4, {"max_ejection_percent": 0}, 0),
    ],
)
def test_no_more_hosts_are_ejected_than_allowed(hosts: int, config: dict[str, Any], ejected: int, clock: Clock) -> None:
    setting = Setting(clock, hosts, consecutive_5xx=2, **config)
    for host in setting.hosts:
        setting.answers(host, 500, 500)
    assert len(setting.ejected()) == ejected
    assert setting.stats.ejections_overflow == hosts - ejected
    assert setting.stats.ejections_detected_consecutive_5xx == hosts


def test_gateway_errors_are_counted_apart_and_enforced_only_when_asked(clock: Clock) -> None:
    setting = Setting(clock, 10, consecutive_5xx=100, consecutive_gateway_failure=3)
    setting.answers(setting.hosts[0], 502, 503, 504)
    assert setting.ejected() == []
    assert setting.stats.ejections_detected_consecutive_gateway_failure == 1
    assert setting.stats.ejections_enforced_total == 0
    enforcing = Setting(
        clock, 10, consecutive_5xx=100, consecutive_gateway_failure=3, enforcing_consecutive_gateway_failure=100
    )
    enforcing.answers(enforcing.hosts[0], 502, 503, 500, 504, 503)
    assert enforcing.ejected() == []
    enforcing.answers(enforcing.hosts[0], 502)
    assert enforcing.ejected() == [0]
    assert enforcing.stats.ejections_enforced_consecutive_gateway_failure == 1
    assert enforcing.stats.ejections_total == 0


def test_enforcing_is_a_chance_in_a_hundred(clock: Clock) -> None:
    setting = Setting(clock, 400, consecutive_5xx=1, enforcing_consecutive_5xx=25, max_ejection_percent=100)
    for host in setting.hosts:
        setting.answers(host, 500)
    assert 60 <= len(setting.ejected()) <= 140
    assert setting.stats.ejections_detected_consecutive_5xx == 400
    assert setting.stats.ejections_enforced_consecutive_5xx == len(setting.ejected())


def test_local_origin_failures_count_as_gateway_errors_unless_split(clock: Clock) -> None:
    setting = Setting(clock, 10)
    for reason in (CONNECTION_FAILURE, OVERFLOW, CONNECTION_TIMEOUT):
        setting.detector.on_local_origin_failure(setting.hosts[0], reason)
    assert (setting.hosts[0].consecutive_5xx, setting.hosts[0].consecutive_gateway) == (2, 2)
    setting.detector.on_success(setting.hosts[0])
    assert setting.hosts[0].consecutive_5xx == 2
    setting.detector.on_success(setting.hosts[0], final=True)
    assert setting.hosts[0].consecutive_5xx == 0


def test_split_local_origin_failures_have_their_own_count(clock: Clock) -> None:
    setting = Setting(
        clock, 10, split_external_local_origin_errors=True, consecutive_local_origin_failure=3, consecutive_5xx=3
    )
    host = setting.hosts[0]
    setting.answers(host, 500, 500)
    for _ in range(2):
        setting.detector.on_local_origin_failure(host, CONNECTION_TIMEOUT)
    assert setting.ejected() == []
    setting.detector.on_success(host)
    for _ in range(2):
        setting.detector.on_local_origin_failure(host, CONNECTION_FAILURE)
    assert setting.ejected() == []
    setting.detector.on_local_origin_failure(host, CONNECTION_FAILURE)
    assert setting.ejected() == [0]
    assert setting.stats.ejections_enforced_consecutive_local_origin_failure == 1
    assert host.consecutive_5xx == 2


def test_late_answers_of_an_ejected_host_change_nothing(clock: Clock) -> None:
    setting = Setting(clock, 10)
    setting.answers(setting.hosts[0], *[500] * 20)
    assert setting.stats.ejections_detected_consecutive_5xx == 1
    assert setting.hosts[0].ejections == 1


def test_a_host_that_is_removed_while_ejected_is_no_longer_counted(clock: Clock) -> None:
    setting = Setting(clock, 10)
    setting.answers(setting.hosts[0], *[500] * 5)
    setting.cluster.update(host_sets_of(setting.hosts[1:]))
    assert setting.stats.ejections_active == 0
    setting.answers(setting.hosts[0], *[500] * 5)
    assert setting.stats.ejections_detected_consecutive_5xx == 1
    clock.advance(100.0)
    assert setting.stats.ejections_active == 0
    assert len(clock.wheel) == 0


def test_no_timer_runs_while_nobody_is_ejected(clock: Clock) -> None:
    setting = Setting(clock, 10)
    setting.answers(setting.hosts[0], *[500] * 4)
    assert len(clock.wheel) == 0
    setting.answers(setting.hosts[0], 500)
    assert len(clock.wheel) == 1
    setting.cluster.close()
    assert len(clock.wheel) == 0
