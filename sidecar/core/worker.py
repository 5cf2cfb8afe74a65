"""What every part of one event loop shares: clock, timers, cork, randomness, identifiers. All of it is injected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

from sidecar.core.cork import Cork
from sidecar.core.timer_wheel import TimerWheel


class Worker:
    """One event loop and what stands around it. ``clock`` is monotonic, in seconds; add ``epoch`` for wall-clock time. It
    follows when the wall clock is set: ask for it anew each time.
    ``number`` tells the workers of one sidecar apart; there are ``workers`` of them.

    ``random`` decides about requests, in the order in which they come, and about nothing else: so the same requests meet the
    same decisions under the same ``seed``, whatever timers do meanwhile. Those have sources of their own.
    """

    __slots__ = (
        "clock",
        "cork",
        "epoch",
        "join_below",
        "last_id",
        "loop",
        "number",
        "ping_random",
        "random",
        "seed",
        "tasks",
        "wall_clock",
        "wheel",
        "workers",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        seed: int | None = None,
        number: int = 0,
        workers: int = 1,
    ) -> None:
        self.loop = loop
        self.number = number
        self.workers = workers
        self.clock = clock
        self.wall_clock = wall_clock
        self.epoch = wall_clock() - clock()
        self.wheel = TimerWheel(loop, clock)
        self.cork = Cork(loop)
        # Pieces of fewer bytes than this leave as one; several asyncio releases never pause a protocol for what
        # `writelines` left unsent (CPython issue 127655), so without uvloop they always do.
        self.join_below = 16384 if type(loop).__module__.startswith("uvloop") else 1 << 62
        self.seed = seed if seed is None else seed + number
        self.random = Random(self.seed)
        self.ping_random = self.random_for("http2 keepalive")  # for the times of pings
        self.last_id = 0
        self.tasks: set[asyncio.Task[object]] = set()

    def random_for(self, purpose: str) -> Random:
        """The source for what does not happen in the order of the requests: under a seed, one of its own."""
        return self.random if self.seed is None else Random(f"{self.seed} {purpose}")

    def follow_wall_clock(self) -> None:
        """See whether it was set, and take over what it says. By less than a millisecond it may go its own way."""
        epoch = self.wall_clock() - self.clock()
        if abs(epoch - self.epoch) > 0.001:
            self.epoch = epoch

    def next_id(self) -> int:
        """A number for a connection, unique in this process."""
        self.last_id += 1
        return self.last_id

    def __repr__(self) -> str:
        return f"<Worker {len(self.wheel)} timers>"
