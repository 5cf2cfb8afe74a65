"""What is repeated though nobody has configured retries: requests that no host can have seen, at another host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.sidecar.http.running import GET, HELLO, Sidecar, bootstrap, http_filter, running

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
OFF = {"layered_runtime": {"layers": [{"name": "off", "static_layer": {"mizzen.router.repeat_unprocessed": False}}]}}


def several(count: int, **cluster: Any) -> dict[str, Any]:
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 7000 + number}}}}
        for number in range(count)
    ]
    return {"up": {"load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": hosts}]}, **cluster}}


def refusing(sidecar: Sidecar, ports: Iterable[int]) -> None:
    sidecar.dialer.refused = frozenset(ports)


def asked(sidecar: Sidecar) -> list[int]:
    return [address.port for address in sidecar.dialer.dialled]


POLICIES = ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_that_a_host_refuses_goes_to_another_one(policy: str) -> None:
    with running(clusters=several(2, lb_policy=policy)) as sidecar:
        refusing(sidecar, {7000})
        sidecar.advance(0.1)  # tables are built bit by bit
        for number in range(8):
            client = sidecar.client().send(GET)
            sidecar.advance(0.1)
            for host, _ in sidecar.asked():
                host.send(HELLO)
            assert client.receive().endswith(b"hello"), number
            client.close()
        refused = asked(sidecar).count(7000)
        assert sidecar.stat("cluster.up.upstream_rq_retry") == refused > 0
        assert sidecar.stat("cluster.up.upstream_rq_retry_success") == refused
        assert sidecar.stat("cluster.up.upstream_cx_connect_fail") == refused
        assert sidecar.stat("cluster.up.upstream_rq_total") == 8
        assert {line.split()[4] for line in sidecar.log} == {"-"}
        assert sum(int(line.split()[-1]) for line in sidecar.log) == 8 + refused  # the attempts


def test_a_body_goes_there_whole() -> None:
    with running(clusters=several(2)) as sidecar:
        refusing(sidecar, {7000, 7001})
        sidecar.dialer.waits = True
        client = sidecar.client().send(POST + b"12345", b"678")
        refusing(sidecar, set(asked(sidecar)))
        sidecar.dialer.go_on()
        sidecar.advance(0.1)
        client.send(b"90")
        ((host, data),) = sidecar.asked()
        assert data.endswith(b"\r\n\r\n1234567890")
        host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_no_host_is_asked_twice_and_at_most_three_are() -> None:
    for hosts, expected in ((1, 1), (2, 2), (3, 3), (5, 3)):
        with running(clusters=several(hosts)) as sidecar:
            refusing(sidecar, range(7000, 7010))
            client = sidecar.client().send(GET)
            sidecar.advance(0.1)
            answer = client.receive()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert len(asked(sidecar)) == len(set(asked(sidecar))) == expected
            retried = b"retried and the latest " if hosts > 1 else b""
            assert b"before headers. " + retried + b"reset reason: remote connection failure" in answer
            assert sidecar.log[0].split()[3:5] == ["503", "UF"]
            assert sidecar.stat("cluster.up.upstream_rq_retry") == expected - 1
            assert sidecar.stat("cluster.up.upstream_rq_retry_limit_exceeded") == 0


@pytest.mark.parametrize("policy", [{}, {"retry_on": "retriable-4xx"}, {"retry_on": "reset", "num_retries": 0}])
def test_where_a_retry_policy_says_something_that_holds(policy: dict[str, Any]) -> None:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": policy}}]
    with running(clusters=several(3), routes=routes) as sidecar:
        refusing(sidecar, range(7000, 7010))
        client = sidecar.client().send(GET)
        sidecar.advance(1.0)
        assert client.receive().startswith(b"HTTP/1.1 503 ")
        assert len(asked(sidecar)) == 1


def test_it_can_be_switched_off() -> None:
    config = {**bootstrap(clusters=several(3)), **OFF}
    with running(config) as sidecar:
        refusing(sidecar, range(7000, 7010))
        client = sidecar.client().send(GET)
        sidecar.advance(0.1)
        assert client.receive().startswith(b"HTTP/1.1 503 ")
        assert len(asked(sidecar)) == 1


def test_a_host_that_has_the_request_is_not_left_for_another() -> None:
    with running(clusters=several(3)) as sidecar:
        client = sidecar.client().send(GET)
        ((host, _),) = sidecar.asked()
        host.reset()
        sidecar.advance(0.1)
        assert client.receive().startswith(b"HTTP/1.1 503 ")
        assert len(asked(sidecar)) == 1


@pytest.mark.parametrize(
    ("thresholds", "answered"),
    [
        ([], 20),
        ([{"max_retries": 4}], 4),
        ([{"retry_budget": {"budget_percent": {"value": 1}, "min_retry_concurrency": 5}}], 5),
        ([{"max_retries": 1}], 1),
    ],
)
def test_a_budget_bounds_them(thresholds: list[dict[str, Any]], answered: int) -> None:
    """Without any word about retries there may be sixteen, or as many as other requests are under way."""
    with running(clusters=several(2, circuit_breakers={"thresholds": thresholds})) as sidecar:
        sidecar.dialer.waits = True
        clients = [sidecar.client().send(GET) for _ in range(40)]
        refusing(sidecar, {7000})
        sidecar.dialer.go_on()
        refused = asked(sidecar).count(7000)
        assert refused == 20
        sidecar.advance(0.1)
        for host, _ in sidecar.asked():
            host.send(HELLO)
        sidecar.advance(0.1)
        for host, _ in sidecar.asked():
            host.send(HELLO)
        answers = [client.receive() for client in clients]
        expected = 20 + answered
        assert sum(answer.endswith(b"hello") for answer in answers) == expected
        assert sidecar.stat("cluster.up.upstream_rq_retry_overflow") == 40 - expected
        flags = {line.split()[4] for line in sidecar.log}
        assert flags == ({"-"} if expected == 40 else {"-", "UO,UF"})


def test_hosts_that_only_others_may_ask_are_none() -> None:
    """A subset with one host has no other."""
    hosts = [
        {
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 7000 + number}}},
            "metadata": {"filter_metadata": {"envoy.lb": {"version": f"v{number}"}}},
        }
        for number in range(2)
    ]
    subsets = {"lb_subset_config": {"fallback_policy": "NO_FALLBACK", "subset_selectors": [{"keys": ["version"]}]}}
    cluster = {"up": {"load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": hosts}]}, **subsets}}
    match = {"filter_metadata": {"envoy.lb": {"version": "v1"}}}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "metadata_match": match}}]
    sidecar = Sidecar(clusters=cluster, routes=routes)
    refusing(sidecar, {7001})
    sidecar.advance(0.1)
    client = sidecar.client().send(GET)
    sidecar.advance(0.1)
    assert client.receive().startswith(b"HTTP/1.1 503 ")
    assert asked(sidecar) == [7001]


def test_requests_with_filters_and_of_a_known_shape_are_no_exception() -> None:
    fault = http_filter("fault.v3.HTTPFault")
    with running(clusters=several(2), filters=[fault]) as sidecar:
        client = sidecar.client()
        for number in range(12):
            refusing(sidecar, {7000 + number % 2})
            client.send(GET)
            sidecar.advance(0.1)
            for host, _ in sidecar.asked():
                host.send(HELLO)
            assert client.receive().endswith(b"hello"), number
            for host in sidecar.hosts:
                host.close()
        assert sidecar.stat("cluster.up.upstream_rq_retry") > 0
