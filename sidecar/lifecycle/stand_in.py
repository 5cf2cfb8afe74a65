"""``python -m sidecar.lifecycle.stand_in``: what the process that was started first becomes when it has drained.

A supervisor (systemd, a container's runtime, a shell) knows that process and no other. So it stays, as little as it can be:
it passes signals on to the process that serves now, and ends with it, with its exit status.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

_LAST_REQUESTS = 1.0
"""Seconds for requests that are under way in processes that drain while nothing listens any more."""

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def become_stand_in() -> None:
    """Replace this process by its stand-in; signals that come meanwhile wait for it. Does not return."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
    os.execv(sys.executable, [sys.executable, "-m", "sidecar.lifecycle.stand_in"])


def main() -> int:
    """Wait for the descendants; the exit status of the one that served last.

    That is the youngest: those that are older drain. When it fails, nothing listens any more; then the others are asked to end,
    and soon told to, so that whoever waits for this process hears of it.
    """
    from sidecar.lifecycle.children import children

    signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
    known = _by_age(children())
    failed = 0
    status = 0
    while True:
        known = {**known, **_by_age(children())}
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, ended = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                code = os.waitstatus_to_exitcode(ended)
                born = known.pop(pid, 0)
                if code and all(born > other for other in known.values()):
                    failed = code
                elif not failed:
                    status = code
        left = children()
        if not left:
            status = failed or status
            return status if status >= 0 else 128 - status
        if failed:
            _send(left, signal.SIGTERM)
            waited = signal.sigtimedwait((signal.SIGCHLD,), _LAST_REQUESTS)
            if waited is None:
                _send(left, signal.SIGKILL)
            continue
        number = signal.sigwait((*PASSED_ON, signal.SIGCHLD))
        if number != signal.SIGCHLD:
            _send(children(), signal.Signals(number))


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _by_age(pids: list[int]) -> dict[int, int]:
    """When each of these processes was started, in the system's ticks."""
    born = {}
    for pid in pids:
        with (
            contextlib.suppress(OSError, IndexError),
            open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file,
        ):
            born[pid] = int(file.read().rpartition(")")[2].split()[19])
    return born


if __name__ == "__main__":
    sys.exit(main())
