"""Dynamic forward proxies beside Envoy: the host that a request names is looked up, kept, refused, or nowhere to be found."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.differential import proxies
from tests.differential.blocks import Message, Site, bootstrap, http_filter, listener, manager, per_filter, route, typed
from tests.differential.named_hosts import HOSTS, Hosts
from tests.differential.proxies import ENVOY, FreePorts, Proxy, ProxyFailedError, subject_kind
from tests.sidecar.cluster.dns_server import SERVFAIL

CLUSTER = "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
PATIENCE = 15.0
NAMES = ("good.test", "b.test", "c.test")


def cache(hosts: Hosts, name: str, **fields: Any) -> Message:
    return {
        "name": name,
        "dns_lookup_family": "V4_ONLY",
        "dns_min_refresh_rate": "600s",
        "typed_dns_resolver_config": hosts.resolver(),
        **fields,
    }


def forward_proxy(config: Message, **fields: Any) -> Message:
    """A dynamic forward proxy with the name of its cache."""
    return {
        "name": config["name"],
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": typed("envoy.clusters.dynamic_forward_proxy", CLUSTER, dns_cache_config=config),
        **fields,
    }


def caches(hosts: Hosts) -> dict[str, Message]:
    early = {"good.test": hosts.port, f"good.test:{hosts.port}": 1, "[::1]": hosts.port, "127.0.0.2": hosts.port}
    twice = [{"address": host, "port_value": port} for host, port in early.items() for _ in range(2)]
    return {
        "plain": cache(hosts, "plain"),
        "one": cache(hosts, "one", max_hosts=1),
        "none": cache(hosts, "none", dns_cache_circuit_breaker={"max_pending_requests": 0}),
        "waits": cache(hosts, "waits", dns_cache_circuit_breaker={"max_pending_requests": 1}, dns_query_timeout="1s"),
        "leaves": cache(hosts, "leaves", host_ttl="0.001s", dns_min_refresh_rate="1s"),
        "moves": cache(hosts, "moves", dns_min_refresh_rate="1s"),
        "ill": cache(hosts, "ill"),
        "auto": cache(hosts, "auto", dns_lookup_family="AUTO"),
        "early": cache(hosts, "early", preresolve_hostnames=twice),
    }


def document(site: Site, hosts: Hosts) -> Message:
    known = caches(hosts)

    def named(name: str, **rewrite: str) -> Message:
        return {
            **route(name, "plain"),
            "typed_per_filter_config": per_filter("dynamic_forward_proxy", "PerRouteConfig", **rewrite),
        }

    rewriting = [
        named("/literal", host_rewrite_literal=f"good.test:{hosts.port}"),
        named("/header", host_rewrite_header="x-host"),
    ]
    clusters = [
        forward_proxy(
            config,
            **({"outlier_detection": {"consecutive_5xx": 1, "max_ejection_percent": 100}} if name == "ill" else {}),
        )
        for name, config in known.items()
    ]
    listeners = [
        listener(
            site,
            name,
            manager(
                site,
                [*(rewriting if name == "plain" else ()), route("/static", "a"), route("/", name)],
                filters=[http_filter("dynamic_forward_proxy", "FilterConfig", dns_cache_config=config)],
            ),
        )
        for name, config in known.items()
    ]
    return bootstrap(site, listeners, clusters)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    for name in NAMES:
        hosts.name(name, HOSTS[0])
    hosts.name("two.test", *HOSTS[1:])
    hosts.name("empty.test")
    hosts.dns.failing["fails.test"] = SERVFAIL
    yield hosts
    hosts.close()


@pytest.fixture(scope="module")
def pair(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Proxy]]:
    started: list[Proxy] = []
    free = FreePorts()
    refused = {name: free.take() for name in ("b", "c", "refused")}
    try:
        for kind in (ENVOY, subject_kind()):
            ports: dict[str, int] = {}
            directory = Path(tmp_path_factory.mktemp(kind))
            site = Site(
                {"a": hosts.port, **refused}, lambda name, ports=ports: ports.setdefault(name, free.take()), directory
            )
            started.append(proxies.start(kind, document(site, hosts), ports, directory))
        yield started
    except ProxyFailedError as error:
        pytest.fail(str(error))
    finally:
        for proxy in started:
            proxy.stop()


def ask(proxy: Proxy, listener: str, host: str, path: str = "/", headers: Mapping[str, str] = {}) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[listener], timeout=10)
    try:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in {"Host": host, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def stats(proxy: Proxy, prefix: str) -> dict[str, int]:
    lines = proxy.admin(f"/stats?filter=^{prefix}")[2].splitlines()
    return {name: int(value) for name, _, value in (line.partition(": ") for line in lines) if value.isdigit()}


def logged(proxy: Proxy, mark: str) -> dict[str, Any]:
    """The line of the request with this path."""
    until = time.monotonic() + PATIENCE
    while True:
        for line in proxy.access_log.read_text().splitlines() if proxy.access_log.exists() else ():
            found: dict[str, Any] = json.loads(line)
            if str(found["path"]).endswith(mark):
                return found
        assert time.monotonic() < until, mark
        time.sleep(0.02)


def wait_for(proxy: Proxy, name: str, value: int) -> None:
    until = time.monotonic() + PATIENCE
    while (found := stats(proxy, f"{name}$").get(name)) != value:
        assert time.monotonic() < until, (name, found)
        time.sleep(0.02)


_CASES: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "a name": ("plain", "good.test:{port}", "/", {}),
    "a name again": ("plain", "good.test:{port}", "/", {}),
    "a name in capitals": ("plain", "GOOD.test:{port}", "/", {}),
    "the first of two addresses": ("plain", "two.test:{port}", "/", {}),
    "an address": ("plain", "127.0.0.2:{port}", "/", {}),
    "an address in brackets": ("plain", "[127.0.0.2]:{port}", "/", {}),
    "an address of the wrong family": ("plain", "[::1]:{port}", "/", {}),
    "an address of IPv6 where nobody listens": ("auto", "[::1]:{port}", "/", {}),
    "a name by either family": ("auto", "good.test:{port}", "/", {}),
    "a name without a port": ("plain", "good.test", "/", {}),
    "a name that does not exist": ("plain", "nosuch.test:{port}", "/", {}),
    "a name without an address": ("plain", "empty.test:{port}", "/", {}),
    "a name that cannot be asked for": ("plain", "fails.test:{port}", "/", {}),
    "a name that could not be asked for before": ("plain", "fails.test:{port}", "/", {}),
    "a port that is too large": ("plain", "good.test:99999", "/", {}),
    "a port that is no number": ("plain", "good.test:abc", "/", {}),
    "no port behind the colon": ("plain", "good.test:", "/", {}),
    "port 0": ("plain", "nosuch.test:0", "/", {}),
    "a name with an empty label": ("plain", "a..b", "/", {}),
    "a name that is too long": ("plain", "a" * 300 + ".test", "/", {}),
    "the route's own name": ("plain", "nosuch.test", "/literal", {}),
    "the name in a header": ("plain", "nosuch.test", "/header", {"x-host": "b.test:{port}"}),
    "no such header": ("plain", "good.test:{port}", "/header", {}),
    "an empty header": ("plain", "good.test:{port}", "/header", {"x-host": ""}),
    "a cluster of another type": ("plain", "nosuch.test", "/static", {}),
    "the only one there is room for": ("one", "good.test:{port}", "/", {}),
    "one too many": ("one", "b.test:{port}", "/", {}),
    "the one there was room for": ("one", "good.test:{port}", "/", {}),
    "nobody may wait": ("none", "good.test:{port}", "/", {}),
    "nobody may wait for an address either": ("none", "127.0.0.1:{port}", "/", {}),
    "a name that was looked up before": ("early", "good.test:{port}", "/", {}),
    "an address that was looked up before": ("early", "127.0.0.2:{port}", "/", {}),
    "an address of the wrong family that was looked up before": ("early", "[::1]:{port}", "/", {}),
}


def test_requests_get_the_answers_of_envoy(hosts: Hosts, pair: list[Proxy]) -> None:
    """In one test: later ones find what earlier ones have left. At its end the statistics are the same."""

    def words(value: object) -> str | None:
        return (
            re.sub(r"127\.0\.0\.1:\d+$", "127.0.0.1", str(value)).replace(str(hosts.port), "{port}") if value else None
        )

    answers = []
    for number, (place, host, path, headers) in enumerate(_CASES.values()):
        sent = {name: value.format(port=hosts.port) for name, value in headers.items()}
        mark = f"{path.rstrip('/')}/{number}"
        answers.append([ask(proxy, place, host.format(port=hosts.port), mark, sent) for proxy in pair])
    for number, (case, (_, _, path, _)) in enumerate(_CASES.items()):
        mark = f"{path.rstrip('/')}/{number}"
        theirs, ours = ({name: words(value) for name, value in logged(proxy, mark).items()} for proxy in pair)
        assert (answers[number][1], ours) == (answers[number][0], theirs), case
        assert answers[number][1][0] in (200, 400, 503), case
    for name in ("plain", "one", "none", "auto", "early"):
        ours, theirs = (stats(proxy, rf"dns_cache\.{name}\.") for proxy in reversed(pair))
        assert ours == theirs, name
        counted = ("membership_total", "membership_change", "upstream_rq_total", "upstream_cx_total", "upstream_rq_503")
        ours, theirs = ({leaf: stats(proxy, f"cluster.{name}.{leaf}$") for leaf in counted} for proxy in reversed(pair))
        assert ours == theirs, name
    assert stats(pair[1], "dns_cache.plain")["dns_cache.plain.num_hosts"] > 10


def test_a_name_that_nobody_answers_for_is_given_up_and_no_others_may_wait(hosts: Hosts, pair: list[Proxy]) -> None:
    seen = []
    for proxy in pair:
        assert ask(proxy, "waits", f"good.test:{hosts.port}")[0] == 200
        hosts.dns.silent = True
        try:
            with ThreadPoolExecutor(2) as pool:
                first = pool.submit(ask, proxy, "waits", "silent.test")
                wait_for(proxy, "dns_cache.waits.circuit_breakers.rq_pending_remaining", 0)
                second = ask(proxy, "waits", "other.test")
                open_now = stats(proxy, "dns_cache.waits.circuit_breakers")
                seen.append((first.result(), second, open_now, ask(proxy, "waits", "silent.test", "/again")))
        finally:
            hosts.dns.silent = False
    assert seen[0] == seen[1]
    assert seen[1][0] == (503, "DNS resolution failure")
    assert seen[1][1] == (503, "Dynamic forward proxy pending request overflow")
    lines = [logged(proxy, "/again") for proxy in pair]
    assert [line["details"] for line in lines] == ["dns_resolution_failure{resolve_timeout}"] * 2
    assert stats(pair[0], "dns_cache.waits") == stats(pair[1], "dns_cache.waits")


def test_a_client_that_leaves_waits_no_more(hosts: Hosts, pair: list[Proxy]) -> None:
    hosts.dns.silent = True
    try:
        for proxy in pair:
            connection = http.client.HTTPConnection("127.0.0.1", proxy.ports["waits"], timeout=10)
            connection.request("GET", "/", headers={"Host": "leaving.test"})
            wait_for(proxy, "dns_cache.waits.circuit_breakers.rq_pending_remaining", 0)
            connection.close()
            wait_for(proxy, "dns_cache.waits.circuit_breakers.rq_pending_remaining", 1)
    finally:
        hosts.dns.silent = False


def test_a_host_that_nobody_asks_for_leaves(hosts: Hosts, pair: list[Proxy]) -> None:
    for proxy in pair:
        assert ask(proxy, "leaves", f"good.test:{hosts.port}") == (200, HOSTS[0])
    for proxy in pair:
        wait_for(proxy, "dns_cache.leaves.num_hosts", 0)
        wait_for(proxy, "cluster.leaves.membership_total", 0)
        assert stats(proxy, "dns_cache.leaves")["dns_cache.leaves.host_removed"] == 1
        assert ask(proxy, "leaves", f"good.test:{hosts.port}") == (200, HOSTS[0])


def test_new_connections_follow_a_name_that_moves(hosts: Hosts, pair: list[Proxy]) -> None:
    hosts.name("moving.test", HOSTS[0])
    for proxy in pair:
        assert ask(proxy, "moves", f"moving.test:{hosts.port}") == (200, HOSTS[0])
    hosts.name("moving.test", HOSTS[2])
    for proxy in pair:
        wait_for(proxy, "dns_cache.moves.host_address_changed", 2)
        assert stats(proxy, "cluster.moves.membership_total$") == {"cluster.moves.membership_total": 1}
    hosts.dns.failing["moving.test"] = SERVFAIL  # what is known stays good
    for proxy in pair:
        until = time.monotonic() + PATIENCE
        while not stats(proxy, "dns_cache.moves")["dns_cache.moves.dns_query_failure"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert ask(proxy, "moves", f"moving.test:{hosts.port}")[0] == 200


def test_a_host_that_was_ejected_is_not_picked(hosts: Hosts, pair: list[Proxy]) -> None:
    seen = []
    for proxy in pair:
        first = ask(proxy, "ill", "good.test:1")
        wait_for(proxy, "cluster.ill.outlier_detection.ejections_active", 1)
        seen.append((first, ask(proxy, "ill", "good.test:1"), ask(proxy, "ill", f"good.test:{hosts.port}")))
    assert seen[0] == seen[1]
    assert seen[1][1] == (503, "no healthy upstream")
