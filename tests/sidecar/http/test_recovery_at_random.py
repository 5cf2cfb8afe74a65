"""Retries, hedging, redirects and mirrors in any order of events: one answer for each request, and nothing is left."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sidecar.http.running import HELLO, Sidecar, running

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
MOVED = b"HTTP/1.1 302 Moved\r\nLocation: http://a/moved\r\nContent-Length: 0\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
ANSWERS = (HELLO, BUSY, MOVED, EARLY + HELLO, CLOSING, CHUNKED, BUSY + b"", b"nonsense\r\n\r\n", HELLO[:-2], MOVED[:20])
REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
)
PRIORITIES = {
    "name": "p",
    "typed_config": {
        "@type": (
            "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
        ),
        "update_frequency": 1,
    },
}


def routes(random: Random) -> list[dict[str, Any]]:
    retry = {
        "retry_on": random.choice(("5xx", "5xx,reset", "connect-failure", "retriable-4xx")),
        "num_retries": random.randrange(4),
        "per_try_timeout": "1s",
        "retry_back_off": {"base_interval": "0.2s"},
        **({"retry_priority": PRIORITIES} if random.random() < 0.5 else {}),
    }
    action = {
        "cluster": "up",
        "timeout": "4s",
        "retry_policy": retry,
        "hedge_policy": {"hedge_on_per_try_timeout": random.random() < 0.8},
        **({"internal_redirect_policy": {"max_internal_redirects": 2}} if random.random() < 0.5 else {}),
        **({"request_mirror_policies": [{"cluster": "up"}]} if random.random() < 0.2 else {}),
    }
    return [{"match": {"prefix": "/"}, "route": action}]


def one_event(sidecar: Sidecar, random: Random) -> None:
    """Something happens: to a host, to a client, or to the clock."""
    what = random.random()
    open_hosts = [host for host in sidecar.hosts if not host.closed]
    if what < 0.45 and open_hosts:
        host = random.choice(open_hosts)
        if host.receive() or random.random() < 0.5:
            answer = random.choice(ANSWERS)
            cut = random.randrange(len(answer) + 1)
            host.send(*(piece for piece in (answer[:cut], answer[cut:]) if piece))
    elif what < 0.55 and open_hosts:
        host = random.choice(open_hosts)
        host.close() if random.random() < 0.5 else host.reset()
    elif what < 0.6:
        sidecar.dialer.fails = "" if sidecar.dialer.fails else "no way"
    elif what < 0.65:
        if sidecar.dialer.waits:
            sidecar.dialer.go_on()
        else:
            sidecar.dialer.waits = True
    elif what < 0.85:
        sidecar.advance(random.choice((0.05, 0.3, 1.1)))
    elif what < 0.88 and sidecar.clients:
        client = random.choice(sidecar.clients)
        if not client.transport.closing:
            client.reset()
    else:
        request = random.choice(REQUESTS)
        cut = random.randrange(1, len(request) + 1)
        client = random.choice(sidecar.clients) if random.random() < 0.3 and sidecar.clients else sidecar.client()
        if not client.transport.closing and not client.closed:
            client.send(*(piece for piece in (request[:cut], request[cut:]) if piece))


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_events(seed: int) -> None:
    random = Random(seed)
    levels = [
        {"priority": priority, "lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}
        for priority in range(3)
        for address in ({"address": "127.0.0.1", "port_value": 7000 + priority},)
    ]
    breakers = {"thresholds": [{"max_retries": random.choice((1, 100)), "max_requests": random.choice((3, 1000))}]}
    cluster = {"load_assignment": {"cluster_name": "up", "endpoints": levels}, "circuit_breakers": breakers}
    with running(routes=routes(random), clusters={"up": cluster}) as sidecar:
        for _ in range(80):
            one_event(sidecar, random)
        sidecar.dialer.fails = ""
