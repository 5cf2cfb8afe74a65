"""How often somebody may have something: so often at once, and so often each second on and on (GCRA)."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Final

_MOST: Final = 50_000  # who are remembered


class Allowance:
    """For each key ``burst`` at once and ``each_second`` on and on."""

    def __init__(
        self, burst: float, each_second: float, clock: Callable[[], float] = time.monotonic, most: int = _MOST
    ) -> None:
        self._interval = 1.0 / each_second
        self._ahead = (burst - 1.0) / each_second
        self._clock = clock
        self._most = most
        self._spent: dict[Hashable, float] = {}  # until when; whoever took something last comes last

    def take(self, key: Hashable) -> float:
        """Take one. 0 if there was one, else in how many seconds there will be."""
        now = self._clock()
        until = max(self._spent.pop(key, now), now)
        wait = until - now - self._ahead
        self._spent[key] = until if wait > 0 else until + self._interval
        if len(self._spent) > self._most:
            self._spent.pop(next(iter(self._spent)))
        return max(0.0, wait)
