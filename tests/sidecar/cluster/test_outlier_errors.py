"""Outlier detection where a cluster says what an error is: predicates on heads, and what becomes of the counts."""

from __future__ import annotations

from random import Random

import pytest

from sidecar.cluster.host import Host
from sidecar.cluster.outlier_errors import MatchingDetector, compile_errors
from sidecar.config.match_predicate import MatchPredicate
from sidecar.config.matcher import HeaderMatcher, StringMatcher
from sidecar.config.outlier_detection import OutlierDetection
from sidecar.core.head import ResponseHead
from tests.sidecar.cluster.surroundings import Clock, Counts, make_hosts


def having(name: bytes, value: bytes) -> MatchPredicate:
    return MatchPredicate("headers", headers=(HeaderMatcher(name, StringMatcher("exact", value)),))


MISSING, BAD = having(b":status", b"404"), having(b"x-bad", b"yes")


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (MISSING, [False, True, False, True]),
        (BAD, [False, False, True, True]),
        (MatchPredicate("or", (MISSING, BAD)), [False, True, True, True]),
        (MatchPredicate("and", (MISSING, BAD)), [False, False, False, True]),
        (MatchPredicate("not", (MISSING,)), [True, False, True, False]),
        (MatchPredicate("any"), [True, True, True, True]),
    ],
)
def test_predicates(predicate: MatchPredicate, expected: list[bool]) -> None:
    bad = [(b"x-bad", b"yes")]
    heads = [ResponseHead(200, []), ResponseHead(404, []), ResponseHead(500, list(bad)), ResponseHead(404, list(bad))]
    assert list(map(compile_errors(predicate), heads)) == expected


def answers(detector: MatchingDetector, host: Host, *statuses: int) -> None:
    """What the router does with each status."""
    for status in statuses:
        detector.on_head(host, ResponseHead(status, []), status < 500)
        host.rq_success += status < 500
        if status >= 500 or host.consecutive_5xx:
            detector.on_status(host, status, False)


def test_what_matches_is_an_error_and_nothing_else_is(clock: Clock) -> None:
    hosts, stats = make_hosts(3), Counts()
    config = OutlierDetection(consecutive_5xx=3, max_ejection_percent=100, success_rate_minimum_hosts=1,
                              success_rate_request_volume=1, enforcing_success_rate=0, interval=1.0)  # fmt: skip
    predicate = MatchPredicate("or", (MISSING, having(b":status", b"503")))
    detector = MatchingDetector(predicate, config, stats, lambda: hosts, lambda: None, clock.wheel, Random(1))
    detector.watch(hosts)
    answers(detector, hosts[0], 404, 404, 500, 404, 503)
    assert hosts[0].usable and (hosts[0].consecutive_5xx, hosts[0].consecutive_gateway) == (2, 1)
    answers(detector, hosts[1], *[500] * 9, 200)
    detector.on_local_origin_failure(hosts[2], "connection timeout")
    answers(detector, hosts[2], 404)
    clock.advance(1.0)
    assert [host.monitor.success_rate for host in hosts if host.monitor] == [20.0, 100.0, 0.0]
    answers(detector, hosts[0], 404)
    assert not hosts[0].usable
    assert stats.ejections_enforced_consecutive_5xx == 1
