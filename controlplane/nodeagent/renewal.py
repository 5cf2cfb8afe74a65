"""When a certificate is renewed, and whether it is still good. No I/O, no clock of its own.

Two clocks are looked at: the wall's, by which certificates are dated, and one that only goes forward (the time since boot,
sleep included), by which as much time has passed as has passed, whatever somebody does to the other. The one that says
"later" is believed: a clock that is set back makes no certificate good again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_SHORTEST: Final = 0.2  # seconds between two attempts
_FIRST: Final = 1.0
_LONGEST: Final = 60.0
_JUMP: Final = 5.0  # seconds by which the clocks must disagree before that is a jump


@dataclass(frozen=True, slots=True)
class Now:
    """Seconds by both clocks: since 1970, and since boot."""

    wall: float
    steady: float


def read_clocks() -> Now:
    """Both clocks of this machine."""
    return Now(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


class Schedule:
    """Of one certificate, which was issued at ``since`` and ends at ``not_after`` (wall). It is due when half of its life is
    over, a tenth of that sooner or later; after each failure again, at intervals that double, with jitter.
    """

    def __init__(
        self, since: float, not_after: float, now: Now, chance: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.life = max(1e-3, not_after - since)
        self.not_after = not_after
        self.failures = 0
        self._chance = chance
        self._due = since + self.life * chance(0.45, 0.55)
        self._started = now
        self._again: float | None = None

    def left(self, now: Now) -> float:
        """Seconds of its life that are left; 0 or less when it is over."""
        return self.not_after - self._latest(now)

    def is_over(self, now: Now) -> bool:
        """Whether it must not be used any more."""
        return self.left(now) <= 0

    def until_due(self, now: Now) -> float:
        """Seconds until the next attempt to renew it; 0 or less if it is due."""
        due = self._due - self._latest(now)
        return due if self._again is None else max(due, self._again - now.steady)

    def failed(self, now: Now) -> float:
        """An attempt has failed: seconds until the next."""
        first = min(_FIRST, max(_SHORTEST, self.life / 20))
        longest = _LONGEST if self.is_over(now) else max(first, min(_LONGEST, self.life / 10))
        pause: float = min(longest, first * 2 ** min(self.failures, 16)) * self._chance(0.5, 1.0)
        self.failures += 1
        self._again = now.steady + pause
        return pause

    def hasten(self, now: Now, within: float) -> None:
        """Be due within so many seconds, at a time that others are not likely to have chosen."""
        self._due = min(self._due, self._latest(now) + within * self._chance(0.0, 1.0))

    def at_once(self) -> None:
        """Do not wait for the next attempt."""
        self._again = None

    def _latest(self, now: Now) -> float:
        return max(now.wall, self._started.wall + (now.steady - self._started.steady))


def jumped(before: Now, now: Now) -> float:
    """Seconds by which the wall's clock was set forward (or back, negative) between two looks; 0 for none."""
    difference = (now.wall - before.wall) - (now.steady - before.steady)
    return difference if abs(difference) > _JUMP else 0.0
