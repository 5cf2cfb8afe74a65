"""The load generators: how they are called, and what is read from their output."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, run

SERVICE_CALL = Path(__file__).parent / "traffic" / "service_call.lua"
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
_BYTES = {"B": 1.0, "KB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3}


class UnreadableOutput(ValueError):
    """A load generator wrote something that is not its usual report."""


class FailedRequests(Exception):
    """A run had errors, so that its figures would not compare."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a load generator reports. Latencies in milliseconds, rates per second."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    bytes_read: float = 0.0
    errors: int = 0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def _match(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise UnreadableOutput(f"no line like {pattern!r} in:\n{text}")
    return found


def _latency(text: str, percentile: int) -> float:
    found = _match(rf"^\s*{percentile}%\s+([\d.]+)(us|ms|s|m|h)\s*$", text)
    return float(found[1]) * _MILLISECONDS[found[2]]


def parse_wrk(text: str) -> Load:
    """Read the report of `wrk --latency`. Raises UnreadableOutput."""
    total = _match(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h), ([\d.]+)(B|KB|MB|GB) read", text)
    errors = 0
    if socket_errors := re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text):
        errors += sum(int(count) for count in socket_errors.groups())
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        errors += int(bad[1])
    return Load(
        requests=int(total[1]),
        seconds=float(total[2]) * _MILLISECONDS[total[3]] / 1000.0,
        p50_ms=_latency(text, 50),
        p99_ms=_latency(text, 99),
        bytes_read=float(total[4]) * _BYTES[total[5]],
        errors=errors,
    )


def wrk(url: str, *, seconds: float, connections: int = 32, script: Path | None = None) -> Load:
    """As many requests as go through in `seconds`, over `connections` kept alive. Raises FailedRequests on any error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "--timeout", "10s"]
    if script is not None:
        command += ["-s", str(script)]
    load = parse_wrk(run([*command, url], core=LOAD_CORE, timeout_s=seconds + 60))
    if load.errors:
        raise FailedRequests(f"{load.errors} of {load.requests} requests to {url} failed")
    return load


def parse_h2load_log(text: str) -> Load:
    """Read the file of `h2load --log-file`: start in microseconds, status, microseconds to the end of the response.

    A request that failed has status -1 or above 399. Raises UnreadableOutput.
    """
    starts: list[int] = []
    durations: list[int] = []
    errors = 0
    for line in text.splitlines():
        try:
            start, status, duration = (int(field) for field in line.split("\t")[:3])
        except ValueError as error:
            raise UnreadableOutput(f"not a line of h2load's log: {line!r}") from error
        errors += not 200 <= status < 400
        starts.append(start)
        durations.append(duration)
    if len(starts) < 2:
        raise UnreadableOutput("h2load logged fewer than two requests")
    durations.sort()
    return Load(
        requests=len(starts),
        seconds=(max(starts) - min(starts)) / 1e6,
        p50_ms=durations[len(durations) // 2] / 1000.0,
        p99_ms=durations[len(durations) * 99 // 100] / 1000.0,
        errors=errors,
    )


def h2load(
    url: str, *, rate: float, seconds: float, directory: Path, headers: Sequence[str] = (), connections: int = 32
) -> Load:
    """`rate` requests a second for `seconds`, spread over HTTP/1.1 `connections`. Raises FailedRequests on any error."""
    log = directory / "h2load.log"
    log.unlink(missing_ok=True)
    per_connection = max(1, round(rate / connections))
    command = ["h2load", "--h1", "-t1", f"-c{connections}", "-m1", f"--rps={per_connection}", f"--log-file={log}"]
    command += [f"-n{round(per_connection * connections * seconds)}"]
    for header in headers:
        command += ["-H", header]
    run([*command, url], core=LOAD_CORE, timeout_s=seconds * 3 + 60)
    load = parse_h2load_log(log.read_text())
    if load.errors:
        raise FailedRequests(f"{load.errors} of {load.requests} requests to {url} failed")
    return load


def parse_iperf3(text: str) -> tuple[float, float]:
    """Bits per second that the receiver got, and the bytes received, from `iperf3 --json`. Raises UnreadableOutput."""
    try:
        received = json.loads(text)["end"]["sum_received"]
        return float(received["bits_per_second"]), float(received["bytes"])
    except (KeyError, ValueError) as error:
        raise UnreadableOutput(f"not a report of iperf3: {text[:500]}") from error


def iperf3(port: int, *, seconds: float) -> tuple[float, float]:
    """One TCP stream to `port` on loopback: bits per second and bytes, as the receiver counted them."""
    command = ["iperf3", "--client", "127.0.0.1", "--port", str(port), "--time", str(max(1, round(seconds))), "--json"]
    return parse_iperf3(run(command, core=LOAD_CORE, timeout_s=seconds + 30))
