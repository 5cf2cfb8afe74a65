"""The load generators: how they are called, and what is read from their output."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backends import BODY
from benchmarks.envoy import REPOSITORY
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


def needs(tool: str) -> None:
    """Raises LookupError, which names the tool, when it is not installed."""
    if shutil.which(tool) is None:
        raise LookupError(f"{tool} is not installed")


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


def wrk(
    url: str, *, seconds: float, connections: int = 32, script: Path | None = None, header: str | None = None
) -> Load:
    """As many requests as go through in `seconds`, over `connections` kept alive. Raises FailedRequests on any error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "--timeout", "10s"]
    if script is not None:
        command += ["-s", str(script)]
    if header is not None:
        command += ["-H", header]
    load = parse_wrk(run([*command, url], core=LOAD_CORE, timeout_s=seconds + 60))
    if load.errors:
        raise FailedRequests(f"{load.errors} of {load.requests} requests to {url} failed")
    return load


def constant_rate(port: int, *, rate: float, seconds: float) -> Load:
    """Service calls at `rate` a second, whatever the answers (see constant_rate.py). Raises FailedRequests."""
    command = [sys.executable, "-m", "benchmarks.constant_rate", "--port", str(port), "--rate", f"{rate:.3f}"]
    command += ["--seconds", f"{seconds:g}", "--body-bytes", str(len(BODY))]
    load = Load(**json.loads(run(command, core=LOAD_CORE, timeout_s=seconds + 60, cwd=REPOSITORY)))
    if load.errors:
        raise FailedRequests(f"{load.errors} of {load.requests} requests to port {port} failed")
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
