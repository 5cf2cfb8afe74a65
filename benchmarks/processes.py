"""Child processes that are pinned to a core, measured through /proc, and never outlive the harness."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_cores = sorted(os.sched_getaffinity(0))

PROXY_CORE = _cores[0]
LOAD_CORE = _cores[-1]
"""Where the load generator and the backend run; the same as PROXY_CORE on a machine with one core."""

_running: dict[int, Child] = {}


class ProcessDied(Exception):
    """A process that should be serving has ended; the message holds the end of what it wrote."""


def _pinned(core: int) -> Callable[[], None]:
    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {core})

    return prepare


class Child:
    """One process in a process group of its own, on one core. A context manager: leaving it ends the whole group.

    `output` is the file that gets its stdout and stderr.
    """

    def __init__(self, command: Sequence[str], *, core: int, output: Path, cwd: Path | None = None) -> None:
        self.command = list(command)
        self.output = output
        with output.open("wb") as sink:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_pinned(core),
            )
        self.pid = self._process.pid
        _running[self.pid] = self

    def __repr__(self) -> str:
        return f"<Child {self.pid} {self.command[0]} {'running' if self.alive() else 'ended'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def alive(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Raise ProcessDied, with the end of its output, if the process has ended."""
        if not self.alive():
            text = self.output.read_text(errors="replace")[-3000:]
            raise ProcessDied(f"{' '.join(self.command)} ended with {self._process.returncode}:\n{text}")

    def interrupt(self, patience_s: float = 10.0) -> None:
        """SIGINT, for recorders that write their file on it, and wait for the end."""
        self._signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)

    def stop(self, patience_s: float = 3.0) -> None:
        """SIGTERM to the group, and SIGKILL to what is left of it after `patience_s` seconds."""
        _running.pop(self.pid, None)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def cpu_us(self) -> float:
        """Microseconds of CPU, user and system, that all threads of the process and of its descendants have used."""
        return sum(_cpu_us(pid) for pid in self._family())

    def memory_kb(self) -> tuple[int, int]:
        """Resident and proportional set size in KB, of the process and its descendants (PSS is RSS where missing)."""
        resident = proportional = 0
        for pid in self._family():
            rss = _field(Path(f"/proc/{pid}/status"), "VmRSS:")
            resident += rss
            proportional += _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") or rss
        return resident, proportional

    def _family(self) -> list[int]:
        family = [self.pid]
        for pid in family:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    family.extend(int(child) for child in children.read_text().split())
        return family


def stay_off_the_proxy_core() -> None:
    """Keep the calling thread, and the threads it starts, on the load core."""
    os.sched_setaffinity(0, {LOAD_CORE})


def run(command: Sequence[str], *, core: int, timeout_s: float, cwd: Path | None = None) -> str:
    """Run a command to its end on `core` and return its stdout.

    Raises subprocess.TimeoutExpired, or ProcessDied when it exits with another status than 0.
    """
    with subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=_pinned(core),
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        raise ProcessDied(f"{' '.join(command)} ended with {process.returncode}:\n{out[-1500:]}{err[-1500:]}")
    return out


def _cpu_us(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * 1e6 / _TICKS_PER_SECOND


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


@atexit.register
def _stop_all() -> None:
    for child in list(_running.values()):
        child.stop(patience_s=0.5)
