"""Attempts of one request, one after the other: when there is another, what it sends, and what is left in the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.http.running import EPOCH, GET, HELLO, running

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


def retrying(policy: dict[str, Any], **route: Any) -> list[dict[str, Any]]:
    return [{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": policy, **route}}]


def test_another_attempt_after_a_back_off() -> None:
    with running(routes=retrying({"retry_on": "5xx", "num_retries": 2})) as sidecar:
        client = sidecar.client().send(GET)
        for number in range(2):
            ((host, asked),) = sidecar.asked()
            assert asked.startswith(b"GET / ")
            host.send(BUSY)
            assert client.receive() == b""
            assert sidecar.stat("cluster.up.upstream_rq_retry") == number + 1
            assert sidecar.asked() == []  # not before the back-off
            sidecar.advance(0.3)
        sidecar.hosts[-1].send(HELLO)
        assert client.receive().endswith(b"hello")
        assert sidecar.log == ["GET / HTTP/1.1 200 - via_upstream 0 5 " + sidecar.log[0].split()[8] + " up 3\n"]
        assert sidecar.stat("cluster.up.upstream_rq_retry_success") == 1


def test_the_last_answer_stands_when_no_attempt_is_left() -> None:
    with running(routes=retrying({"retry_on": "5xx", "num_retries": 1})) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(BUSY)
        sidecar.advance(0.3)
        sidecar.hosts[-1].send(BUSY)
        assert client.receive().endswith(b"busy")
        assert sidecar.log[0].split()[3:5] == ["503", "URX"]
        assert sidecar.stat("cluster.up.upstream_rq_retry_limit_exceeded") == 1


def test_the_connection_of_an_answer_that_was_whole_is_used_again() -> None:
    with running(routes=retrying({"retry_on": "5xx"})) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        sidecar.advance(0.3)
        sidecar.hosts[-1].send(HELLO)
        assert client.receive().endswith(b"hello")
        connections = len(sidecar.hosts)
    assert connections == 1


def test_a_body_is_sent_again() -> None:
    with running(routes=retrying({"retry_on": "5xx"})) as sidecar:
        client = sidecar.client().send(POST + b"12345")
        sidecar.host.send(BUSY)
        assert sidecar.host.closed  # its request was not over
        client.send(b"67890")
        sidecar.advance(0.3)
        assert sidecar.hosts[1].receive().endswith(b"\r\n\r\n1234567890")
        sidecar.hosts[-1].send(HELLO)
        assert client.receive().endswith(b"hello")


def test_a_body_that_is_too_large_is_not_kept() -> None:
    limited = {"per_connection_buffer_limit_bytes": 1000}
    with running(routes=retrying({"retry_on": "5xx"}), listener=limited) as sidecar:
        client = sidecar.client().send(POST.replace(b"10", b"5000"), *[b"x" * 1000] * 5)
        sidecar.host.send(BUSY)
        assert client.receive().endswith(b"busy")
        assert sidecar.stat("cluster.up.retry_or_shadow_abandoned") == 1


def test_an_attempt_has_a_timeout_of_its_own() -> None:
    policy = {"retry_on": "5xx", "per_try_timeout": "1s"}
    with running(routes=retrying(policy, timeout="10s")) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.advance(1.1)
        assert sidecar.hosts[0].closed
        sidecar.advance(0.3)
        sidecar.hosts[-1].send(HELLO)
        assert client.receive().endswith(b"hello")
        assert sidecar.stat("cluster.up.upstream_rq_per_try_timeout") == 1


def test_the_requests_timeout_ends_all_attempts() -> None:
    with running(
        routes=retrying({"retry_on": "5xx", "num_retries": 9, "per_try_timeout": "1s"}, timeout="2s")
    ) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.advance(2.5)
        assert client.receive().endswith(b"upstream request timeout")
        assert all(host.closed for host in sidecar.hosts)


def test_the_breaker_bounds_retries() -> None:
    breakers = {"circuit_breakers": {"thresholds": [{"max_retries": 1}]}}
    with running(routes=retrying({"retry_on": "5xx"}), clusters={"up": breakers}) as sidecar:
        clients = [sidecar.client().send(GET) for _ in range(3)]
        for host in sidecar.hosts:
            host.send(BUSY)
        assert [client.receive()[9:12] for client in clients] == [b"", b"503", b"503"]
        assert sidecar.stat("cluster.up.upstream_rq_retry_overflow") == 2
        sidecar.advance(0.3)
        ((host, _),) = [
            (host, asked) for host, asked in sidecar.asked() if not host.closed and asked.count(b"GET") == 2
        ]
        host.send(HELLO)
        assert clients[0].receive().endswith(b"hello")


@pytest.mark.parametrize("answered", [HELLO[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"])
def test_there_is_no_other_attempt_once_the_response_has_begun(answered: bytes) -> None:
    with running(routes=retrying({"retry_on": "5xx,reset"})) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(answered).reset()
        sidecar.advance(1.0)
        assert len(sidecar.hosts) == 1
        assert client.transport.closing


@pytest.mark.parametrize(
    ("header", "waits", "kind"),
    [
        (b"Retry-After: 3", (2.9, 4.6), "ratelimited"),
        (b"X-Reset: %d" % (EPOCH + 4), (3.9, 6.1), "ratelimited"),
        (b"Retry-After: 3600", (0.0, 0.3), "exponential"),  # more than max_interval
        (b"Retry-After: soon", (0.0, 0.3), "exponential"),
        (b"X-Other: 3", (0.0, 0.3), "exponential"),
    ],
)
def test_the_host_says_when_to_come_back(header: bytes, waits: tuple[float, float], kind: str) -> None:
    headers = [{"name": "retry-after"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}]
    policy = {"retry_on": "5xx", "rate_limited_retry_back_off": {"reset_headers": headers, "max_interval": "60s"}}
    with running(routes=retrying(policy)) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.asked()
        sidecar.host.send(BUSY.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n"))
        earliest, latest = waits
        sidecar.advance(earliest)
        assert earliest == 0.0 or sidecar.asked() == []
        sidecar.advance(latest - earliest)
        ((host, _),) = sidecar.asked()
        assert sidecar.stat(f"cluster.up.upstream_rq_retry_backoff_{kind}") == 1
        host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_retries_of_requests_of_a_known_shape() -> None:
    priorities = {
        "name": "p",
        "typed_config": {
            "@type": (
                "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
            ),
            "update_frequency": 1,
        },
    }
    levels = [
        {"priority": priority, "lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}
        for priority, address in enumerate({"address": "127.0.0.1", "port_value": port} for port in (7000, 7001))
    ]
    cluster = {"load_assignment": {"cluster_name": "up", "endpoints": levels}}
    policy = {"retry_on": "5xx", "per_try_timeout": "2s", "retry_priority": priorities}
    with running(routes=retrying(policy), clusters={"up": cluster}) as sidecar:
        client = sidecar.client()
        for _ in range(4):
            client.send(GET)
            sidecar.host.send(HELLO)
            assert client.receive().endswith(b"hello")
        client.send(GET)
        sidecar.asked()
        sidecar.host.send(BUSY)
        sidecar.advance(0.3)
        ((host, asked),) = sidecar.asked()
        assert host is sidecar.hosts[1] and asked.startswith(b"GET / ")
        assert b"x-envoy-expected-rq-timeout-ms: 2000\r\n" in asked
        host.send(HELLO)
        assert client.receive().endswith(b"hello")
        assert [address.port for address in sidecar.dialer.dialled] == [7000, 7001]


def test_an_interim_response_begins_the_answer_and_counts_for_no_other_request() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    policy = {"retry_on": "5xx", "per_try_timeout": "2s"}
    with running(routes=retrying(policy)) as sidecar:
        client = sidecar.client()
        for _ in range(4):
            client.send(GET)
            sidecar.host.send(HELLO)
            assert client.receive().endswith(b"hello")
        client.send(GET)
        sidecar.host.send(early)
        sidecar.advance(3.0)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")
        client.send(GET)
        sidecar.host.send(early, BUSY)
        assert client.receive().endswith(b"busy")
        client.send(GET)
        sidecar.asked()
        sidecar.hosts[-1].send(BUSY)
        sidecar.advance(0.3)
        ((host, _),) = sidecar.asked()
        host.send(HELLO)
        assert client.receive().endswith(b"hello")
        assert sidecar.stat("cluster.up.upstream_rq_retry") == 1
