"""``python -m sidecar.lifecycle.stand_in``: what the process that was started first becomes when it has drained.

A supervisor (systemd, a container's runtime, a shell) knows that process and no other. So it stays, as little as it can be:
it passes signals on to the process that serves now, and ends with it, with its exit status.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def become_stand_in() -> None:
    """Replace this process by its stand-in; signals that come meanwhile wait for it. Does not return."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
    os.execv(sys.executable, [sys.executable, "-m", "sidecar.lifecycle.stand_in"])


def main() -> int:
    """Wait for the descendants; the exit status of the last."""
    from sidecar.lifecycle.children import children

    signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
    status = 0
    while True:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, ended = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                status = os.waitstatus_to_exitcode(ended)
        if not children():
            return status if status >= 0 else 128 - status
        number = signal.sigwait((*PASSED_ON, signal.SIGCHLD))
        if number != signal.SIGCHLD:
            for pid in children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main())
