"""A well-behaved client beside an attack, and what the attack costs the process."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.differential.proxies import Proxy
from tests.grpc.http2_client import Http2Client
from tests.grpc.subjects import eventually

LATENCY = 0.5  # seconds: what its slowest request may take
MEGABYTES = 32  # by which the process may grow at most, at any time; the sidecar grows by 11 at most

PATHS = ("/direct", "/good")


class Bystander:
    """Asks again and again on a connection of its own, one request after another: the proxy itself, and a good upstream
    that nobody else uses. A context manager.

    Leaving it asserts that every request was answered, in good time.
    """

    def __init__(self, port: int) -> None:
        self.client = Http2Client(port)
        self.latencies: list[float] = []
        self.failures: list[object] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.002) and not self.failures:
            began = time.monotonic()
            try:
                status = self.client.get(PATHS[len(self.latencies) % 2]).status
                if status != 200:
                    self.failures.append(status)
            except Exception as error:
                self.failures.append(error)
            self.latencies.append(time.monotonic() - began)

    def more(self, count: int) -> None:
        """Wait until so many more requests have been answered."""
        until = len(self.latencies) + count
        eventually(lambda: len(self.latencies) >= until or self.failures, "more answers", 10)

    def __enter__(self) -> Bystander:
        self._thread.start()
        self.more(5)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.more(5)
        self._over.set()
        self._thread.join(10)
        self.client.close()
        if kind is None:
            assert not self.failures, self.failures
            assert max(self.latencies) < LATENCY, f"the slowest of {len(self.latencies)}: {max(self.latencies):.3f} s"


class Memory:
    """How far a process grows while this is entered. A context manager that asserts a bound and prints the figure."""

    def __init__(self, proxy: Proxy, megabytes: float = MEGABYTES) -> None:
        self.of = Path(f"/proc/{proxy.process.pid}")
        self.kind = proxy.kind
        self.most = megabytes
        self.before = 0.0

    def read(self, name: str) -> float:
        """``VmRSS`` or its peak ``VmHWM``, in MB."""
        for line in (self.of / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {name} of {self.of}")

    def __enter__(self) -> Memory:
        (self.of / "clear_refs").write_text("5")  # the peak begins anew
        self.before = self.read("VmRSS")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        peak, after = self.read("VmHWM"), self.read("VmRSS")
        text = f"{self.kind}: {self.before:.1f} MB before, {peak:.1f} at most, {after:.1f} after"
        print(text)
        if kind is None:
            assert peak - self.before < self.most, text
