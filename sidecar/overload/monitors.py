"""Resource monitors: how much of something is used up, from 0 (nothing) to 1 (all of it).

Source: Envoy's `extensions.resource_monitors`; the event loop's lag and the accept queue are our own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

_LITTLE = 0.001
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


class Steadily:
    """Of so many last ``looks`` the lowest counts: what is over by the next was no overload, but a pause, or a rush."""

    __slots__ = ("_seen", "monitor")

    def __init__(self, monitor: Monitor, looks: int) -> None:
        self.monitor = monitor
        self._seen: deque[float] = deque([0.0] * looks, looks)

    def pressure(self) -> float:
        self._seen.append(self.monitor.pressure())
        return min(self._seen)

    def __repr__(self) -> str:
        return f"<Steadily {self.monitor!r}>"


class QueueWait:
    """How long the last connection in the kernel's queue will wait, if those before it are accepted as quickly as connections
    were lately, while some waited. ``queued`` tells how many wait, ``taken`` how many were accepted so far.

    ``rate`` is that, per second. ``lag``, in seconds, is by how much a turn of the event loop was late lately; a loop that is
    never late has nothing to wait for.
    """

    __slots__ = ("_at", "_queued", "_taken", "clock", "lag", "mean_lag", "queued", "rate", "taken")

    def __init__(
        self,
        clock: Callable[[], float],
        mean_lag: Callable[[], float],
        queued: Callable[[], int],
        taken: Callable[[], int],
    ) -> None:
        self.clock = clock
        self.mean_lag = mean_lag
        self.queued = queued
        self.taken = taken
        self.lag = self.rate = 0.0
        self._at = clock()
        self._queued = self._taken = 0

    def seconds(self) -> float:
        """It, now."""
        self.lag += (self.mean_lag() - self.lag) / 2
        if self.lag <= _LITTLE:
            self._queued = 0
            return 0.0
        now, queued, taken = self.clock(), self.queued(), self.taken()
        passed, accepted = now - self._at, taken - self._taken
        if queued and self._queued and accepted > 0 and passed > 0.0:
            rate = accepted / passed
            self.rate = (self.rate + rate) / 2 if self.rate else rate
        self._at, self._queued, self._taken = now, queued, taken
        return queued / self.rate if self.rate else 0.0

    def __repr__(self) -> str:
        return f"<QueueWait at {self.rate:.0f} connections a second, {self.lag * 1000:.0f} ms late>"
