"""The wall clock of a process that runs, set forward and back from outside, as ntpd or a waking machine does."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler, for the clock of another process")


class WallClock:
    """Processes that are started while ``monkeypatch`` holds have this clock; their monotonic one runs as ever."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, ahead: int = 0) -> None:
        assert COMPILER is not None
        library, path = directory / "wall_clock.so", directory / "wall_clock"
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_suffix(".c")],
            check=True,
            timeout=60,
        )
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._seconds = mmap.mmap(file.fileno(), 8)
        self.set(ahead)
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setenv("WALL_CLOCK_FILE", str(path))

    def set(self, ahead: int) -> None:
        """Be so many seconds ahead of the real one, or behind it."""
        self._seconds[:] = struct.pack("=q", ahead)
