"""h2load: how it is called, and what is read from its report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import FailedRequests, UnreadableOutput
from benchmarks.processes import LOAD_CORE, run


@dataclass(frozen=True, slots=True)
class Shape:
    """`connections`, each with up to `streams` requests at a time."""

    connections: int
    streams: int


@dataclass(frozen=True, slots=True)
class Report:
    """What one run says of itself: requests answered with 2xx, those that were not, and the bytes of their bodies."""

    requests: int
    failures: int
    seconds: float
    data_bytes: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def parse(text: str) -> Report:
    """Read a report of h2load. Raises UnreadableOutput."""
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m),", text, re.MULTILINE)
    totals = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    statuses = re.search(r"^status codes: (\d+) 2xx", text, re.MULTILINE)
    data = re.search(r"savings [\d.-]+%\), \S+ \((\d+)\) data", text)
    if finished is None or totals is None or statuses is None or data is None:
        raise UnreadableOutput(f"not a report of h2load:\n{text[-2000:]}")
    seconds = float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[finished[2]]
    done, _, failed, errored, timed_out = (int(count) for count in totals.groups())
    answered = int(statuses[1])
    return Report(answered, max(done - answered, failed) + errored + timed_out, seconds, int(data[1]))


def h2load(
    url: str,
    shape: Shape,
    *,
    seconds: float,
    body_bytes: int,
    headers: Mapping[str, str] | None = None,
    post: Path | None = None,
) -> Report:
    """As many requests as go through in `seconds`, over HTTP/2 with prior knowledge; POSTs of the file `post`, if given.

    Raises FailedRequests when one was not answered with a 2xx, when none was, or when the bodies are not `body_bytes`
    each: one for each stream more or less, since h2load ends in the middle of things.
    """
    command: Sequence[str] = [
        *("h2load", f"-c{shape.connections}", f"-m{shape.streams}", f"--duration={max(1, round(seconds))}"),
        *(f"--header={name}: {value}" for name, value in (headers or {}).items()),
        *([f"--data={post}"] if post is not None else []),
    ]
    report = parse(run([*command, url], core=LOAD_CORE, timeout_s=seconds + 60))
    if report.failures or not report.requests:
        raise FailedRequests(f"{report.failures} requests to {url} failed, {report.requests} did not")
    whole = report.requests * body_bytes
    if abs(report.data_bytes - whole) > body_bytes * shape.connections * shape.streams:
        raise FailedRequests(f"{report.requests} bodies from {url} have {report.data_bytes} bytes, not {whole}")
    return report
