"""Hosts that come and go while both proxies serve: slow start, and what becomes of connections."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential import proxies
from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route
from tests.differential.named_hosts import HOSTS, Hosts
from tests.differential.proxies import ENVOY, FreePorts, Proxy, ProxyFailedError, subject_kind

WINDOW = 3.0
LEAST = 25.0
STEEP = 0.1
"""An aggression that keeps a new host at the least weight until the window is nearly over."""
PATIENCE = 15.0


def document(site: Site, hosts: Hosts) -> Message:
    def named(name: str, **fields: object) -> Message:
        endpoint = {"endpoint": {"address": {"socket_address": {"address": f"{name}.test", "port_value": hosts.port}}}}
        return {
            "name": name,
            "type": "STRICT_DNS",
            "dns_lookup_family": "V4_ONLY",
            "dns_refresh_rate": "1s",
            "typed_dns_resolver_config": hosts.resolver(),
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
            **fields,
        }

    start = {
        "slow_start_window": f"{WINDOW}s",
        "aggression": {"default_value": STEEP, "runtime_key": "none"},
        "min_weight_percent": {"value": LEAST},
    }
    clusters = [
        named("slow", round_robin_lb_config={"slow_start_config": start}),
        named("slow-least", lb_policy="LEAST_REQUEST", least_request_lb_config={"slow_start_config": start}),
        named("at-once"),
        named("closes", common_lb_config={"close_connections_on_host_set_change": True}),
        named("keeps"),
    ]
    routes = [route(f"/{one['name']}/", one["name"]) for one in clusters]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    for name in ("slow", "slow-least", "at-once", "closes", "keeps"):
        hosts.name(f"{name}.test", HOSTS[0])
    yield hosts
    hosts.close()


@pytest.fixture(scope="module")
def pair(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Proxy]]:
    """Envoy and the subject, started long enough ago for the first hosts to be no longer new."""
    started: list[Proxy] = []
    free = FreePorts()
    try:
        for kind in (ENVOY, subject_kind()):
            ports: dict[str, int] = {}
            directory = Path(tmp_path_factory.mktemp(kind))
            refused = {name: free.take() for name in ("a", "b", "c", "refused")}
            site = Site(refused, lambda name, ports=ports: ports.setdefault(name, free.take()), directory)
            made = document(site, hosts)
            started.append(proxies.start(kind, made, ports, directory))
        time.sleep(WINDOW + 0.5)  # so that the first hosts are no longer new: only time does that
        yield started
    except ProxyFailedError as error:
        pytest.fail(str(error))
    finally:
        for proxy in started:
            proxy.stop()


def ask(proxy: Proxy, cluster: str, times: int) -> Counter[str]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports["http"], timeout=5)
    answers: Counter[str] = Counter()
    try:
        for _ in range(times):
            connection.request("GET", f"/{cluster}/")
            answers[connection.getresponse().read().decode()] += 1
    finally:
        connection.close()
    return answers


def stat(proxy: Proxy, name: str) -> int:
    return int(proxy.admin(f"/stats?filter=^{name}$")[2].partition(": ")[2] or 0)


def wait_for(proxy: Proxy, name: str, value: int) -> None:
    until = time.monotonic() + PATIENCE
    while (found := stat(proxy, name)) != value:
        assert time.monotonic() < until, (name, found)
        time.sleep(0.01)


@pytest.mark.parametrize("cluster", ["slow", "slow-least", "at-once"])
def test_a_new_host_gets_the_same_share_as_in_envoy(cluster: str, hosts: Hosts, pair: list[Proxy]) -> None:
    hosts.name(f"{cluster}.test", *HOSTS[:2])
    for proxy in pair:
        wait_for(proxy, f"cluster.{cluster}.membership_total", 2)
    first = 0.5 if cluster == "at-once" else LEAST / (100 + LEAST)
    shares = [ask(proxy, cluster, 100)[HOSTS[1]] / 100 for proxy in pair]
    assert shares == pytest.approx([first, first], abs=0.05)
    until = time.monotonic() + PATIENCE
    for proxy in pair:
        while not 0.45 <= ask(proxy, cluster, 100)[HOSTS[1]] / 100 <= 0.55:
            assert time.monotonic() < until


@pytest.mark.parametrize(("cluster", "destroyed"), [("closes", 1), ("keeps", 0)])
def test_connections_go_when_the_hosts_change_where_envoy_ends_them(
    cluster: str, destroyed: int, hosts: Hosts, pair: list[Proxy]
) -> None:
    for proxy in pair:
        assert ask(proxy, cluster, 2) == {HOSTS[0]: 2}
        assert stat(proxy, f"cluster.{cluster}.upstream_cx_active") == 1
    hosts.name(f"{cluster}.test", *HOSTS[:2])
    for proxy in pair:
        wait_for(proxy, f"cluster.{cluster}.membership_total", 2)
        assert stat(proxy, f"cluster.{cluster}.upstream_cx_active") == 1 - destroyed
        assert stat(proxy, f"cluster.{cluster}.upstream_cx_destroy_local") == destroyed
    hosts.name(f"{cluster}.test", HOSTS[1])
    for proxy in pair:
        wait_for(proxy, f"cluster.{cluster}.membership_total", 1)
        wait_for(proxy, f"cluster.{cluster}.upstream_cx_active", 0)
        assert ask(proxy, cluster, 2) == {HOSTS[1]: 2}
