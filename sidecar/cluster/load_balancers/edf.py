"""Earliest deadline first: the weighted fair order in which Envoy's weighted balancers take entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from random import Random
from typing import TypeVar

T = TypeVar("T")


def edf(entries: Sequence[T], weight: Callable[[T], float], random: Random) -> Callable[[], T]:
    """A function that gives the entries in turn, each in proportion to its weight (more than 0), asked at every turn.

    An entry's next deadline lies 1/weight behind its last one; ties go to the one that has waited longer. The order
    starts at a random place, so that the proxies of a fleet do not all begin with the same host.
    """
    heap = [(1.0 / weight(entry), order, entry) for order, entry in enumerate(entries)]
    heapify(heap)
    order = len(heap)

    def choose() -> T:
        nonlocal order
        deadline, _, entry = heap[0]
        order += 1
        heapreplace(heap, (deadline + 1.0 / weight(entry), order, entry))
        return entry

    for _ in range(random.randrange(len(heap))):
        choose()
    return choose
