"""Files of access logs: lines are collected on the loop, and one thread writes them, so that no disk blocks the loop.

A file is handed to the thread when 256 lines have come together, and once a second. When the disk does not keep up, what
exceeds a bound of memory is dropped and counted. Source of the statistics: Envoy's "File system statistics".
"""

from __future__ import annotations

import logging
import os
import select
import threading
from queue import SimpleQueue
from typing import TypeAlias

from sidecar.core.timer_wheel import Callback, TimerWheel

from .groups.server import FilesystemStats

log = logging.getLogger("sidecar.telemetry")

FLUSH_LINES = 256
FLUSH_INTERVAL = 1.0
MAX_UNWRITTEN = 16 * 1024 * 1024
_STANDARD_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_PATIENCE = 1000  # milliseconds that a full pipe may take to have room again


class LogFile:
    """One file, shared by all loggers that name it. `write` belongs to the loop's thread.

    `handed_over` and `done` count octets given to the thread and finished by it; each has one writer only.
    """

    __slots__ = ("_files", "_lines", "done", "fd", "handed_over", "path")

    def __init__(self, path: str, files: LogFiles) -> None:
        self.path = path
        self.fd = _open(path)
        self._files = files
        self._lines: list[bytes] = []
        self.handed_over = 0
        self.done = 0

    def write(self, line: bytes) -> None:
        """Add a line (with its line break) to what will be written."""
        lines = self._lines
        lines.append(line)
        if len(lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Hand what was collected to the thread, or drop it if the thread is too far behind."""
        lines = self._lines
        if not lines:
            return
        stats = self._files.stats
        size, self._lines = sum(map(len, lines)), []
        stats.write_buffered += len(lines)
        if self.handed_over - self.done + size > MAX_UNWRITTEN:
            stats.write_failed += len(lines)
            return
        self.handed_over += size
        self._files.hand_over(self, lines)

    @property
    def buffered(self) -> int:
        """Octets that are not written yet."""
        return sum(map(len, self._lines)) + self.handed_over - self.done

    def __repr__(self) -> str:
        return f"<LogFile {self.path} {self.buffered} octets buffered>"


_Job: TypeAlias = tuple[LogFile, list[bytes] | None]


class LogFiles:
    """All log files of the process by path, and the thread that writes them. Belongs to the loop's thread."""

    def __init__(self, stats: FilesystemStats, wheel: TimerWheel | None = None) -> None:
        self.stats = stats
        self._wheel = wheel
        self._timer: Callback | None = None
        self._files: dict[str, LogFile] = {}
        self._writer: _Writer | None = None
        self._published = (0, 0, 0)

    def open(self, path: str) -> LogFile:
        """The file at `path`, opened for appending unless it is already. Raises OSError."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = LogFile(path, self)
            if self._wheel is not None and self._timer is None:
                self._timer = self._wheel.call_in(FLUSH_INTERVAL, self._on_timer)
        return file

    def hand_over(self, file: LogFile, lines: list[bytes] | None) -> None:
        """Have the thread write `lines`, or open the file anew when there are None."""
        if self._writer is None:
            self._writer = _Writer()
            self._writer.start()
        self._writer.jobs.put((file, lines))

    def flush(self) -> None:
        """Hand over what all files have collected, and bring the statistics up to date."""
        for file in self._files.values():
            file.flush()
        self.publish()

    def publish(self) -> None:
        """Bring the statistics up to date: what the thread counted, and the octets that are buffered."""
        stats, writer = self.stats, self._writer
        stats.write_total_buffered = sum(file.buffered for file in self._files.values())
        if writer is not None:
            counted = (writer.completed, writer.failed, writer.reopen_failed)
            before, self._published = self._published, counted
            stats.write_completed += counted[0] - before[0]
            stats.write_failed += counted[1] - before[1]
            stats.reopen_failed += counted[2] - before[2]

    def reopen(self) -> None:
        """Open every file anew, after what was logged so far went to the old one: for log rotation."""
        for file in self._files.values():
            file.flush()
            if file.path not in _STANDARD_STREAMS:
                self.hand_over(file, None)

    def close(self, patience: float = 5.0) -> None:
        """Write what is left, for `patience` seconds at most, and close the files."""
        if self._timer is not None and self._wheel is not None:
            self._wheel.cancel(self._timer)
            self._timer = None
        self.flush()
        if self._writer is not None:
            self._writer.jobs.put(None)
            self._writer.join(patience)
            if self._writer.is_alive():
                log.error("access logs could not be written within %s s; their last lines are lost", patience)
                return
        self.publish()
        for file in self._files.values():
            os.close(file.fd)
        self._files.clear()

    def _on_timer(self) -> None:
        assert self._wheel is not None
        self._timer = self._wheel.call_in(FLUSH_INTERVAL, self._on_timer)
        self.stats.flushed_by_timer += 1
        self.flush()

    def __repr__(self) -> str:
        return f"<LogFiles {len(self._files)} open>"


class _Writer(threading.Thread):
    """The thread. Its counters have no other writer; the loop adds what is new in them to the statistics."""

    def __init__(self) -> None:
        super().__init__(name="access-log-writer", daemon=True)
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.completed = 0
        self.failed = 0
        self.reopen_failed = 0
        self._failing: set[str] = set()

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            # What has queued up meanwhile is written with it: the interpreter lock may be long in coming each time.
            waiting: dict[LogFile, list[bytes]] = {}
            while job is not None:
                file, lines = job
                if lines is None:
                    self._write_all(waiting)
                    self._reopen(file)
                else:
                    waiting.setdefault(file, []).extend(lines)
                if self.jobs.empty():
                    break
                job = self.jobs.get()
            self._write_all(waiting)
            if job is None:
                return

    def _write_all(self, waiting: dict[LogFile, list[bytes]]) -> None:
        for file, lines in waiting.items():
            self._write(file, b"".join(lines))
        waiting.clear()

    def _write(self, file: LogFile, data: bytes) -> None:
        try:
            _write_all(file.fd, data)
            self.completed += 1
            self._failing.discard(file.path)
        except OSError as error:
            self.failed += 1
            if file.path not in self._failing:
                self._failing.add(file.path)
                log.error("cannot write the access log %s: %s", file.path, error.strerror or error)
        file.done += len(data)

    def _reopen(self, file: LogFile) -> None:
        try:
            fd = _open(file.path)
        except OSError as error:
            self.reopen_failed += 1
            log.error("cannot reopen the access log %s: %s", file.path, error.strerror or error)
            return
        file.fd, old = fd, file.fd
        os.close(old)


def _open(path: str) -> int:
    standard = _STANDARD_STREAMS.get(path)
    if standard is not None:
        return os.dup(standard)  # opening the path fails where the stream is a socket
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if not poll.poll(_PATIENCE):
                raise
