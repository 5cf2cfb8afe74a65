"""What a supervisor (systemd) is told."""

from __future__ import annotations

import logging
import os
import socket
import time

log = logging.getLogger(__name__)


def notify_supervisor(state: str) -> None:
    """Tell systemd (``sd_notify``): ``READY=1``, ``RELOADING=1``, ``STOPPING=1``; nothing without NOTIFY_SOCKET."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if state == "RELOADING=1":
        state += f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect("\0" + path[1:] if path[0] == "@" else path)
            sock.sendall(state.encode())
        except OSError as error:
            log.warning("cannot notify the supervisor at %s: %s", path, error)
