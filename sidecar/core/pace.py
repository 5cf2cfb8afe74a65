"""Work that would hold the event loop for too long: in slices, or beside it in a thread."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

SLICE: Final = 0.003
"""Seconds of the loop at a time, of the 5 ms that anything may take, so that a long last step fits too."""

_SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which a thread beside the loop gives way to it."""


class Pace:
    """What all work of one kind shares that is done beside the requests. ``clock`` is in seconds."""

    __slots__ = ("_aside", "_until", "_usual", "clock")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._until = 0.0
        self._aside = 0
        self._usual = 0.0

    async def breathe(self) -> None:
        """Let everything else have its turn if this one's is over. To be called between two short steps."""
        if self.clock() >= self._until:
            await asyncio.sleep(0)
            self._until = self.clock() + SLICE

    async def aside(self, work: Callable[[], T]) -> T:
        """The result of one long step that touches nothing which the loop works with, done in a thread."""
        if not self._aside:
            self._usual = sys.getswitchinterval()
            sys.setswitchinterval(min(_SWITCH_INTERVAL, self._usual))
        self._aside += 1
        try:
            return await asyncio.to_thread(work)
        finally:
            self._aside -= 1
            if not self._aside:
                sys.setswitchinterval(self._usual)

    def __repr__(self) -> str:
        return f"<Pace of {SLICE * 1000:g} ms>"
