"""Who gets how much, where chance decides: both proxies spread requests alike, and count them alike."""

from __future__ import annotations

import http.client
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from pathlib import Path

import pytest

from tests.differential.blocks import Site
from tests.differential.case import reply
from tests.differential.cases import BOOTSTRAPS
from tests.differential.cases.load_reports import METRIC
from tests.differential.proxies import Proxy, ProxyFailedError, subject_kind
from tests.differential.runner import Runner

REQUESTS = 500
SIGMAS = 5.0
FEW = 4
"""Where a turn begins, and what is counted when zones are looked at, too, which Envoy does more often."""

COUNTED = ("lb_healthy_panic", "lb_zone_routing_all_directly", "lb_subsets_selected", "lb_subsets_fallback")
"""What is counted for each request, whatever the dice say."""

DICED = (("lb_zone_routing_sampled", "lb_zone_routing_cross_zone"), ("lb_local_cluster_not_ok",))
"""Counters of which only the sum does not depend on the dice."""

ONCE = ("lb_zone_cluster_too_small",)
"""What is counted whenever zones are looked at: Envoy does that more often."""


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner(subject_kind())
    yield runner
    runner.close()


def spread(proxy: Proxy, cluster: str, requests: int = REQUESTS) -> Counter[str]:
    """Who answered, by name; the status where nobody did."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports["http"], timeout=5)
    answers: Counter[str] = Counter()
    try:
        for _ in range(requests):
            connection.request("GET", f"/{cluster}/")
            response = connection.getresponse()
            body = response.read().decode()
            answers[body.removeprefix("from ") if response.status == 200 else str(response.status)] += 1
    finally:
        connection.close()
    return answers


def counted(proxy: Proxy, cluster: str) -> dict[str, int]:
    lines = proxy.admin(f"/stats?filter=^cluster.{cluster}.lb_")[2].splitlines()
    pairs = (line.split(": ") for line in lines)
    return {name.removeprefix(f"cluster.{cluster}."): int(value) for name, value in pairs}


def assert_alike(envoy: Mapping[str, int], subject: Mapping[str, int]) -> None:
    """Two samples of one distribution: no share differs by more than chance can explain."""
    for name in {*envoy, *subject}:
        one, other = envoy.get(name, 0), subject.get(name, 0)
        share = min(1.0, (one + other) / (2 * REQUESTS))
        deviation = sqrt(2 * REQUESTS * share * (1 - share))
        assert abs(one - other) <= SIGMAS * deviation + FEW, (dict(envoy), dict(subject))


@pytest.mark.parametrize("bootstrap", ["zones", "zones-ill", "shares"])
def test_requests_are_spread_and_counted_as_by_envoy(bootstrap: str, runner: Runner) -> None:
    try:
        envoy, subject = runner.pair(bootstrap)
    except ProxyFailedError as error:
        pytest.fail(str(error))
    runner.upstreams.begin({}, {})
    names = [one["name"] for one in _clusters(runner, bootstrap)]
    assert len(names) > 10
    for name in names:
        by_envoy, by_subject = spread(envoy, name), spread(subject, name)
        runner.upstreams.begin({}, {})
        try:
            assert_alike(by_envoy, by_subject)
            there, here = counted(envoy, name), counted(subject, name)
            assert {each: here.get(each, 0) for each in COUNTED} == {each: there.get(each, 0) for each in COUNTED}
            for group in DICED:  # of which there are some for every request, or for a share of them
                sums = [sum(counts.get(each, 0) for each in group) for counts in (there, here)]
                assert_alike({"sum": sums[0]}, {"sum": sums[1]})
            assert [each for each in ONCE if here.get(each)] == [each for each in ONCE if there.get(each)]
        except AssertionError as error:
            error.add_note(f"cluster {name}")
            raise


def _clusters(runner: Runner, bootstrap: str) -> list[dict[str, str]]:
    """The clusters that this bootstrap has beside the usual ones; its ports do not matter here."""
    site = Site(runner.upstream_ports, lambda name: 1, Path())
    usual = {"a", "b", "c", "refused", "empty"}
    every = BOOTSTRAPS[bootstrap](site)["static_resources"]["clusters"]
    return [one for one in every if one["name"] not in usual]


CLIENTS = 12
EACH = 20


def test_busy_hosts_get_less_as_in_envoy(runner: Runner) -> None:
    """One host needs four times as long as the others: how much less it gets depends on the bias."""
    envoy, subject = runner.pair("busy")
    for name in [one["name"] for one in _clusters(runner, "busy")]:
        shares = []
        for proxy in (envoy, subject):
            runner.upstreams.begin({"a": (reply(delay=0.04),), "*": (reply(delay=0.01),)}, {})
            with ThreadPoolExecutor(CLIENTS) as clients:
                answers = sum(clients.map(spread, *([each] * CLIENTS for each in (proxy, name, EACH))), Counter())
            shares.append({upstream: count / (CLIENTS * EACH) for upstream, count in sorted(answers.items())})
        assert shares[1] == pytest.approx(shares[0], abs=0.12), name


REPORTS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "the-third-gets-the-median": (
        "all",
        {
            "a": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=100"),
            "b": (METRIC, "TEXT cpu_utilization:0.25, rps_fractional:100"),
        },
    ),
    "the-fourth-gets-the-middle-one": (
        "four",
        {
            "a": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=10"),
            "b": (METRIC, "TEXT application_utilization=0.25,cpu_utilization=0.5,rps_fractional=100"),
            "c": (f"{METRIC}-bin", "CQAAAAAAAOA/MQAAAAAAACRA"),
        },
    ),
    "named-metrics-go-first": (
        "named",
        {
            "a": (
                METRIC,
                "TEXT cpu_utilization=0.5,rps_fractional=100,named_metrics.foo=0.2,application_utilization=1",
            ),
            "b": (METRIC, 'JSON {"rpsFractional": 100, "utilization": {"bar": 0.8}, "named_metrics": {"foo": 0.1}}'),
            "c": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=100,named_metrics.baz=0.1"),
        },
    ),
    "errors-are-fined": (
        "fined",
        {
            "a": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=100,eps=25"),
            "b": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=100"),
            "c": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=0.1,eps=9"),
        },
    ),
    "within-localities": (
        "by-locality",
        {
            "a": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=100"),
            "b": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=100"),
            "c": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=300"),
        },
    ),
    "what-is-wrong-counts-for-nothing": (
        "all",
        {
            "a": (METRIC, "cpu_utilization=0.5,rps_fractional=900"),
            "b": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=900,rps_fractional=901"),
            "c": (METRIC, "TEXT cpu_utilization=0.5,rps_fractional=900,disk=1"),
        },
    ),
}


def weights(proxy: Proxy, cluster: str) -> dict[str, str]:
    """The weights of a cluster's hosts, by address."""
    lines = (line.split("::") for line in proxy.admin("/clusters")[2].splitlines())
    return {line[1]: line[3] for line in lines if line[0] == cluster and line[2:3] == ["weight"]}


