"""Circuit breakers: when they are open, what is left, and how many retries a budget allows."""

from __future__ import annotations

import pytest

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.config.circuit_breakers import UNLIMITED, RetryBudget


def test_open_exactly_when_a_count_reaches_its_limit() -> None:
    breaker = CircuitBreaker(1, 2, 3, 1, track_remaining=True)
    assert not (breaker.cx_open or breaker.rq_pending_open or breaker.rq_open or breaker.rq_retry_open)
    breaker.cx_active, breaker.rq_pending, breaker.rq_active, breaker.retries_active = 1, 2, 3, 1
    assert breaker.cx_open and breaker.rq_pending_open and breaker.rq_open and breaker.rq_retry_open
    assert not breaker.cx_pool_open
    breaker.rq_active = 2  # both of them wait
    assert not breaker.rq_open
    remaining = (breaker.remaining_cx, breaker.remaining_pending, breaker.remaining_rq, breaker.remaining_retries)
    assert remaining == (0, 0, 3, 0)
    breaker.rq_pending = 1
    assert (breaker.remaining_rq, breaker.remaining_cx_pools) == (2, UNLIMITED)


def test_what_remains_is_shown_only_when_tracked() -> None:
    assert CircuitBreaker().remaining_rq == 0
    tracked = CircuitBreaker(track_remaining=True)
    assert (tracked.remaining_cx, tracked.remaining_rq, tracked.remaining_retries) == (1024, 1024, 3)
    tracked.rq_active = 2000
    assert tracked.remaining_rq == 0


def test_three_retries_by_default() -> None:
    breaker = CircuitBreaker()
    allowed = 0
    while breaker.may_retry():
        breaker.retries_active += 1
        allowed += 1
    assert allowed == 3


@pytest.mark.parametrize(("active", "pending", "limit"), [(0, 0, 3), (14, 4, 3), (20, 5, 4), (100, 0, 20), (99, 0, 19)])
def test_a_retry_budget_follows_the_requests(active: int, pending: int, limit: int) -> None:
    breaker = CircuitBreaker(max_retries=0, retry_budget=RetryBudget(20.0, 3))
    breaker.rq_active, breaker.rq_pending = active, pending
    breaker.retries_active = limit - 1
    assert breaker.may_retry()
    breaker.retries_active = limit
    assert not breaker.may_retry()
    assert breaker.retries_limit == limit


def test_what_a_retry_budget_leaves_is_not_told() -> None:
    assert CircuitBreaker(retry_budget=RetryBudget(), track_remaining=True).remaining_retries == 0
