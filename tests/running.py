"""Real processes in tests: started, watched by what they print, and never left behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class Process:
    """A Python module run as ``python -m``, with the repository as its working directory. A context manager. ``prefix`` is
    a command that runs it.

    ``output`` has what it printed so far, standard error included. Leaving the context kills it if it still runs, and
    what it has started.
    """

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.output = ""
        self._changed = threading.Condition()
        self.child = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self._changed:
                self.output += line
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, text: str, timeout: float = 20.0) -> str:
        """Return the output once it contains ``text``; AssertionError when the process ends or time is up first."""
        with self._changed:
            found = self._changed.wait_for(lambda: text in self.output or not self._reader.is_alive(), timeout)
        assert found and text in self.output, f"{text!r} was not printed:\n{self.output}"
        return self.output

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.child.send_signal(number)

    def end(self, timeout: float = 20.0) -> int:
        """Wait for the end; the exit status. AssertionError when time is up."""
        try:
            status = self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.output}") from None
        self._reader.join(5)
        return status

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.child.poll() is None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # what it has started, too
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self._reader.join(5)
        assert self.child.stdout is not None
        self.child.stdout.close()


def free_ports(count: int) -> list[int]:
    """Different TCP ports on loopback that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def free_range(count: int) -> int:
    """The first of ``count`` neighbouring TCP ports on loopback that nothing listens on now."""
    while True:
        (first,) = free_ports(1)
        if first + count < 65536 and all(is_free(port) for port in range(first, first + count)):
            return first


def is_free(port: int) -> bool:
    """Whether nothing listens on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def get(port: int, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of one GET; underscores in header names become hyphens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read().decode()
    finally:
        connection.close()


def until(condition: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
    """Wait for a condition; AssertionError with ``what`` when time is up."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)
