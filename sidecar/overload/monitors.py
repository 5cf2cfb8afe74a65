"""Resource monitors: how much of something is used up, from 0 (nothing) to 1 (all of it).

Source: Envoy's `extensions.resource_monitors`; the event loop's lag and the accept queue are our own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

_DAMPING = 0.05
_PROCESSORS = "/proc/stat"


class Monitor(Protocol):
    """What is watched."""

    def pressure(self) -> float:
        """How much of it is used up now. Raises ValueError or OSError where that cannot be told."""
        ...


class Share:
    """What ``used`` tells, of ``most``."""

    __slots__ = ("most", "used")

    def __init__(self, used: Callable[[], float], most: float) -> None:
        self.used = used
        self.most = most

    def pressure(self) -> float:
        return self.used() / self.most

    def __repr__(self) -> str:
        return f"<Share of {self.most}>"


class InjectedResource:
    """A number in a file, read again when the file has changed or could not be read. It is for tests.

    A file that is gone changes nothing: as in Envoy, what it said last goes on.
    """

    __slots__ = ("_last", "_seen", "filename")

    def __init__(self, filename: str) -> None:
        self.filename = filename
        self._seen: tuple[int, int, int] | None = None
        self._last = 0.0

    def pressure(self) -> float:
        try:
            status = os.stat(self.filename)
        except OSError:
            if self._seen is None:
                raise
            return self._last
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            with open(self.filename, encoding="ascii", errors="replace") as file:
                self._last = _share(file.read().strip())
            self._seen = seen
        return self._last

    def __repr__(self) -> str:
        return f"<InjectedResource {self.filename}: {self._last}>"


class CpuUtilization:
    """How busy the machine's processors are, dampened as in Envoy: one part in twenty is new at each look."""

    __slots__ = ("_all", "_busy", "_dampened", "read")

    def __init__(self, read: Callable[[], Sequence[int]] | None = None) -> None:
        self.read = read or processor_times
        self._busy, self._all = _busy_of(self.read())
        self._dampened = 0.0

    def pressure(self) -> float:
        busy, everything = _busy_of(self.read())
        passed = everything - self._all
        if passed > 0:
            self._dampened += _DAMPING * ((busy - self._busy) / passed - self._dampened)
            self._busy, self._all = busy, everything
        return self._dampened

    def __repr__(self) -> str:
        return f"<CpuUtilization {self._dampened:.0%}>"


def processor_times() -> Sequence[int]:
    """The times of all processors together, user, nice, system, idle and so on, since the machine started."""
    with open(_PROCESSORS, encoding="ascii") as file:
        return [int(word) for word in file.readline().split()[1:]]


def _busy_of(times: Sequence[int]) -> tuple[int, int]:
    everything = sum(times[:8])  # what guests use is in user time already
    return everything - times[3] - times[4], everything


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"a pressure is from 0 to 1, and not {text!r}")
    return value


class AcceptQueue:
    """How long connections wait to be accepted, of ``longest`` seconds: the length of the kernel's queues by the rate at which
    they were emptied since the last look.
    """

    __slots__ = ("_at", "_taken", "clock", "longest", "queued", "taken")

    def __init__(
        self, queued: Callable[[], int], taken: Callable[[], int], clock: Callable[[], float], longest: float
    ) -> None:
        self.queued = queued
        self.taken = taken
        self.clock = clock
        self.longest = longest
        self._taken = taken()
        self._at = clock()

    def pressure(self) -> float:
        now, taken = self.clock(), self.taken()
        passed, accepted = now - self._at, taken - self._taken
        self._at, self._taken = now, taken
        waiting = self.queued()
        if not waiting or passed <= 0:
            return 0.0
        return min(1.0, waiting * passed / max(accepted, 1) / self.longest)

    def __repr__(self) -> str:
        return f"<AcceptQueue {self.queued()} waiting>"
