"""What every cell is handed: the proxies, how long and how often to measure, and where to keep files."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.proxies import Proxy


@dataclass(slots=True)
class Context:
    """`seconds` is the length of one run, `rounds` how often every proxy has its turn.

    `saturation` collects requests per second by shape and proxy, for the cells that drive at a part of that rate; `problems` what
    could not be measured.
    """

    proxies: list[Proxy]
    rounds: int
    seconds: float
    directory: Path
    quick: bool = False
    profile: Path | None = None
    saturation: dict[tuple[str, str], float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def supporting(self, shape: str) -> list[Proxy]:
        return [proxy for proxy in self.proxies if proxy.supports(shape)]

    def problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)
