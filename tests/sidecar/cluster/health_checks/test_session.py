"""The state machine of one host's checks: thresholds, intervals, time limits, flags, statistics and events."""

from __future__ import annotations

import pytest

from tests.sidecar.cluster.health_checks.checking import Checking
from tests.sidecar.cluster.surroundings import Clock, make_hosts


def test_a_host_is_unhealthy_until_its_first_check_which_counts_at_once(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1))
    host = checking.hosts[0]
    assert host.health_flags() == "/failed_active_hc" and not host.usable
    assert checking.succeed() == pytest.approx(10, abs=0.4)
    assert host.health_flags() == "healthy" and host.usable
    assert checking.log.lines == [("add", True)]
    assert checking.stats.seen() == {"attempt": 2, "success": 1, "healthy": 1}


def test_a_first_check_that_fails_leaves_it_so_and_is_told(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1))
    assert checking.fail() == pytest.approx(20, abs=0.4)
    checking.fail()
    assert checking.log.lines == [("failure", "NETWORK", True, 0)]
    assert checking.hosts[0].health_flags() == "/failed_active_hc"
    assert checking.stats.seen() == {"attempt": 3, "failure": 2, "network_failure": 2}


def test_thresholds_and_edge_intervals(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1))
    host = checking.hosts[0]
    checking.succeed()
    assert checking.fail() == pytest.approx(5, abs=0.4)
    assert checking.fail() == pytest.approx(5, abs=0.4)
    assert host.usable
    assert checking.fail() == pytest.approx(20, abs=0.4)
    assert not host.usable
    assert checking.succeed() == pytest.approx(4, abs=0.4)
    assert not host.usable
    assert checking.succeed() == pytest.approx(10, abs=0.4)
    assert host.usable
    assert checking.log.lines == [("add", True), ("eject", "NETWORK", 0), ("add", False)]
    assert checking.heard == [(True, True), (False, False), (False, False), (True, False), (False, True), (True, True)]


def test_a_check_that_goes_the_other_way_starts_the_count_anew(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1))
    checking.succeed()
    for _ in range(3):
        checking.fail()
        checking.fail()
        checking.succeed()
    assert checking.hosts[0].usable
    for _ in range(3):
        checking.fail()
    for _ in range(3):
        checking.succeed()
        checking.fail()
    assert not checking.hosts[0].usable


def test_a_wrong_answer_needs_no_threshold_unless_it_is_retriable(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1))
    checking.succeed()
    checking.fail("ACTIVE", retriable=True, status=503)
    checking.fail("ACTIVE", retriable=True, status=503)
    assert checking.hosts[0].usable
    checking.fail("ACTIVE", status=500)
    assert not checking.hosts[0].usable
    assert checking.log.lines[-1] == ("eject", "ACTIVE", 500)
    assert checking.stats.seen()["failure"] == 3 and "network_failure" not in checking.stats.seen()


def test_no_answer_in_time(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1), unhealthy_threshold=1)
    host = checking.hosts[0]
    checking.succeed()
    began = clock.now
    while not checking.probe.timeouts:
        clock.advance(0.05)
    assert clock.now - began == pytest.approx(1.0, abs=0.1)
    assert host.health_flags() == "/failed_active_hc/active_hc_timeout"
    assert checking.log.lines[-1] == ("eject", "NETWORK_TIMEOUT", 0)
    assert checking.next_check() == pytest.approx(20, abs=0.4)
    checking.succeed()
    assert host.health_flags() == "/failed_active_hc/active_hc_timeout", "until it is healthy"
    checking.succeed()
    assert host.health_flags() == "healthy"


def test_without_traffic_checks_are_rare(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1))
    checking.traffic = False
    assert checking.fail() == pytest.approx(60, abs=0.4)
    assert checking.succeed() == pytest.approx(60, abs=0.4), "on its way up"
    assert checking.succeed() == pytest.approx(70, abs=0.4)
    assert checking.fail() == pytest.approx(60, abs=0.4)


