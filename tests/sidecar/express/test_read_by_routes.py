"""Requests of a known shape whose fields a route has read: what is sent on is what any other request would become."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.http.running import GET, HELLO, TO_UP, running

BY_HEADER: dict[str, Any] = {
    "match": {"prefix": "/"},
    "route": {
        "weighted_clusters": {
            "clusters": [{"name": "up", "weight": 10}, {"name": "other", "weight": 90}],
            "header_name": "x-weight",
        }
    },
}
TWICE = {"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": {"retry_on": "5xx"}}}
MATCHED = {
    "prefix": "/",
    "headers": [{"name": "x-weight", "treat_missing_header_as_empty": True, "range_match": {"end": 99}}],
}
BAD = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"


def fields(head: bytes) -> list[bytes]:
    """The names of the fields of a head."""
    return [line.partition(b":")[0] for line in head.split(b"\r\n")[1:-2]]


def asking(weight: int) -> bytes:
    return GET.replace(b"\r\n\r\n", b"\r\nX-Weight: %d\r\n\r\n" % weight)


def test_a_cluster_that_a_header_picks_gets_the_same_head_from_the_first_request_on() -> None:
    with running(routes=[BY_HEADER], clusters={"up": {}, "other": {}}) as sidecar:
        client = sidecar.client()
        seen = []
        for weight in (0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 6, 54):  # known by now, and then to hosts without connections
            client.send(asking(weight))
            ((host, head),) = sidecar.asked()
            seen.append(fields(head))
            host.send(HELLO)
            assert client.receive().endswith(b"hello")
    assert b"x-envoy-expected-rq-timeout-ms" in seen[0]
    assert all(one == seen[0] for one in seen)


@pytest.mark.parametrize("match", [TO_UP["match"], MATCHED])
def test_what_is_sent_again_is_the_same(match: dict[str, Any]) -> None:
    with running(routes=[{**TWICE, "match": match}]) as sidecar:
        client = sidecar.client()
        seen = []
        for _ in range(8):
            client.send(asking(7))
            ((host, head),) = sidecar.asked()
            host.send(BAD)
            sidecar.advance(1.0)
            ((host, again),) = sidecar.asked()
            host.send(HELLO)
            assert client.receive().endswith(b"hello")
            seen += [fields(head), fields(again)]
    assert b"x-envoy-expected-rq-timeout-ms" in seen[0]
    assert all(one == seen[0] for one in seen)
