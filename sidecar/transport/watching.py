"""Files that are looked at now and then: whoever depends on one hears when it has changed.

A change is another inode, size or modification time, symbolic links followed: so a file that is replaced, one that is
written to, and a link or a directory of links that is swapped (as Kubernetes does) are all noticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from sidecar.core.timer_wheel import Callback, TimerWheel

_Signature = tuple[int, int, int]

INTERVAL = 1.0
"""Seconds between two looks."""


class FileWatcher:
    """Looks at all watched paths every ``interval`` seconds, as long as there are any."""

    __slots__ = ("_signatures", "_timer", "_watches", "interval", "wheel")

    def __init__(self, wheel: TimerWheel, interval: float = INTERVAL) -> None:
        self.wheel = wheel
        self.interval = interval
        self._watches: dict[FileWatch, None] = {}
        self._signatures: dict[str, _Signature | None] = {}
        self._timer: Callback | None = None

    def watch(self, paths: Iterable[str], changed: Callable[[], None]) -> FileWatch:
        """Call ``changed`` after any of the paths changed from what it is now, once however many did."""
        watch = FileWatch(self, tuple(dict.fromkeys(paths)), changed)
        if watch.paths:
            self._watches[watch] = None
            if self._timer is None:
                self._timer = self.wheel.call_in(self.interval, self.look)
        return watch

    def look(self) -> None:
        """Look at all paths now. The timer does it; tests may."""
        if self._timer is not None:
            self.wheel.cancel(self._timer)
        self._timer = self.wheel.call_in(self.interval, self.look) if self._watches else None
        now: dict[str, _Signature | None] = {}
        for watch in list(self._watches):
            for path in watch.paths:
                if path not in now:
                    now[path] = signature(path)
            watch.compare(now)

    def forget(self, watch: FileWatch) -> None:
        """Look at its paths no more."""
        self._watches.pop(watch, None)

    def close(self) -> None:
        """Look at nothing any more."""
        self._watches.clear()
        if self._timer is not None:
            self.wheel.cancel(self._timer)
            self._timer = None

    def __repr__(self) -> str:
        return f"<FileWatcher of {sum(len(watch.paths) for watch in self._watches)} paths>"


class FileWatch:
    """Some paths that one party depends on."""

    __slots__ = ("changed", "paths", "seen", "watcher")

    def __init__(self, watcher: FileWatcher, paths: tuple[str, ...], changed: Callable[[], None]) -> None:
        self.watcher = watcher
        self.paths = paths
        self.changed = changed
        self.seen = tuple(map(signature, paths))

    def compare(self, now: dict[str, _Signature | None]) -> None:
        """Call ``changed`` if the paths are no longer what they were."""
        seen = tuple(now[path] for path in self.paths)
        if seen != self.seen:
            self.seen = seen
            self.changed()

    def cancel(self) -> None:
        """Hear no more."""
        self.watcher.forget(self)

    def __repr__(self) -> str:
        return f"<FileWatch {', '.join(self.paths)}>"


def signature(path: str) -> _Signature | None:
    """What tells one state of a file or directory from another; None when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
