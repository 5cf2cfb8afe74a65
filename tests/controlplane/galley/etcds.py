"""Real etcd servers for tests, on ports of their own and with data in a temporary directory."""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd (Debian's etcd-server)")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


class Etcd:
    """One member. It can be stopped, killed, paused and started again with what it has on disk."""

    def __init__(self, name: str, directory: Path, port: int, peer: int, members: str, *options: str) -> None:
        self.name = name
        self.port = port
        self.scheme = "https" if any(option.startswith("--cert-file") for option in options) else "http"
        self.log = directory / "log"
        url, peer_url = f"{self.scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        self._command = [
            "etcd", "--name", name, "--data-dir", str(directory / "data"), "--listen-client-urls", url,
            "--advertise-client-urls", url, "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--initial-cluster", members, "--heartbeat-interval", "50", "--election-timeout", "500", *options,
        ]  # fmt: skip
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"etcd://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def signal(self, number: int) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self._child is not None and self._child.poll() is None, self.log.read_text()[-2000:]
            with contextlib.suppress(OSError, urllib.error.URLError):
                if self.scheme == "https":
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as response:
                    if b"true" in response.read():
                        return
            time.sleep(0.02)
        raise AssertionError(f"etcd is not healthy: {self.log.read_text()[-2000:]}")


@contextlib.contextmanager
def cluster(count: int = 1, options: Sequence[str] = ()) -> Iterator[list[Etcd]]:
    """A cluster of its own, running."""
    directory = Path(tempfile.mkdtemp(prefix="etcd-"))
    ports = free_ports(2 * count)
    names = [f"m{n}" for n in range(count)]
    members = ",".join(f"{name}=http://127.0.0.1:{ports[2 * n + 1]}" for n, name in enumerate(names))
    etcds = []
    for n, name in enumerate(names):
        (directory / name).mkdir()
        etcds.append(Etcd(name, directory / name, ports[2 * n], ports[2 * n + 1], members, *options))
    try:
        for etcd in etcds:
            etcd.start()
        for etcd in etcds:
            etcd.wait_until_healthy()
        yield etcds
    finally:
        for etcd in etcds:
            etcd.kill()
        shutil.rmtree(directory, ignore_errors=True)


_stack = contextlib.ExitStack()


@functools.cache
def shared() -> Etcd:
    """One that many tests use, each below a prefix of its own, until `stop_shared`."""
    return _stack.enter_context(cluster())[0]


def stop_shared() -> None:
    shared.cache_clear()
    _stack.close()
