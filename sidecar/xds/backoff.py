"""How long to wait before a server is tried again."""

from __future__ import annotations

from random import Random
from typing import Final

BASE_INTERVAL: Final = 0.5
MAX_INTERVAL: Final = 30.0


class BackOff:
    """Waits of a random part of an interval that doubles with each, up to ``longest``; both in seconds.

    Source: Envoy's ``JitteredExponentialBackOffStrategy``.
    """

    __slots__ = ("base", "interval", "longest", "random")

    def __init__(self, random: Random, base: float = BASE_INTERVAL, longest: float = MAX_INTERVAL) -> None:
        self.random = random
        self.base = base
        self.longest = longest
        self.interval = base

    def next(self) -> float:
        """The next wait, in seconds."""
        interval = self.interval
        self.interval = min(interval * 2, self.longest)
        return self.random.random() * interval

    def reset(self) -> None:
        """The server has answered."""
        self.interval = self.base

    def __repr__(self) -> str:
        return f"<BackOff up to {self.interval:g} s>"
