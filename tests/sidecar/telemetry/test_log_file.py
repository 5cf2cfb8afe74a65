"""Files of access logs: what is written when, rotation, full disks, the end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.core.timer_wheel import TimerWheel
from sidecar.telemetry import log_file
from sidecar.telemetry.groups.server import FilesystemStats
from sidecar.telemetry.log_file import FLUSH_LINES, LogFiles


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "not in 10 s"
        time.sleep(0.002)


@pytest.fixture
def files() -> LogFiles:
    return LogFiles(FilesystemStats())


def test_lines_are_appended_in_order_and_counted(files: LogFiles, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    file = files.open(str(path))
    for number in range(200):
        file.write(b"%d\n" % number)
    files.publish()
    assert files.stats.write_total_buffered == file.buffered == 690
    assert path.read_bytes() == b"before\n"
    files.close()
    assert path.read_bytes() == b"before\n" + b"".join(b"%d\n" % number for number in range(200))
    stats = files.stats
    assert (stats.write_buffered, stats.write_completed, stats.write_failed) == (200, 1, 0)
    assert stats.write_total_buffered == 0


def test_enough_lines_are_written_without_a_timer(files: LogFiles, tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = files.open(str(path))
    line = b"x" * 1023 + b"\n"
    for _ in range(FLUSH_LINES - 1):
        file.write(line)
    assert file.handed_over == 0
    file.write(line)
    until(lambda: path.stat().st_size == FLUSH_LINES * 1024)
    files.close()


def test_one_path_is_one_file(files: LogFiles, tmp_path: Path) -> None:
    first, second = files.open(str(tmp_path / "log")), files.open(str(tmp_path / "log"))
    assert first is second
    assert files.open(str(tmp_path / "other")) is not first
    files.close()


def test_a_file_that_cannot_be_opened(files: LogFiles, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.open(str(tmp_path / "missing" / "log"))


def test_the_timer_flushes_every_second(tmp_path: Path) -> None:
    import asyncio

    now = 100.0
    loop = asyncio.new_event_loop()
    wheel = TimerWheel(loop, lambda: now)
    files = LogFiles(FilesystemStats(), wheel)
    path = tmp_path / "log"
    files.open(str(path)).write(b"line\n")
    for at, size in ((100.5, 0), (101.1, 5), (102.2, 5)):
        now = at
        wheel.advance()
        until(lambda size=size: path.stat().st_size == size)  # type: ignore[misc]
    assert files.stats.flushed_by_timer == 2
    files.close()
    assert len(wheel) == 0
    wheel.close()
    loop.close()


def test_reopening_for_rotation(files: LogFiles, tmp_path: Path) -> None:
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    file = files.open(str(path))
    file.write(b"old\n")
    path.rename(rotated)
    files.reopen()
    file.write(b"new\n")
    files.close()
    assert rotated.read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_file_that_cannot_be_reopened_stays_open(files: LogFiles, tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    file = files.open(str(directory / "log"))
    directory.rename(tmp_path / "moved")
    files.reopen()
    file.write(b"line\n")
    files.close()
    assert files.stats.reopen_failed == 1
    assert (tmp_path / "moved" / "log").read_bytes() == b"line\n"


def test_a_full_disk_costs_lines_and_is_counted(files: LogFiles) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    file = files.open("/dev/full")
    file.write(b"line\n")
    files.close()
    assert (files.stats.write_failed, files.stats.write_completed) == (1, 0)
    assert file.buffered == 0


def test_memory_is_bounded_when_nothing_can_be_written(
    files: LogFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "MAX_UNWRITTEN", 4 * FLUSH_LINES * 1024)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = files.open(str(path))
    line = b"x" * 1023 + b"\n"
    for _ in range(100 * FLUSH_LINES):
        file.write(line)
        assert file.buffered <= 5 * FLUSH_LINES * 1024
    dropped = files.stats.write_failed
    assert dropped > 90 * FLUSH_LINES
    written = 0

    def drained() -> bool:
        nonlocal written
        with contextlib.suppress(BlockingIOError):
            written += len(os.read(reader, 1 << 20))
        return file.buffered == 0

    until(drained)
    while drained() and (more := _pending(reader)):
        written += more
    files.close()
    os.close(reader)
    assert written == (100 * FLUSH_LINES - dropped) * 1024


def _pending(reader: int) -> int:
    try:
        return len(os.read(reader, 1 << 20))
    except BlockingIOError:
        return 0


def test_closing_does_not_wait_for_ever(files: LogFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = files.open(str(path))
    file.write(b"x" * (1 << 20))
    files.close(patience=0.05)
    assert "could not be written" in caplog.text
    os.close(reader)  # the thread's write fails now, and it ends


def test_standard_output(files: LogFiles, capfd: pytest.CaptureFixture[str]) -> None:
    files.open("/dev/stdout").write(b"out\n")
    files.open("/dev/stderr").write(b"err\n")
    files.reopen()
    files.close()
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_pipe_that_does_not_block_is_waited_for(files: LogFiles, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = files.open(str(path))
    os.set_blocking(file.fd, False)
    size = 1 << 20
    file.write(b"x" * size)
    file.flush()
    read = 0

    def all_read() -> bool:
        nonlocal read
        read += _pending(reader)
        return read == size

    until(all_read)
    files.close()
    os.close(reader)
    assert files.stats.write_failed == 0
