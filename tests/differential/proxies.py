"""Starting and stopping the two proxies: real Envoy and the subject, each on its own copy of one bootstrap."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.differential.envoy_binary import envoy_binary

REPOSITORY = Path(__file__).resolve().parents[2]
ENVOY = "envoy"
SIDECAR = "sidecar"
START_SECONDS = 30.0  # on a machine that is busy with much else
STOP_SECONDS = 4.0
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class ProxyFailedError(Exception):
    """A proxy did not start or died; the text has the end of its log."""


def subject_kind() -> str:
    """What is compared with Envoy: our sidecar, or by ``MIZZEN_DIFFERENTIAL_SUBJECT=envoy`` a second Envoy."""
    kind = os.environ.get("MIZZEN_DIFFERENTIAL_SUBJECT", SIDECAR)
    if kind not in (ENVOY, SIDECAR):
        raise ValueError(f"MIZZEN_DIFFERENTIAL_SUBJECT is {kind!r}, and can be {ENVOY!r} or {SIDECAR!r}")
    return kind


class FreePorts:
    """Hands out free loopback ports below the range from which the system takes those of outgoing connections.

    Processes that run tests beside each other have a share of them each: what one has found free another may be about to use.
    """

    def __init__(self) -> None:
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        share = 12000 // workers
        self._first = 20000 + share * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self._last = self._first + share - 1
        self._next = random.randrange(self._first, self._last)

    def take(self) -> int:
        while True:
            self._next = self._next + 1 if self._next < self._last else self._first
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self._next))
                except OSError:
                    continue
            return self._next


@dataclass(slots=True)
class Proxy:
    """A running proxy. ``ports`` are its listeners' by name, ``admin`` among them."""

    kind: str
    ports: Mapping[str, int]
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def access_log(self) -> Path:
        return self.directory / "access.log"

    def log(self, characters: int = 3000) -> str:
        """The end of what the process printed."""
        return (self.directory / "process.log").read_text(errors="replace")[-characters:]

    def admin(self, path: str, method: str = "GET") -> tuple[int, Mapping[str, str], str]:
        """Status, headers by lower-cased name, and body of one admin request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["admin"], timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read().decode("latin-1")
        finally:
            connection.close()

    def check(self) -> None:
        """Raise ProxyFailedError when the process is gone."""
        if self.process.poll() is not None:
            raise ProxyFailedError(f"{self.kind} ended with {self.process.returncode}:\n{self.log()}")

    def wait_ready(self) -> None:
        """Return once the admin endpoint says that the proxy is live; ProxyFailedError when it does not in time."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self.check()
            try:
                if self.admin("/ready")[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        self.stop()
        raise ProxyFailedError(f"{self.kind} was not ready in {START_SECONDS:.0f} s:\n{self.log()}")

    def stop(self) -> None:
        """SIGTERM; a proxy that stays is told again, and in the end killed."""
        for attempt in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            self.process.send_signal(attempt)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def launch(kind: str, bootstrap: object, ports: Mapping[str, int], directory: Path) -> Proxy:
    """Start a proxy on a bootstrap; whoever uses it waits until it is ready.

    Raises EnvoyUnavailableError when there is no Envoy.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "bootstrap.json"
    config.write_text(json.dumps(bootstrap, indent=1))
    if kind == ENVOY:
        command = [envoy_binary(), "--config-path", str(config), "--use-dynamic-base-id", "--concurrency", "1"]
        command += ["--log-level", "warning", "--file-flush-interval-msec", "50", "--drain-time-s", "1"]
    else:
        command = [sys.executable, "-m", "sidecar", "--config", str(config), "--drain-time-s", "1"]
        command += ["--xds-state-dir", str(directory / "state")]
    with (directory / "process.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=REPOSITORY, preexec_fn=_end_with_parent
        )
    return Proxy(kind, ports, directory, process)


def start(kind: str, bootstrap: object, ports: Mapping[str, int], directory: Path) -> Proxy:
    """Start a proxy on a bootstrap and wait until it is ready.

    Raises ProxyFailedError with the end of its log, EnvoyUnavailableError when there is no Envoy.
    """
    proxy = launch(kind, bootstrap, ports, directory)
    proxy.wait_ready()
    return proxy


def _end_with_parent() -> None:
    """A test run that is killed leaves no proxy behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