@pytest.mark.parametrize("name", REPORTS)
def test_hosts_get_the_weights_that_their_reports_are_worth_to_envoy(name: str, runner: Runner) -> None:
    cluster, reports = REPORTS[name]
    envoy, subject = runner.pair("load-reports")
    runner.upstreams.begin({upstream: (reply(headers=[report]),) for upstream, report in reports.items()}, {})
    for proxy in (envoy, subject):
        spread(proxy, cluster)
    until = time.monotonic() + 5.0
    while (seen := weights(envoy, cluster)) != weights(subject, cluster) or len(set(seen.values())) < 2:
        assert time.monotonic() < until, (weights(envoy, cluster), weights(subject, cluster))
        time.sleep(0.02)
    assert_alike(spread(envoy, cluster), spread(subject, cluster))


def test_sessions_are_counted_as_by_envoy(runner: Runner) -> None:
    envoy, subject = runner.pair("sessions")
    runner.upstreams.begin({}, {})
    paths = ("/several/", "/single/", "/strict/", "/single/disabled", "/none/", "/here/", "/unreachable/")
    for proxy in (envoy, subject):
        for path in paths:
            for port in (runner.upstream_ports["a"], runner.upstream_ports["d"], None):
                connection = http.client.HTTPConnection("127.0.0.1", proxy.ports["http"], timeout=5)
                session = "" if port is None else b64encode(b"127.0.0.1:%d" % port).decode()
                connection.request("GET", path, headers={"x-session": session} if session else {})
                connection.getresponse().read()
                connection.close()
    counts = [
        {line for line in proxy.admin("/stats?filter=stateful_session")[2].splitlines() if line}
        for proxy in (envoy, subject)
    ]
    assert counts[0] == counts[1] and len(counts[0]) == 4
