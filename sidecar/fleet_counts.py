"""What workers that leave have counted, for those that stay to count on from there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sidecar.lifecycle.worker_process import WorkerProcess

_OF_A_WORKER = re.compile(r"\.worker_(\d+)\.$")
"""The end of the prefix of what one worker alone counts."""


class Counts:
    """Hands changes on (`telemetry.carried`), to each worker its own, and to the first what is nobody's; while no worker is
    ``serving``, they wait.
    """

    def __init__(self, serving: Callable[[], Sequence[WorkerProcess]]) -> None:
        self._serving = serving
        self._waiting: list[list[Any]] = []

    def add(self, changes: list[Any]) -> None:
        """Some more."""
        self._waiting.append(changes)
        serving = {worker.number: worker for worker in self._serving()}
        if not serving:
            return
        first = min(serving)
        shares: dict[int, list[Any]] = {}
        for change in (change for each in self.take() for change in each):
            own = _OF_A_WORKER.search(change[1])
            shares.setdefault(first if own is None else int(own[1]), []).append(change)
        for number, share in shares.items():
            if number in serving:  # else there were more workers before
                serving[number].order(changes=share)

    def take(self) -> Iterator[list[Any]]:
        """What waits, for another process."""
        waiting, self._waiting = self._waiting, []
        return iter(waiting)

    def __repr__(self) -> str:
        return f"<Counts, {len(self._waiting)} parts wait>"
