"""The waits before a server is tried again."""

from __future__ import annotations

from random import Random

from sidecar.xds.backoff import BackOff


class Longest(Random):
    """Always draws nearly 1."""

    def random(self) -> float:
        return 1.0


def test_waits_double_up_to_the_longest_and_begin_anew_after_an_answer() -> None:
    backoff = BackOff(Longest(), 0.5, 30.0)
    assert [backoff.next() for _ in range(9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    backoff.reset()
    assert backoff.next() == 0.5


def test_waits_are_random_parts_of_that() -> None:
    waits = [BackOff(Random(seed), 0.5, 30.0).next() for seed in range(100)]
    assert 0.0 <= min(waits) < 0.1
    assert 0.4 < max(waits) < 0.5
