"""Admission control refuses as large a share of the requests as Envoy, when half of those that it lets pass fail."""

from __future__ import annotations

import http.client

import pytest

from tests.differential.case import OK, reply
from tests.differential.proxies import Proxy
from tests.differential.runner import Runner

REQUESTS = 500


def refused_share(proxy: Proxy, listener: str) -> float:
    """How many of the requests are refused, of which every other one would fail; not told of the first ones."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[listener], timeout=5)
    refused = 0
    try:
        for number in range(REQUESTS):
            connection.request("GET", "/b" if number % 2 else "/")
            response = connection.getresponse()
            response.read()
            refused += response.status == 503 and number >= REQUESTS // 5
    finally:
        connection.close()
    return refused / (REQUESTS - REQUESTS // 5)


@pytest.mark.parametrize(("listener", "expected"), [("sheds", 0.5), ("sheds-hard", 0.7)])
def test_shares(runner: Runner, listener: str, expected: float) -> None:
    """Within four standard deviations of what the formula gives, and of each other."""
    shares = []
    for proxy in runner.pair("admission"):
        runner.upstreams.begin({"a": (reply(500),), "*": (OK,)}, {})
        shares.append(refused_share(proxy, listener))
    tolerance = 4 * (expected * (1 - expected) / (REQUESTS * 0.8)) ** 0.5
    assert shares == [pytest.approx(expected, abs=tolerance)] * 2
