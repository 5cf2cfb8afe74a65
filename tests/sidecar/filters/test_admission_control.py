"""The admission control filter: what counts as success, how much is refused, and for how long that is remembered."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sidecar.config.filters.admission_control import AdmissionControl
from sidecar.filters.admission_control import AdmissionControlFilter, Window
from sidecar.filters.context import NamedFilter
from sidecar.filters.registry import make_filter
from tests.sidecar.filters.streams import FakeStream, FakeWorker, FixedRandom, make_context

GRPC = (b"content-type", b"application/grpc")


class Admission:
    """The filter with dice that always show the same."""

    def __init__(self, dice: float = 0.9999, **config: Any) -> None:
        self.worker = FakeWorker()
        self.worker.random = FixedRandom(dice)
        made = make_filter(AdmissionControl(**config), "admission_control", make_context(self.worker))
        assert isinstance(made, AdmissionControlFilter)
        self.filter = made

    def ask(self, status: int = 200, *fields: tuple[bytes, bytes], body: bytes = b"") -> FakeStream:
        stream = FakeStream(self.worker, [self.filter]).ask()
        return stream.answer(status, fields, body) if stream.forwarded else stream

    def counted(self) -> tuple[int, int, int]:
        stats = self.filter.stats
        return stats.rq_success, stats.rq_failure, stats.rq_rejected


@pytest.mark.parametrize(
    ("status", "config", "success"),
    [
        (200, {}, True),
        (404, {}, True),
        (499, {}, True),
        (500, {}, False),
        (503, {}, False),
        (404, {"http_successes": ((200, 300),)}, False),
        (299, {"http_successes": ((200, 300), (500, 501))}, True),
        (500, {"http_successes": ((200, 300), (500, 501))}, True),
        (300, {"http_successes": ((200, 300),)}, False),
    ],
)
def test_statuses(status: int, config: dict[str, Any], success: bool) -> None:
    admission = Admission(**config)
    admission.ask(status)
    assert admission.counted() == (int(success), int(not success), 0)


@pytest.mark.parametrize("status", range(17))
def test_grpc_statuses(status: int) -> None:
    success = status not in (4, 8, 10, 13, 14, 15)
    admission = Admission()
    admission.ask(200, GRPC, (b"grpc-status", b"%d" % status))
    assert admission.counted() == (int(success), int(not success), 0)
    only = Admission(grpc_successes=frozenset((status,)))
    only.ask(200, GRPC, (b"grpc-status", b"%d" % status))
    only.ask(200, GRPC, (b"grpc-status", b"%d" % ((status + 1) % 17)))
    assert only.counted() == (1, 1, 0)


@pytest.mark.parametrize(
    ("trailers", "counted"),
    [([(b"grpc-status", b"0")], (1, 0, 0)), ([(b"grpc-status", b"14")], (0, 1, 0)), ([(b"x", b"y")], (0, 1, 0))],
)
def test_a_call_is_judged_by_its_trailers(trailers: list[tuple[bytes, bytes]], counted: tuple[int, ...]) -> None:
    admission = Admission()
    stream = FakeStream(admission.worker, [admission.filter]).ask()
    stream.answer(200, [GRPC], b"\0\0\0\0\0")
    assert admission.counted() == (0, 0, 0)
    admission.filter.on_response_trailers(stream, trailers)  # type: ignore[arg-type]
    assert admission.counted() == counted


@pytest.mark.parametrize(
    ("good", "bad", "config", "share"),
    [
        (0, 0, {}, 0.0),
        (95, 5, {}, 0.0),
        (100, 0, {}, 0.0),
        (50, 50, {}, (100 - 50 / 0.95) / 101),
        (50, 50, {"sr_threshold": 0.5}, 0.0),
        (50, 50, {"sr_threshold": 1.0}, 50 / 101),
        (50, 50, {"sr_threshold": 1.0, "aggression": 2.0}, (50 / 101) ** 0.5),
        (0, 100, {}, 0.8),
        (0, 100, {"max_rejection_probability": 0.25}, 0.25),
        (0, 100, {"max_rejection_probability": 1.0}, 100 / 101),
    ],
)
def test_how_much_is_refused(good: int, bad: int, config: dict[str, Any], share: float) -> None:
    admission = Admission(**config)
    for status, times in ((200, good), (500, bad)):
        for _ in range(times):
            admission.ask(status)
    assert admission.filter.rejection_probability(admission.worker.now) == pytest.approx(share)
    rolls = Random(20260101)
    for dice in [] if not share else [share - 0.001, share + 0.001]:
        admission.worker.random.value = dice
        assert FakeStream(admission.worker, [admission.filter]).ask().forwarded == (dice > share)
    refused = 0
    for _ in range(2000):
        admission.worker.random.value = rolls.random()
        refused += not FakeStream(admission.worker, [admission.filter]).ask().forwarded
    assert refused / 2000 == pytest.approx(share, abs=0.04)


def test_what_is_refused_is_not_judged() -> None:
    admission = Admission(dice=0.0)
    admission.ask(500)
    refused = admission.ask()
    assert refused.replied == (503, b"", "denied_by_admission_control")
    assert admission.counted() == (0, 1, 1)


def test_few_requests_a_second_are_never_refused() -> None:
    admission = Admission(dice=0.0, rps_threshold=5)
    for _ in range(5):
        assert admission.ask(500).replied is None
    assert admission.ask(500).replied is not None
    admission.worker.advance(2.0)
    assert admission.ask(500).replied is None


def test_old_requests_are_forgotten() -> None:
    window = Window(3)
    for second in range(4):
        window.add(second == 0, 100.0 + second)
        window.add(False, 100.5 + second)
    assert (window.requests, window.successes) == (6, 0)
    assert window.average_rps(103.5) == 3
    window.update(105.9)
    assert (window.requests, window.average_rps(105.9)) == (2, 1)
    window.update(106.0)
    assert (window.requests, window.average_rps(106.0)) == (0, 0)


def test_disabled_it_does_nothing() -> None:
    made = make_filter(AdmissionControl(enabled=False), "admission_control", make_context())
    assert type(made) is NamedFilter
