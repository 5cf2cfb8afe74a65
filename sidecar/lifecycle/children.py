"""Processes that this one starts with its own command line: the next epoch, and workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from sidecar.lifecycle.environment import HANDOVER, WORKER

_OURS = (HANDOVER, WORKER)


class Child:
    """A process with our command line. ``on_exit`` is called in the loop with its exit status (negative for a signal)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        environment: Mapping[str, str],
        descriptors: tuple[int, ...],
        on_exit: Callable[[int], None],
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in _OURS}
        self._process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]], env={**kept, **environment}, pass_fds=descriptors
        )
        self.pid = self._process.pid
        self._loop = loop
        self._on_exit = on_exit
        self._watch = os.pidfd_open(self.pid)
        loop.add_reader(self._watch, self._ended)

    def _ended(self) -> None:
        status = self._process.wait()
        self.forget()
        self._on_exit(status)

    def send(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    @property
    def running(self) -> bool:
        return self._watch >= 0 and self._process.poll() is None

    def forget(self) -> None:
        """Let it live on unobserved."""
        if self._watch >= 0:
            self._loop.remove_reader(self._watch)
            os.close(self._watch)
            self._watch = -1
            self._process.returncode = (
                self._process.returncode or 0
            )  # nothing is to be said of it when this object goes

    def __repr__(self) -> str:
        return f"<Child {self.pid}>"


def children() -> list[int]:
    """The process ids of all our children, adopted ones included."""
    return children_of(os.getpid())


def children_of(pid: int) -> list[int]:
    """Those of a process, in the order in which they came."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def adopt_descendants() -> None:
    """Become the parent of those whose parents end before them (PR_SET_CHILD_SUBREAPER)."""
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
