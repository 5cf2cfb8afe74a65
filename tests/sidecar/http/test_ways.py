"""The same exchange in several ways: whatever pieces its bytes come in, all that can be seen of it is the same.

A request and its response that each come in one read may take a shorter way through the sidecar than those that are
cut. Nothing that anybody can see may tell which way was taken: what passed, the statistics, the logs, the pools.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sidecar.http.exchanges import (
    REMOTES,
    Exchange,
    calls,
    configurations,
    exchanges,
    plain_calls,
    plain_configurations,
)
from tests.sidecar.http.ways import Cut, byte_by_byte, cut_at, differences, outcome, whole

_PLACES = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3).map(lambda places: cut_at(*places))
_CUTS = st.one_of(_PLACES, st.just(byte_by_byte))


def _compare(config: dict[str, Any], remote: str, sent: list[Exchange], requests: Cut, responses: Cut) -> None:
    expected = outcome(config, remote, sent, whole, whole)
    for one, other in ((requests, whole), (whole, responses), (requests, responses)):
        assert differences(expected, outcome(config, remote, sent, one, other)) == []


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configurations(), st.sampled_from(REMOTES), st.lists(exchanges(), min_size=1, max_size=4), _CUTS, _CUTS)
def test_exchanges_of_all_kinds(
    config: dict[str, Any], remote: str, sent: list[Exchange], requests: Cut, responses: Cut
) -> None:
    _compare(config, remote, sent, requests, responses)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configurations(), st.sampled_from(REMOTES), calls(), _CUTS, _CUTS)
def test_calls_of_one_service(
    config: dict[str, Any], remote: str, sent: list[Exchange], requests: Cut, responses: Cut
) -> None:
    """Requests and responses of few kinds, under any configuration."""
    _compare(config, remote, sent, requests, responses)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plain_configurations(), st.sampled_from(REMOTES), plain_calls(), _CUTS, _CUTS)
def test_plain_calls(config: dict[str, Any], remote: str, sent: list[Exchange], requests: Cut, responses: Cut) -> None:
    """Requests and responses of one shape, again and again: what a shorter way is made for."""
    _compare(config, remote, sent, requests, responses)
