"""Processes that this one starts with its own command line: the next epoch, and workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from sidecar.lifecycle.environment import BASE_ID, HANDOVER, STOOD_FOR, WORKER

_OF_ONE = (HANDOVER, WORKER, BASE_ID)


class Watch:
    """Calls ``on_end`` in the loop, once, when a process has ended; a ProcessLookupError if there is none with this id.

    By a descriptor where the system has those for processes, else by ``wait`` in a thread, which waits for its end; without
    ``wait``, for a process that is no child of ours, it is not noticed then.
    """

    __slots__ = ("_descriptor", "_loop", "_on_end")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pid: int,
        on_end: Callable[[], None],
        wait: Callable[[], object] | None = None,
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self._descriptor = process_descriptor(pid)
        if self._descriptor >= 0:
            loop.add_reader(self._descriptor, self._ended)
        elif wait is not None:
            threading.Thread(target=self._wait, args=(wait,), daemon=True, name=f"waits for {pid}").start()

    def _wait(self, wait: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to hear of it
            self._loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._on_end()

    def __repr__(self) -> str:
        return f"<Watch {'by descriptor' if self._descriptor >= 0 else 'by thread, or over'}>"


def process_descriptor(pid: int) -> int:
    """A descriptor that is readable when a process has ended (``pidfd_open``), or -1 where there is none to be had: on an old
    kernel, under a filter of system calls, without room for another descriptor. Raises ProcessLookupError.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):
        return -1


class Child:
    """A process with our command line. ``on_exit`` is called in the loop with its exit status (negative for a signal)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        environment: Mapping[str, str],
        descriptors: tuple[int, ...],
        on_exit: Callable[[int], None],
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in _OF_ONE}
        self._process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]], env={**kept, **environment}, pass_fds=descriptors
        )
        self.pid = self._process.pid
        self._on_exit = on_exit
        self._watch = Watch(loop, self.pid, self._ended, self._process.wait)

    def _ended(self) -> None:
        self._on_exit(self._process.wait())

    def send(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    def __repr__(self) -> str:
        return f"<Child {self.pid}>"


class Adopted:
    """A child that one of ours has started and left behind. ``on_exit`` as for a ``Child``. Raises ProcessLookupError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pid: int, on_exit: Callable[[int], None]) -> None:
        self.pid = pid
        self._status: int | None = None
        self._on_exit = on_exit
        self._watch = Watch(loop, pid, self._ended, self._wait)

    def _wait(self) -> int:
        if self._status is None:
            try:
                self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                self._status = 0
        return self._status

    def _ended(self) -> None:
        self._on_exit(self._wait())

    def send(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def __repr__(self) -> str:
        return f"<Adopted {self.pid}>"


def children() -> list[int]:
    """The process ids of all our children, adopted ones included; none where the system does not tell."""
    return children_of(os.getpid())


def children_of(pid: int) -> list[int]:
    """Those of a process, in the order in which they came."""
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def can_stand_in() -> bool:
    """Whether the system lets the first process find and adopt its descendants, as a restart by SIGHUP needs (Linux does)."""
    return sys.platform == "linux" and os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def adopt_descendants() -> None:
    """Become the parent of those whose parents end before them (PR_SET_CHILD_SUBREAPER)."""
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def first_process() -> int:
    """The id of the process that was started first and stands in for this one; this one's if there was none before."""
    return int(os.environ.get(STOOD_FOR, os.getpid()))
