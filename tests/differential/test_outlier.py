"""The same failures make the same outliers: ejections, statistics, success rates and events are those of Envoy."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.differential.case import OK, reply
from tests.differential.cases.outlier import DETECTIONS, EVENTS
from tests.differential.proxies import ENVOY, Proxy
from tests.differential.runner import Runner

ROUNDS = 6
INTERVAL = 4.0
SECONDS = 20.0
CLUSTERS = {name: hosts for name, (hosts, _) in DETECTIONS.items() if name != "tick"}
TIMESTAMP = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")


@dataclass
class Seen:
    """What was seen of one proxy, by cluster."""

    statuses: dict[str, list[int]] = field(default_factory=dict)
    statistics: dict[str, list[str]] = field(default_factory=dict)
    rates: dict[str, list[str]] = field(default_factory=dict)
    events: dict[str, list[dict[str, object]]] = field(default_factory=dict)


def observe(runner: Runner, kind: str) -> Seen:
    """All traffic in one interval, and what came of it in the next one."""
    proxy = runner.start(kind, "outlier")
    try:
        runner.upstreams.begin({"a": (reply(503),), "*": (OK,)}, {})
        seen = Seen()
        until = time.monotonic() + SECONDS
        list(ask(proxy, "/tick/", 1))
        for flags in ("/failed_outlier_check", "healthy"):
            while f"tick::a::health_flags::{flags}" not in names_of(runner, proxy, "/clusters?filter=tick"):
                assert time.monotonic() < until
                time.sleep(0.01)
        begun = time.monotonic()
        for cluster, hosts in CLUSTERS.items():
            seen.statuses[cluster] = sorted(ask(proxy, f"/{cluster}/", ROUNDS * len(hosts)))
        assert time.monotonic() - begun < INTERVAL, "the machine is too slow for this test"
        before: dict[str, list[str]] = {}
        while seen.rates != before or not swept(seen.rates):
            assert time.monotonic() < until, seen.rates
            time.sleep(0.05)
            seen.rates, before = by_cluster(names_of(runner, proxy, "/clusters")), seen.rates
        unejected(runner, proxy, {"tick", "row", "row-gateway", "row-local", "checked"}, until)
        statistics = names_of(runner, proxy, "/stats?filter=outlier_detection")
        for cluster in CLUSTERS:
            seen.statistics[cluster] = [line for line in statistics.splitlines() if f"cluster.{cluster}." in line]
            seen.events[cluster] = [one for one in events(runner, proxy) if one["cluster_name"] == cluster]
        return seen
    finally:
        proxy.stop()


def unejected(runner: Runner, proxy: Proxy, clusters: set[str], until: float) -> None:
    """Wait until a host of each of these is back."""
    while {event["cluster_name"] for event in events(runner, proxy) if event["action"] == "UNEJECT"} != clusters:
        assert time.monotonic() < until, events(runner, proxy)
        time.sleep(0.02)


def ask(proxy: Proxy, path: str, times: int) -> Iterator[int]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports["http"], timeout=5)
    try:
        for _ in range(times):
            connection.request("POST", path, b"x")
            response = connection.getresponse()
            response.read()
            yield response.status
    finally:
        connection.close()


def names_of(runner: Runner, proxy: Proxy, page: str) -> str:
    """A page of the administration interface with the names of upstreams for their ports."""
    text = proxy.admin(page)[2]
    for name, port in runner.upstream_ports.items():
        text = text.replace(f"127.0.0.1:{port}", name)
    return text


def swept(rates: dict[str, list[str]]) -> bool:
    """Whether the interval is over for the first cluster and the last one."""
    return (
        bool(rates)
        and "rate::outlier::success_rate_average::-1" not in rates["rate"]
        and "row-local::refused::health_flags::healthy" in rates["row-local"]
    )


def by_cluster(clusters: str) -> dict[str, list[str]]:
    """What a page tells of rates and ejections; Envoy has the clusters in an order of its own each time."""
    found: dict[str, list[str]] = {name: [] for name in CLUSTERS}
    for line in clusters.splitlines():
        name = line.partition("::")[0]
        if name in found and re.search("outlier|success_rate|health_flags", line):
            found[name].append(line)
    return found


def events(runner: Runner, proxy: Proxy) -> list[dict[str, object]]:
    """What was logged so far; each line has its fields in Envoy's order, and times in their form."""
    found = []
    path = proxy.directory / EVENTS
    for line in path.read_text().splitlines() if path.exists() else ():
        event = json.loads(line)
        assert TIMESTAMP.fullmatch(event.pop("timestamp")), line
        assert str(event.pop("secs_since_last_action", "0")).isdigit(), line
        event["fields"] = re.findall(r'"(\w+)":', line)
        for name, port in runner.upstream_ports.items():
            event["upstream_url"] = str(event["upstream_url"]).replace(f"127.0.0.1:{port}", name)
        found.append(event)
    return found


@pytest.fixture(scope="module")
def both(runner: Runner) -> tuple[Seen, Seen]:
    runner.stop_pair()
    return observe(runner, ENVOY), observe(runner, runner.subject)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_outliers(both: tuple[Seen, Seen], cluster: str) -> None:
    """The same answers, hosts, rates, counts and events."""
    envoy, subject = both
    if not cluster.startswith(("row", "checked")):  # Envoy's ejections take effect a little after what causes them
        assert subject.statuses[cluster] == envoy.statuses[cluster]
    assert subject.rates[cluster] == envoy.rates[cluster]
    assert subject.statistics[cluster] == envoy.statistics[cluster]
    assert subject.events[cluster] == envoy.events[cluster]


def test_the_scenarios_are_what_they_are_called(both: tuple[Seen, Seen]) -> None:
    envoy, _ = both
    ejected = {name: [event["type"] for event in found if event["action"] == "EJECT" and event["enforced"]]
               for name, found in envoy.events.items()}  # fmt: skip
    assert {name: types for name, types in ejected.items() if types} == {
        "rate": ["SUCCESS_RATE"],
        "rate-one-always": ["SUCCESS_RATE"],
        "rate-local": ["SUCCESS_RATE_LOCAL_ORIGIN"],
        "rate-unsplit": ["SUCCESS_RATE"],
        "percentage": ["FAILURE_PERCENTAGE"],
        "percentage-local": ["FAILURE_PERCENTAGE_LOCAL_ORIGIN"],
        "checked": ["CONSECUTIVE_5XX"],
        "checked-in-vain": ["CONSECUTIVE_5XX"],
        "row": ["CONSECUTIVE_5XX"],
        "row-gateway": ["CONSECUTIVE_GATEWAY_FAILURE"],
        "row-local": ["CONSECUTIVE_LOCAL_ORIGIN_FAILURE"],
    }
