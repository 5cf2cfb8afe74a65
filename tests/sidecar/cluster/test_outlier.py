"""Outlier detection: sequences of answers, and who is ejected for how long; limits and counts as in Envoy 1.40."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import FAILED_ACTIVE_HC, Host
from sidecar.cluster.host_set import host_sets_of
from sidecar.cluster.load_balancers.flat import RoundRobin
from sidecar.cluster.load_balancers.layered import CommonOptions, LayeredBalancer
from sidecar.cluster.outlier import OutlierDetector
from sidecar.cluster.outlier_events import OutlierEventLog, timestamp
from sidecar.config.outlier_detection import OutlierDetection
from sidecar.core.upstream import CONNECTION_FAILURE, CONNECTION_TIMEOUT, OVERFLOW
from tests.sidecar.cluster.surroundings import Clock, Counts, make_cluster, make_hosts, picks, seeded


class Setting:
    """A cluster with outlier detection, whose clock the test holds."""

    def __init__(self, clock: Clock, hosts: int, **config: Any) -> None:
        self.clock = clock
        self.hosts = make_hosts(hosts)
        self.stats = Counts()
        self.events: list[dict[str, Any]] = []
        log = OutlierEventLog(
            lambda line: self.events.append(json.loads(line)), lambda: clock.now, lambda: 1_700_000_000.25
        )
        random = seeded()
        options = CommonOptions(random, Counts(), healthy_panic_threshold=0.0)
        self.cluster: Cluster = make_cluster(
            clock, LayeredBalancer(RoundRobin(random), options), host_sets_of(self.hosts)
        )
        self.detector = OutlierDetector(
            OutlierDetection(**config),
            self.stats,
            lambda: self.cluster.hosts,
            self.cluster.refresh_health,
            clock.wheel,
            random,
            "backend",
            log,
        )
        self.cluster.outlier = self.detector
        self.detector.watch(self.hosts)

    def answers(self, host: Host, *statuses: int) -> None:
        """What the hot path does with each status."""
        for status in statuses:
            host.rq_total += 1
            host.rq_success += status < 500
            if status >= 500 or host.consecutive_5xx or host.consecutive_gateway:
                self.detector.on_status(host, status)

    def rates(self, *shares: tuple[int, int]) -> None:
        """So many good and bad answers of each host, none of them bad many times in a row."""
        for host, (good, bad) in zip(self.hosts, shares, strict=False):
            for number in range(max(good, bad)):
                if number < bad:
                    self.answers(host, 500)
                if number < good:
                    self.answers(host, 200)

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
    setting = Setting(clock, 4, max_ejection_percent=50)
    setting.answers(setting.hosts[0], *[500] * 5)
    setting.cluster.update(host_sets_of(setting.hosts[1:]))
    assert setting.stats.ejections_active == 0
    setting.answers(setting.hosts[0], *[500] * 5)
    assert setting.stats.ejections_detected_consecutive_5xx == 1
    clock.advance(100.0)
    assert setting.stats.ejections_active == 0
    assert len(clock.wheel) == 0


def test_no_timer_runs_while_nobody_is_ejected_nor_can_be_compared(clock: Clock) -> None:
    setting = Setting(clock, 4, always_eject_one_host=True)
    setting.answers(setting.hosts[0], *[500] * 4)
    assert len(clock.wheel) == 0
    setting.answers(setting.hosts[0], 500)
    assert len(clock.wheel) == 1
    setting.cluster.close()
    assert len(clock.wheel) == 0


COMPARING = {"interval": 1.0, "consecutive_5xx": 1000, "max_ejection_percent": 100, "success_rate_minimum_hosts": 3,
             "success_rate_request_volume": 10, "success_rate_stdev_factor": 1000}  # fmt: skip


def test_a_host_whose_success_rate_is_far_below_the_others_is_ejected(clock: Clock) -> None:
    setting = Setting(clock, 5, **COMPARING)
    setting.rates((5, 5), (10, 0), (20, 0), (10, 0), (9, 0))
    clock.advance(1.0)
    assert setting.ejected() == [0]
    # the mean of 50, 100, 100 and 100, less one standard deviation; the last host had too few requests
    assert (setting.detector.rates.average, setting.detector.rates.ejection_threshold) == pytest.approx(
        (87.5, 65.849365)
    )
    assert [host.monitor.success_rate for host in setting.hosts if host.monitor] == [50.0, 100.0, 100.0, 100.0, -1.0]
    assert setting.stats.seen() == {
        "ejections_active": 1,
        "ejections_total": 1,
        "ejections_enforced_total": 1,
        "ejections_success_rate": 1,
        "ejections_detected_success_rate": 1,
        "ejections_enforced_success_rate": 1,
    }
    clock.advance(1.0)
    assert setting.detector.rates.average == -1.0
    assert [host.monitor.success_rate for host in setting.hosts if host.monitor] == [-1.0] * 5


@pytest.mark.parametrize(
    ("hosts", "shares", "config"),
    [
        (5, [(5, 5), (10, 0), (10, 0), (10, 0), (10, 0)], {"success_rate_minimum_hosts": 6}),
        (5, [(4, 5), (10, 0), (10, 0), (10, 0), (10, 0)], {}),
        (5, [(5, 5), (10, 0), (9, 0), (9, 0), (9, 0)], {}),
        (5, [(5, 5), (10, 0), (10, 0), (10, 0), (10, 0)], {"success_rate_stdev_factor": 2001}),
        (5, [(9, 1), (9, 1), (9, 1), (9, 1), (9, 1)], {}),
        (5, [(5, 5), (10, 0), (10, 0), (10, 0), (10, 0)], {"enforcing_success_rate": 0}),
    ],
    ids=["few-hosts", "few-requests", "few-hosts-with-requests", "not-far-enough", "all-the-same", "not-enforced"],
)
def test_who_is_not_ejected_by_success_rate(
    hosts: int, shares: list[tuple[int, int]], config: dict[str, Any], clock: Clock
) -> None:
    setting = Setting(clock, hosts, **{**COMPARING, **config})
    setting.rates(*shares)
    clock.advance(1.0)
    assert setting.ejected() == []
    assert setting.stats.ejections_detected_success_rate == (config.get("enforcing_success_rate") == 0)


def test_failure_percentage_ejects_however_the_others_fare(clock: Clock) -> None:
    failing = {"enforcing_failure_percentage": 100, "failure_percentage_threshold": 60,
               "failure_percentage_minimum_hosts": 3, "failure_percentage_request_volume": 5}  # fmt: skip
    setting = Setting(clock, 4, **{**COMPARING, "success_rate_minimum_hosts": 9, **failing})
    setting.rates((4, 6), (4, 6), (5, 5), (0, 4))
    clock.advance(1.0)
    assert setting.ejected() == [0, 1]
    assert setting.stats.ejections_enforced_failure_percentage == 2
    assert setting.stats.ejections_total == setting.stats.ejections_success_rate == 0


def test_a_sweep_ejects_a_host_once_though_both_rates_are_bad(clock: Clock) -> None:
    setting = Setting(
        clock, 5, **COMPARING, enforcing_failure_percentage=100, failure_percentage_request_volume=5,
    )  # fmt: skip
    setting.rates((0, 10), *[(10, 0)] * 4)
    clock.advance(1.0)
    assert setting.ejected() == [0]
    assert (setting.stats.ejections_detected_success_rate, setting.stats.ejections_detected_failure_percentage) == (
        1,
        1,
    )
    assert (setting.stats.ejections_enforced_total, setting.stats.ejections_active) == (1, 1)
    clock.advance(40.0)
    assert setting.stats.ejections_active == 0


def test_local_origin_rates_are_those_of_what_happens_on_the_way(clock: Clock) -> None:
    setting = Setting(
        clock, 5, **COMPARING, split_external_local_origin_errors=True, consecutive_local_origin_failure=1000
    )
    for host in setting.hosts:
        setting.answers(host, *[200] * 10)
    for _ in range(10):
        setting.detector.on_local_origin_failure(setting.hosts[3], CONNECTION_FAILURE)
    clock.advance(1.0)
    assert setting.ejected() == [3]
    assert setting.stats.ejections_enforced_local_origin_success_rate == 1
    assert setting.stats.ejections_total == 0
    assert [host.monitor.success_rate for host in setting.hosts if host.monitor] == [100.0] * 5
    rates = [host.monitor.local_origin_success_rate for host in setting.hosts if host.monitor]
    assert rates == [100.0, 100.0, 100.0, 50.0, 100.0]
    assert setting.detector.local_origin_rates.average == 90.0


def test_local_origin_failures_are_failed_requests_unless_split(clock: Clock) -> None:
    setting = Setting(clock, 5, **COMPARING)
    setting.rates(*[(10, 0)] * 5)
    for _ in range(10):
        setting.detector.on_local_origin_failure(setting.hosts[0], CONNECTION_TIMEOUT)
    for _ in range(2):
        setting.detector.on_local_origin_failure(setting.hosts[1], "timeout", 204)
    setting.detector.on_success(setting.hosts[2], final=True)
    setting.hosts[4].rq_success -= 1
    setting.detector.kept_success(setting.hosts[4])
    clock.advance(1.0)
    assert [host.monitor.success_rate for host in setting.hosts if host.monitor] == [50.0, 100.0, 100.0, 100.0, 100.0]
    assert setting.ejected() == [0]
    assert setting.detector.local_origin_rates.average == -1.0


def test_failures_behind_a_connection_that_works_are_not_in_a_row(clock: Clock) -> None:
    setting = Setting(clock, 10, split_external_local_origin_errors=True, consecutive_local_origin_failure=2)
    host = setting.hosts[0]
    for _ in range(5):
        host.rq_total += 1  # it was sent, and then the connection broke
        setting.detector.on_local_origin_failure(host, CONNECTION_FAILURE)
    assert setting.ejected() == []
    setting.detector.on_local_origin_failure(host, CONNECTION_FAILURE)
    assert setting.ejected() == [0]


def test_hosts_that_join_are_compared_once_there_are_enough(clock: Clock) -> None:
    setting = Setting(clock, 5, **COMPARING)
    setting.cluster.update(host_sets_of(setting.hosts[:2]))
    clock.advance(1.0)
    setting.rates((0, 20), (20, 0))
    clock.advance(1.0)
    assert len(clock.wheel) == 0
    setting.cluster.update(host_sets_of(setting.hosts))
    setting.rates((0, 5), *[(10, 0)] * 4)
    clock.advance(1.0)
    assert setting.ejected() == []  # what it did before does not count
    setting.rates((0, 10), *[(10, 0)] * 4)
    clock.advance(1.0)
    assert setting.ejected() == [0]


def test_a_good_health_check_brings_a_host_back(clock: Clock) -> None:
    setting = Setting(clock, 10)
    host = setting.hosts[0]
    setting.detector.host_became_healthy(host)
    setting.answers(host, *[500] * 5)
    host.set_flag(FAILED_ACTIVE_HC, True)
    setting.detector.host_became_healthy(host)
    assert setting.ejected() == [0]
    host.set_flag(FAILED_ACTIVE_HC, False)
    setting.detector.host_became_healthy(host)
    assert (setting.ejected(), setting.stats.ejections_active) == ([], 0)
    kept = Setting(clock, 10, successful_active_health_check_uneject_host=False)
    kept.answers(kept.hosts[0], *[500] * 5)
    kept.detector.host_became_healthy(kept.hosts[0])
    assert kept.ejected() == [0]


def test_events(clock: Clock) -> None:
    setting = Setting(clock, 10, interval=1.0, enforcing_consecutive_gateway_failure=0)
    host = setting.hosts[0]
    setting.answers(host, *[503] * 5)
    clock.advance(31.5)
    setting.answers(host, *[500] * 5)
    common = {"cluster_name": "backend", "upstream_url": host.address.text}
    assert [{key: value for key, value in event.items() if key != "timestamp"} for event in setting.events] == [
        {"type": "CONSECUTIVE_GATEWAY_FAILURE", **common, "action": "EJECT", "num_ejections": 0, "enforced": False,
         "eject_consecutive_event": {}},
        {"type": "CONSECUTIVE_5XX", **common, "action": "EJECT", "num_ejections": 1, "enforced": True,
         "eject_consecutive_event": {}},
        {"type": "CONSECUTIVE_5XX", "secs_since_last_action": "30", **common, "action": "UNEJECT", "num_ejections": 1,
         "enforced": False},
        {"type": "CONSECUTIVE_5XX", "secs_since_last_action": "1", **common, "action": "EJECT", "num_ejections": 2,
         "enforced": True, "eject_consecutive_event": {}},
    ]  # fmt: skip
    assert setting.events[0]["timestamp"] == "2023-11-14T22:30:00.250Z"
    assert timestamp(1_700_000_000.0) == "2023-11-14T22:13:20Z"


def test_events_of_rates(clock: Clock) -> None:
    failing = {"enforcing_failure_percentage": 100, "failure_percentage_threshold": 60,
               "failure_percentage_minimum_hosts": 3, "failure_percentage_request_volume": 5}  # fmt: skip
    setting = Setting(clock, 5, **COMPARING, **failing)
    setting.rates((2, 7), (6, 4), (10, 0), (10, 0), (10, 0))
    clock.advance(1.0)
    found = [(event["type"], event.get("eject_success_rate_event") or event["eject_failure_percentage_event"])
             for event in setting.events]  # fmt: skip
    rates = {"host_success_rate": 60, "cluster_average_success_rate": 90, "cluster_success_rate_ejection_threshold": 72}
    assert found == [("SUCCESS_RATE", rates), ("FAILURE_PERCENTAGE", {"host_success_rate": 22})]