def test_degraded_and_no_longer(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1))
    host = checking.hosts[0]
    checking.succeed(degraded=True)
    assert host.degraded and host.health_flags() == "/degraded_active_hc"
    assert checking.stats.seen()["degraded"] == 1
    checking.succeed()
    assert not host.degraded and "degraded" not in checking.stats.seen()
    assert checking.log.lines == [("add", True), ("degraded", True), ("degraded", False)]
    assert checking.heard == [(True, True), (True, True)]


def test_everything_is_logged_where_that_is_wanted(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1), always_log_failures=True, always_log_success=True)
    checking.succeed()
    checking.succeed()
    checking.fail()
    checking.fail("ACTIVE", status=404)
    checking.succeed()
    assert checking.log.lines == [
        ("add", True),
        ("success",),
        ("failure", "NETWORK", False, 0),
        ("eject", "ACTIVE", 404),
        ("failure", "ACTIVE", False, 404),
        ("success",),
    ]


def test_failed_at_once_and_left_out_of_counts(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1), healthy_threshold=1)
    host = checking.hosts[0]
    checking.succeed()
    checking.checker.fail_now(host)
    checking.checker.fail_now(host)
    assert host.health_flags() == "/failed_active_hc/excluded_via_immediate_hc_fail" and host.excluded
    assert checking.stats.seen()["passive_failure"] == 2
    assert checking.log.lines[-1] == ("eject", "PASSIVE", 0)
    checking.succeed()
    assert host.health_flags() == "healthy" and not host.excluded


def test_hosts_that_wait_for_their_first_check_do_not_count(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1), exclude_new=True)
    host = checking.hosts[0]
    assert host.health_flags() == "/failed_active_hc/pending_active_hc" and host.excluded
    checking.fail()
    assert host.health_flags() == "/failed_active_hc" and not host.excluded
    assert checking.heard == [(True, False)], "whether a host counts is a change, too"


def test_one_refresh_for_all_that_change_together(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(200), initial_jitter=0.0)
    clock.advance(0.05)
    for probe in checking.probes.values():
        probe.outcome.succeeded()
    assert checking.refreshed == 0
    clock.advance(0.01)
    assert checking.refreshed == 1
    assert checking.stats.seen()["healthy"] == 200


def test_many_hosts_do_not_begin_together(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(200))
    assert 0 < checking.stats.attempt <= 150, "the first turns of the wheel"
    clock.advance(0.05)
    assert checking.stats.attempt == 200


def test_jitter_lengthens_intervals(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(1), interval_jitter=2.0, interval_jitter_percent=30)
    seen = [checking.succeed() for _ in range(40)]
    assert 10 <= min(seen) < 11 and 13 < max(seen) <= 15.4


def test_the_runtime_bounds_intervals(clock: Clock) -> None:
    assert Checking(clock, make_hosts(1), max_interval=3.0).succeed() == pytest.approx(3, abs=0.4)
    assert Checking(clock, make_hosts(1), min_interval=30.0).succeed() == pytest.approx(30, abs=0.4)


def test_the_first_check_may_be_late_by_chance(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(50), initial_jitter=10.0)
    clock.advance(5)
    assert 10 < checking.stats.attempt < 40
    clock.advance(5.1)
    assert checking.stats.attempt == 50


def test_hosts_that_leave_are_asked_no_more(clock: Clock) -> None:
    checking = Checking(clock, make_hosts(2))
    first, second = checking.hosts
    called: list[str] = []
    checking.checker.when_checked(lambda: called.append("all"))
    checking.probes[second].outcome.succeeded()
    assert not called
    checking.checker.forget(first)
    assert called == ["all"], "who has left keeps nobody waiting"
    assert checking.probes[first].closed
    asked = len(checking.probes[first].asked)
    clock.advance(100)
    assert len(checking.probes[first].asked) == asked
    checking.checker.close()
    assert len(clock.wheel) == 0
    assert "healthy" not in checking.stats.seen()
