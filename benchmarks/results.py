"""What the cells report: rows of figures, the targets they are held to, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median


class Better(Enum):
    """Which way a figure should go."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Target:
    """What the project asks of us in one cell.

    Either `times_envoy`, the least that `Row.ratio` to Envoy may be, or `limit`, an absolute bound in the figure's unit.
    """

    text: str
    times_envoy: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """What a cell is about: the name of one key in `Row.figures`, its unit, and which way is better."""

    name: str
    unit: str
    better: Better


CPU = Figure("cpu_us", "us CPU/request", Better.LOWER)
MEMORY = Figure("memory_mb", "MB RSS", Better.LOWER)
P99 = Figure("p99_ms", "ms p99", Better.LOWER)


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one proxy in one cell.

    `figures` may hold cpu_us (microseconds of CPU for one request), rate (requests a second), p50_ms, p99_ms, memory_mb
    (RSS), pss_mb, and whatever `figure` names. `rounds` has the main figure of every round, in order.
    """

    cell: str
    proxy: str
    figure: Figure
    figures: Mapping[str, float]
    target: Target | None = None
    rounds: Sequence[float] = ()
    note: str = ""

    @property
    def value(self) -> float | None:
        return self.figures.get(self.figure.name)


@dataclass(slots=True)
class Rounds:
    """The figures of one proxy in one cell, round by round."""

    samples: list[dict[str, float]] = field(default_factory=list)

    def add(self, **figures: float) -> None:
        self.samples.append(figures)

    def medians(self) -> dict[str, float]:
        return {name: median(sample[name] for sample in self.samples) for name in self.samples[0]}

    def column(self, name: str) -> list[float]:
        return [sample[name] for sample in self.samples]


def ratio_to(reference: Row | None, row: Row) -> float | None:
    """How many times better than `reference` the row's figure is; above 1 is better, whichever way the figure goes."""
    if reference is None or reference.value is None or row.value is None:
        return None
    if row.figure.better is Better.LOWER:
        return reference.value / row.value if row.value else None
    return row.value / reference.value if reference.value else None


def met(row: Row, reference: Row | None) -> bool | None:
    """Whether the row meets its target; None where it has none, or where what decides it was not measured."""
    if row.target is None or row.value is None:
        return None
    if row.target.limit is not None:
        lower = row.figure.better is Better.LOWER
        return row.value <= row.target.limit if lower else row.value >= row.target.limit
    ratio = ratio_to(reference, row)
    return None if ratio is None or row.target.times_envoy is None else ratio >= row.target.times_envoy


def reference_of(rows: Iterable[Row], cell: str, proxy: str) -> Row | None:
    """The row of `proxy` in `cell`, if it ran."""
    return next((row for row in rows if row.cell == cell and row.proxy == proxy), None)
