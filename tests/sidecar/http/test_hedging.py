"""Hedged requests over memory: what is counted, what is cancelled, and that nothing is left."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.http.running import GET, HELLO, Client, Sidecar, running

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
ONE_RETRY = {"circuit_breakers": {"thresholds": [{"max_retries": 1}]}}


def hedging(**fields: Any) -> list[dict[str, Any]]:
    policy = {"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "1s", **fields}
    action = {"cluster": "up", "retry_policy": policy, "hedge_policy": {"hedge_on_per_try_timeout": True}}
    return [{"match": {"prefix": "/"}, "route": {**action, "timeout": "10s"}}]


def two_attempts(sidecar: Sidecar) -> Client:
    """A client whose request is under way twice."""
    client = sidecar.client().send(GET)
    sidecar.advance(1.4)
    assert len(sidecar.hosts) == 2
    return client


def test_the_first_answer_counts_and_the_other_attempt_is_cancelled() -> None:
    for winner, loser in ((0, 1), (1, 0)):
        with running(routes=hedging()) as sidecar:
            client = two_attempts(sidecar)
            assert sidecar.stat("cluster.up.upstream_rq_active") == 2
            sidecar.hosts[winner].send(HELLO)
            assert client.receive().endswith(b"hello")
            assert sidecar.hosts[loser].closed and not sidecar.hosts[winner].closed
            assert sidecar.stat("cluster.up.upstream_rq_per_try_timeout") == 0
            assert sidecar.stat("cluster.up.upstream_rq_retry") == 1
            assert sidecar.stat("cluster.up.upstream_rq_200") == 1
            sidecar.client().send(GET)
            assert len(sidecar.hosts) == 2  # the connection of the answer is used again


def test_an_answer_in_pieces() -> None:
    with running(routes=hedging()) as sidecar:
        client = two_attempts(sidecar)
        sidecar.hosts[0].send(HELLO[:-7])
        sidecar.hosts[0].send(HELLO[-7:-2])
        assert client.receive().endswith(b"hel")
        sidecar.hosts[0].send(HELLO[-2:])
        assert client.receive() == b"lo"


def test_an_answer_that_breaks_off() -> None:
    with running(routes=hedging()) as sidecar:
        client = two_attempts(sidecar)
        sidecar.hosts[0].send(HELLO[:-2]).reset()
        assert client.receive().endswith(b"hel")
        assert client.closed and sidecar.hosts[1].closed


def test_time_is_up_for_all_attempts() -> None:
    with running(routes=hedging()) as sidecar:
        client = two_attempts(sidecar)
        sidecar.advance(9.0)
        assert client.receive().startswith(b"HTTP/1.1 504 ")
        assert all(host.closed for host in sidecar.hosts)
        assert len(sidecar.hosts) == 3
        assert sidecar.stat("cluster.up.upstream_rq_timeout") == 3
        assert sidecar.stat("cluster.up.upstream_rq_504") == 3
        assert sidecar.log[0].split()[3:6] == ["504", "URX,UT", "response_timeout"]


def test_the_client_leaves() -> None:
    with running(routes=hedging()) as sidecar:
        two_attempts(sidecar).reset()
        assert all(host.closed for host in sidecar.hosts)


def test_a_bad_answer_waits_for_a_better_one() -> None:
    with running(routes=hedging(num_retries=1)) as sidecar:
        client = two_attempts(sidecar)
        sidecar.hosts[1].send(BUSY)
        assert client.receive() == b""
        sidecar.hosts[0].send(HELLO)
        assert client.receive().endswith(b"hello")
        assert sidecar.log[0].split()[3:5] == ["200", "URX"]


def test_the_last_bad_answer_counts() -> None:
    with running(routes=hedging(num_retries=1)) as sidecar:
        client = two_attempts(sidecar)
        sidecar.hosts[0].send(BUSY)
        assert client.receive() == b""
        sidecar.hosts[1].send(BUSY)
        assert client.receive().startswith(b"HTTP/1.1 503 ")


def test_an_answer_while_the_next_attempt_is_put_off() -> None:
    with running(routes=hedging(retry_back_off={"base_interval": "60s"})) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.advance(1.1)
        assert len(sidecar.hosts) == 1
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")
        sidecar.advance(1.0)
        assert len(sidecar.hosts) == 1
        assert sidecar.stat("cluster.up.circuit_breakers.default.rq_retry_open") == 0


def test_an_attempt_that_waits_for_its_connection() -> None:
    with running(routes=hedging()) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.dialer.waits = True
        sidecar.advance(1.4)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")
        assert sidecar.stat("cluster.up.upstream_rq_active") == 0


@pytest.mark.parametrize("broken", [0, 1])
def test_one_that_breaks_leaves_it_to_the_other(broken: int) -> None:
    with running(routes=hedging(num_retries=1)) as sidecar:
        client = two_attempts(sidecar)
        sidecar.hosts[broken].close()
        assert client.receive() == b""
        sidecar.hosts[1 - broken].close()
        assert client.receive().startswith(b"HTTP/1.1 503 ")
        assert sidecar.stat("cluster.up.upstream_rq_503") == 2


def test_retries_are_bounded() -> None:
    with running(routes=hedging(), clusters={"up": ONE_RETRY}) as sidecar:
        clients = [sidecar.client().send(GET) for _ in range(3)]
        sidecar.advance(1.4)
        assert len(sidecar.hosts) == 4
        for host in sidecar.hosts:
            if not host.closed:
                host.send(HELLO)
        assert [client.receive()[-5:] for client in clients] == [b"hello"] * 3
        assert sorted(line.split()[4] for line in sidecar.log) == ["-", "UO", "UO"]


def test_a_try_is_timed_from_its_connection_and_the_end_of_the_request() -> None:
    action = {"cluster": "up", "retry_policy": {"retry_on": "5xx", "per_try_timeout": "1s"}}
    with running(routes=[{"match": {"prefix": "/"}, "route": action}]) as sidecar:
        sidecar.dialer.waits = True
        waiting = sidecar.client().send(GET)
        slow = sidecar.client().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1")
        sidecar.advance(1.5)
        sidecar.dialer.go_on()
        sidecar.advance(0.8)
        slow.send(b"2")
        assert sidecar.stat("cluster.up.upstream_rq_per_try_timeout") == 0
        for host in sidecar.hosts:
            host.send(HELLO)
        assert waiting.receive().endswith(b"hello") and slow.receive().endswith(b"hello")


def test_a_retry_is_told_the_time_that_is_left() -> None:
    with running(routes=hedging(per_try_timeout="4s")) as sidecar:
        client = sidecar.client().send(GET)
        assert b"x-envoy-expected-rq-timeout-ms: 10000\r\n" in sidecar.host.receive()
        sidecar.advance(2.0)
        sidecar.host.send(BUSY)
        sidecar.advance(0.3)
        told = int(sidecar.host.receive().split(b"timeout-ms: ")[1].split(b"\r\n")[0])
        assert 7600 <= told <= 8000
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_requests_of_a_shape_that_is_known_are_hedged_too() -> None:
    with running(routes=hedging()) as sidecar:
        client = sidecar.client()
        for _ in range(4):
            client.send(GET)
            sidecar.host.send(HELLO)
            assert client.receive().endswith(b"hello")
        client.send(GET)
        sidecar.advance(1.4)
        assert len(sidecar.hosts) == 2
        sidecar.hosts[0].send(HELLO)
        assert client.receive().endswith(b"hello")
