"""TLS handshakes with `openssl s_time`, several at once, and what the proxy counted of them."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.backends import BODY
from benchmarks.load import FailedRequests, UnreadableOutput
from benchmarks.processes import LOAD_CORE, run
from benchmarks.proxies import Running, counter

CLIENTS = 4
"""Each has one connection at a time."""
_RESUMED_SHARE = 0.95
"""The first connection of each client has nothing to resume."""


def parse_s_time(text: str) -> tuple[int, float]:
    """Connections and bytes read on each, from the report of `openssl s_time`. Raises UnreadableOutput."""
    found = re.search(r"^(\d+) connections in \d+ real seconds, (\d+) bytes read per connection", text, re.MULTILINE)
    if found is None:
        raise UnreadableOutput(f"not a report of openssl s_time:\n{text[-2000:]}")
    return int(found[1]), float(found[2])


def s_time(running: Running, *, seconds: float, resumed: bool) -> tuple[int, float]:
    """Connections with one handshake and one request each, for `seconds`: how many, and the seconds that they took.

    Raises FailedRequests unless what the clients report is what the proxy counted: a handshake and a 2xx for every
    connection, and sessions resumed only, and nearly always, when they were to be.
    """
    command = ["openssl", "s_time", "-reuse" if resumed else "-new", "-connect", f"127.0.0.1:{running.port}"]
    command += ["-www", "/", "-time", str(max(1, round(seconds)))]
    before, started = _Counters.of(running), time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as threads:
        reports = list(threads.map(lambda _: run(command, core=LOAD_CORE, timeout_s=seconds + 60), range(CLIENTS)))
    took = time.perf_counter() - started
    counted = _Counters.of(running) - before
    parsed = [parse_s_time(report) for report in reports]
    connections = sum(count for count, _ in parsed)
    if any(length < len(BODY) for _, length in parsed):
        raise FailedRequests(f"responses of {[length for _, length in parsed]} bytes")
    if not connections <= counted.handshakes == counted.answered <= connections + 2 * CLIENTS:
        raise FailedRequests(f"openssl s_time made {connections} connections, the proxy says {counted}")
    if not (counted.resumed >= _RESUMED_SHARE * counted.handshakes if resumed else counted.resumed == 0):
        raise FailedRequests(f"{counted.resumed} of {counted.handshakes} sessions were resumed")
    return counted.handshakes, took


@dataclass(frozen=True, slots=True)
class _Counters:
    """A proxy's own statistics."""

    handshakes: int
    resumed: int
    answered: int

    @classmethod
    def of(cls, running: Running) -> _Counters:
        ssl = f"listener.127.0.0.1_{running.port}.ssl"
        names = (f"{ssl}.handshake", f"{ssl}.session_reused", "http.ingress.downstream_rq_2xx")
        return cls(*(counter(running, name) for name in names))

    def __sub__(self, other: _Counters) -> _Counters:
        return _Counters(
            self.handshakes - other.handshakes, self.resumed - other.resumed, self.answered - other.answered
        )
