"""The adaptive concurrency filter: who passes, what the others are answered, and what is measured."""

from __future__ import annotations

from typing import Any

from sidecar.config.filters.adaptive_concurrency import AdaptiveConcurrency, GradientControllerConfig
from sidecar.filters.adaptive_concurrency import AdaptiveConcurrencyFilter
from sidecar.filters.context import NamedFilter
from sidecar.filters.registry import make_filter
from tests.sidecar.filters.streams import FakeStream, FakeWorker, make_context

CONTROLLER = GradientControllerConfig(0.1, min_rtt_interval=60.0, min_rtt_request_count=2, min_concurrency=2)


def filter_of(worker: FakeWorker, **config: Any) -> AdaptiveConcurrencyFilter:
    made = make_filter(AdaptiveConcurrency(CONTROLLER, **config), "adaptive_concurrency", make_context(worker))
    assert isinstance(made, AdaptiveConcurrencyFilter)
    return made


def test_requests_over_the_limit_are_refused() -> None:
    worker = FakeWorker()
    filter = filter_of(worker)
    first, second, third = (FakeStream(worker, [filter]).ask() for _ in range(3))
    assert first.forwarded and second.forwarded
    assert third.replied == (503, b"reached concurrency limit", "reached_concurrency_limit")
    assert filter.controller.outstanding == 2
    first.answer()
    assert filter.controller.outstanding == 1
    assert FakeStream(worker, [filter]).ask().forwarded


def test_another_status() -> None:
    worker = FakeWorker()
    filter = filter_of(worker, concurrency_limit_exceeded_status=429)
    refused = [FakeStream(worker, [filter]).ask() for _ in range(3)][-1]
    assert refused.replied is not None and refused.replied[0] == 429


def test_what_ends_without_its_response_is_not_measured() -> None:
    worker = FakeWorker()
    filter = filter_of(worker)
    for _ in range(5):
        FakeStream(worker, [filter]).ask().reset("gone")
    assert (filter.controller.outstanding, filter.controller.stats.min_rtt_calculation_active) == (0, 1)
    for _ in range(2):
        stream = FakeStream(worker, [filter]).ask()
        worker.advance(0.03)
        stream.answer(200, body=b"answer")
    assert filter.controller.stats.min_rtt_calculation_active == 0
    assert filter.controller.stats.min_rtt_msecs == 29


def test_disabled_it_does_nothing() -> None:
    made = make_filter(AdaptiveConcurrency(CONTROLLER, enabled=False), "adaptive_concurrency", make_context())
    assert type(made) is NamedFilter
