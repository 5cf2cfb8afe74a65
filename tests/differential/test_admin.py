"""After the same traffic: the admin endpoints say what Envoy's say, and the default access log has the same lines."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.differential.cases.admin import CASES as TRAFFIC
from tests.differential.known_differences import stale, unaccounted
from tests.differential.outcome import Difference, Fields, Names, differences
from tests.differential.proxies import ENVOY, Proxy, ProxyFailedError
from tests.differential.runner import Runner

SETTLE_SECONDS = 1.5
SCOPES = ("http.", "cluster.", "listener.", "tcp.")
OWN_SCOPE = "admin"

Answer = tuple[int, str, str]
"""Status, content type and body of an admin request."""


@dataclass(frozen=True, slots=True)
class View:
    """An admin request and how its answer becomes comparable fields."""

    name: str
    path: str
    fields: Callable[[Answer, Names], Fields]
    method: str = "GET"


def known_ports(names: Names, text: str) -> str:
    """Also the ports that stand in the names of statistics: ``listener.127.0.0.1_8080.``"""
    return re.sub(r"(?<=_)\d{4,5}\b", lambda match: names.ports.get(int(match[0]), match[0]), names.text(text))


def with_head(answer: Answer, fields: Fields) -> Fields:
    status, content_type, _ = answer
    return {"status": status, "content-type": content_type, **fields}


def whole(answer: Answer, names: Names) -> Fields:
    """The body as it is."""
    return with_head(answer, {"body": names.text(answer[2])})


def head_only(answer: Answer, _: Names) -> Fields:
    return with_head(answer, {})


def counted(name: str, value: str) -> str:
    """The value; of bytes only whether there were any, since durations in headers make them vary."""
    return value if "_bytes" not in name or value == "0" else "some"


def statistics(answer: Answer, names: Names) -> Fields:
    """Each counter and gauge of the compared scopes with its value; of histograms only that they are there."""
    fields: Fields = {}
    for line in answer[2].splitlines():
        name, _, value = known_ports(names, line).partition(": ")
        if name.startswith(SCOPES) and not name.startswith((f"http.{OWN_SCOPE}", f"listener.{OWN_SCOPE}")):
            fields[name] = counted(name, value) if value.isdigit() else "histogram"
    return with_head(answer, fields)


def used_statistics(answer: Answer, names: Names) -> Fields:
    """The names in ``?usedonly``: those that were ever written."""
    return {name: "used" for name in statistics(answer, names) if name not in ("status", "content-type")}


def json_statistics(answer: Answer, names: Names) -> Fields:
    fields: Fields = {}
    for stat in json.loads(answer[2])["stats"]:
        if "name" in stat and known_ports(names, stat["name"]).startswith(SCOPES):
            fields[known_ports(names, stat["name"])] = sorted(stat)
        elif "histograms" in stat:
            fields.update({f"histograms.{key}": "there" for key in stat["histograms"]})
            fields.update(
                {f"histograms.computed.{key}": "there" for key in stat["histograms"]["computed_quantiles"][0]}
            )
    return with_head(answer, {name: value for name, value in fields.items() if OWN_SCOPE not in name})


def prometheus(answer: Answer, names: Names) -> Fields:
    """Each series of the compared scopes, and the type of its family; values of counters and gauges."""
    fields: Fields = {}
    scopes = tuple(f"envoy_{scope[:-1]}_" for scope in SCOPES)
    for line in answer[2].splitlines():
        line = known_ports(names, line)
        if line.startswith("# TYPE"):
            family, kind = line.split()[2:4]
            if family.startswith(scopes):
                fields[f"type {family}"] = kind
        elif line.startswith(scopes) and f'"{OWN_SCOPE}"' not in line:
            series, _, value = line.rpartition(" ")
            histogram = re.search(r"_(bucket|sum|count)(\{|$)", series)
            if not histogram:
                fields[series] = counted(series, value)
            elif "_bucket" not in series or '"+Inf"' in series:
                fields[series] = "histogram"
    return with_head(answer, fields)


def lines(answer: Answer, names: Names) -> Fields:
    """``/clusters`` in text: each line is a name and a value."""
    fields: Fields = {}
    for line in names.text(answer[2]).splitlines():
        name, _, value = line.rpartition("::")
        fields[name] = value
    return with_head(answer, fields)


def paths_of(value: Any, path: str = "") -> Iterator[str]:
    """Every key path of a JSON value; lists are merged."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}"
            yield from paths_of(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths_of(inner, f"{path}[]")


def keys(answer: Answer, _: Names) -> Fields:
    """The shape of a JSON answer."""
    return with_head(answer, dict.fromkeys(paths_of(json.loads(answer[2])), "there"))


def top_keys(answer: Answer, _: Names) -> Fields:
    return with_head(answer, dict.fromkeys(json.loads(answer[2]), "there"))


def dump(answer: Answer, names: Names) -> Fields:
    """``/config_dump``: the kinds of dump in order, the keys of each, and the resources' own JSON."""
    fields: Fields = {}
    for index, config in enumerate(json.loads(answer[2])["configs"]):
        fields[f"configs[{index}].@type"] = config["@type"]
        kind = config["@type"].rpartition(".")[2]
        if kind == "BootstrapConfigDump":
            fields[f"{kind}.keys"] = sorted(config)
            continue
        for path, value in leaves(config):
            fields[f"{kind}{path}"] = names.value(value)
    return with_head(answer, fields)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of a JSON value with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    elif not path.endswith("last_updated") and path.rpartition(".")[2] != "path":
        yield path, value


VIEWS = [
    View("ready", "/ready", whole),
    View("stats", "/stats", statistics),
    View("stats-used", "/stats?usedonly", used_statistics),
    View("stats-filtered", "/stats?filter=cluster\\.a\\.upstream_rq_(total|2xx)", whole),
    View("stats-filtered-json", "/stats?format=json&filter=cluster\\.a\\.upstream_rq_total", whole),
    View("stats-counters-only", "/stats?type=Gauges&filter=cluster\\.a\\.membership", whole),
    View("stats-json", "/stats?format=json", json_statistics),
    View("stats-prometheus", "/stats/prometheus", prometheus),
    View("stats-prometheus-by-format", "/stats?format=prometheus&filter=cluster\\.a\\.upstream_rq_total", whole),
    View("stats-bad-format", "/stats?format=xml", head_only),
    View("clusters", "/clusters", lines),
    View("clusters-json", "/clusters?format=json", keys),
    View("server-info", "/server_info", top_keys),
    View("listeners", "/listeners", whole),
    View("listeners-json", "/listeners?format=json", keys),
    View("config-dump", "/config_dump", dump),
    View("config-dump-resource", "/config_dump?resource=static_clusters", keys),
    View("config-dump-mask", "/config_dump?mask=bootstrap.node.id", keys),
    View("certs", "/certs", keys),
    View("memory", "/memory", keys),
    View("logging-get", "/logging", head_only),
    View("logging-post", "/logging?level=warning", head_only, "POST"),
    View("unknown", "/nothing-here", head_only),
    View("healthcheck-fail-get", "/healthcheck/fail", whole),
    View("quit-get", "/quitquitquit", whole),
    View("drain-get", "/drain_listeners", whole),
    View("reset-get", "/reset_counters", whole),
    View("healthcheck-fail", "/healthcheck/fail", whole, "POST"),
    View("ready-when-failing", "/ready", whole),
    View("healthcheck-ok", "/healthcheck/ok", whole, "POST"),
    View("ready-again", "/ready", whole),
    View("reset", "/reset_counters", whole, "POST"),
    View("drain", "/drain_listeners", whole, "POST"),
]


def judge(name: str, found: list[Difference], subject: str) -> None:
    """Fail on a difference that is not listed and on a listed one that is not there."""
    silent = found if subject == ENVOY else unaccounted(name, found)
    assert not silent, "\n   ".join([name, *map(str, silent)])
    gone = stale(name, found, log=False) if subject != ENVOY else []
    assert not gone, f"{name} no longer differs from Envoy: {', '.join(gone)}"


@pytest.fixture(scope="module")
def pair(runner: Runner) -> Iterator[tuple[Proxy, Proxy]]:
    """Both proxies after the traffic."""
    runner.stop_pair()
    try:
        envoy, subject = runner.pair("admin")
    except ProxyFailedError as error:
        pytest.fail(str(error), pytrace=False)
    for case in TRAFFIC:
        for proxy in (envoy, subject):
            runner.run(case, proxy)
    yield envoy, subject
    runner.stop_pair()


def ask(runner: Runner, proxy: Proxy, view: View) -> Fields:
    status, headers, body = proxy.admin(view.path, view.method)
    return view.fields((status, headers.get("content-type", ""), body), runner.names(proxy))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_endpoint(runner: Runner, pair: tuple[Proxy, Proxy], view: View) -> None:
    """The answers agree, once both proxies have noticed that the last connections are closed."""
    name = f"admin/{view.name}"
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        found = differences(*(ask(runner, proxy, view) for proxy in pair))
        settled = not (found if runner.subject == ENVOY else unaccounted(name, found))
        if settled or view.method != "GET" or time.monotonic() > until:
            break
        time.sleep(0.05)
    judge(name, found, runner.subject)


def test_default_access_log(runner: Runner, pair: tuple[Proxy, Proxy]) -> None:
    """The format that is used when none is configured."""
    runner.stop_pair()
    sides: list[Fields] = []
    for proxy in pair:
        written = (proxy.directory / "default.log").read_text(errors="replace").splitlines()
        sides.append(
            {f"line[{index}]": _timeless(runner.names(proxy).text(line)) for index, line in enumerate(written)}
        )
    judge("admin/default-access-log", differences(*sides), runner.subject)


def _timeless(line: str) -> str:
    """The default line without its durations: the two numbers between the byte counts and the quoted header."""
    return re.sub(r'(\d+ \d+) (\d+|-) (\d+|-) "', r'\1 <ms> <ms> "', line)
