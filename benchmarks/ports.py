"""Free ports on loopback, and waiting until something answers on one."""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path

from benchmarks.processes import Child


class NotReady(Exception):
    """A process did not answer in time."""


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def status(port: int, path: str, timeout_s: float = 1.0) -> int | None:
    """The status of one GET, or None while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def get(port: int, path: str, timeout_s: float = 60.0) -> bytes:
    """The body of one GET that must be answered with 200. Raises NotReady otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"GET {path} on port {port}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise NotReady(f"GET {path} on port {port} answered {response.status}")
    return body


def wait_until_ok(child: Child, port: int, path: str, timeout_s: float = 30.0) -> None:
    """Return when `path` answers 200. Raises ProcessDied when `child` has ended, NotReady when time is up."""
    deadline = time.monotonic() + timeout_s
    while status(port, path) != 200:
        child.check()
        if time.monotonic() > deadline:
            raise NotReady(f"{child!r} does not answer {path} on port {port} after {timeout_s:g} s")
        time.sleep(0.002)


def wait_until_listening(child: Child, port: int, timeout_s: float = 10.0) -> None:
    """Return when a socket listens on `port`, without connecting to it: iperf3 takes any connection for a test."""
    wanted = f":{port:04X}"
    deadline = time.monotonic() + timeout_s
    while True:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        if any(row[1].endswith(wanted) and row[3] == "0A" for row in rows):
            return
        child.check()
        if time.monotonic() > deadline:
            raise NotReady(f"{child!r} does not listen on port {port} after {timeout_s:g} s")
        time.sleep(0.01)
