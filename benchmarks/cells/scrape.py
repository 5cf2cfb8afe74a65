"""What a scrape of 100,000 series does to the requests that pass meanwhile."""

from __future__ import annotations

import re
import socket
import threading
import time

from benchmarks.backends import BODY, nginx_backend
from benchmarks.context import Context
from benchmarks.generated import large_configuration
from benchmarks.ports import NotReady, get
from benchmarks.processes import ProcessDied
from benchmarks.proxies import OURS, Running, serving
from benchmarks.results import Better, Figure, Row, Target

SLICE = Figure("loop_slice_ms", "ms longest loop slice", Better.LOWER)
_LAG = re.compile(r"^[\w.]*loop_lag\w*(?:\.max)?: (?P<value>[\d.]+)$", re.MULTILINE)
_REQUEST = b"GET / HTTP/1.1\r\nhost: orders.shop.svc.cluster.local\r\n\r\n"


class Prober(threading.Thread):
    """Sends one request after the other on one connection; `longest_ms` is the slowest answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._client = socket.create_connection(("127.0.0.1", port), 30)
        self._ended = threading.Event()
        self.latencies_ms: list[float] = []

    def run(self) -> None:
        with self._client:
            while not self._ended.is_set():
                began = time.perf_counter()
                self._client.sendall(_REQUEST)
                answer = b""
                while not answer.endswith(BODY.encode()):
                    part = self._client.recv(65536)
                    if not part:
                        return
                    answer += part
                self.latencies_ms.append((time.perf_counter() - began) * 1000)
                time.sleep(0.0005)

    def end(self) -> float:
        """Stop, and return the longest latency in milliseconds. Raises NotReady when nothing was answered."""
        self._ended.set()
        self.join(30)
        if not self.latencies_ms:
            raise NotReady("no request was answered during the scrape")
        return max(self.latencies_ms)


def loop_lag_ms(stats: str) -> float | None:
    """The longest loop slice in milliseconds, from the `..loop_lag..` gauges of /stats; None where there are none.

    With several such gauges (a last value and a maximum) the largest counts.
    """
    values = [float(found["value"]) for found in _LAG.finditer(stats)]
    return max(values, default=None)


def series(exposition: bytes) -> int:
    """How many samples a Prometheus text has."""
    return sum(1 for line in exposition.splitlines() if line and not line.startswith(b"#"))


def _scrape(running: Running, scrapes: int) -> dict[str, float]:
    get(running.admin_port, "/stats/prometheus")
    baseline = Prober(running.port)
    baseline.start()
    time.sleep(1.0)
    quiet = baseline.end()
    prober = Prober(running.port)
    prober.start()
    began = time.perf_counter()
    count = 0
    for _ in range(scrapes):
        count = series(get(running.admin_port, "/stats/prometheus"))
    seconds = (time.perf_counter() - began) / scrapes
    figures = {"series": float(count), "scrape_s": seconds, "stall_ms": prober.end(), "quiet_ms": quiet}
    lag = loop_lag_ms(get(running.admin_port, "/stats").decode(errors="replace"))
    if lag is not None:
        figures["loop_slice_ms"] = lag
    return figures


def scrape(context: Context) -> list[Row]:
    """The longest slice of our loop during scrapes of the large configuration, from the sidecar's own metric.

    For every proxy the note has the number of series, how long one scrape took, and the slowest of the requests that
    went through meanwhile (beside the slowest of a second without a scrape): the same thing, seen from outside.
    """
    rows = []
    with nginx_backend(context.directory) as backend:
        for proxy in context.supporting("mesh_filters"):
            try:
                with serving(
                    proxy, "route_only", context.directory, backend.substitutions(), template=large_configuration()
                ) as running:
                    figures = _scrape(running, max(1, context.rounds))
            except (ProcessDied, NotReady, OSError) as error:
                context.problem(f"{proxy.name} is not scraped: {error}")
                continue
            note = (
                f"{figures['series']:,.0f} series in {figures['scrape_s']:.2f} s; slowest request meanwhile "
                f"{figures['stall_ms']:.1f} ms, without a scrape {figures['quiet_ms']:.1f} ms"
            )
            if proxy.name == OURS and "loop_slice_ms" not in figures:
                note += "; loop-lag metric not available"
            context.say(f"scrape {proxy.name}: {note}")
            target = Target("≤ 5 ms", limit=5.0) if proxy.name == OURS else None
            rows.append(Row("scrape", proxy.name, SLICE, figures, target, (), note))
    return rows
