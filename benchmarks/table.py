"""The table: text for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.proxies import ENVOY
from benchmarks.results import CPU, MEMORY, P99, Row, met, ratio_to, reference_of

_HEAD = (
    "cell", "proxy", "CPU us/req", "req/s", "p50 ms", "p99 ms", "RSS MB", "figure", "× Envoy", "target", "verdict",
)  # fmt: skip
_VERDICTS: Mapping[bool | None, str] = {True: "met", False: "MISSED", None: ""}


def _number(row: Row, name: str, form: str) -> str:
    value = row.figures.get(name)
    return "" if value is None else format(value, form)


def _figure(row: Row) -> str:
    if row.figure in (CPU, P99, MEMORY):
        return ""
    if row.value is None:
        return "not available" if row.target is not None else ""
    digits = 0 if row.value >= 1000 else 1 if row.value >= 10 else 2
    return f"{row.value:,.{digits}f} {row.figure.unit}"


_COLUMNS: Sequence[Callable[[Row], str]] = (
    lambda row: row.cell,
    lambda row: row.proxy,
    lambda row: _number(row, "cpu_us", ".1f"),
    lambda row: _number(row, "rate", ",.0f"),
    lambda row: _number(row, "p50_ms", ".2f"),
    lambda row: _number(row, "p99_ms", ".2f"),
    lambda row: _number(row, "memory_mb", ".1f"),
    _figure,
)


def _line(row: Row, rows: Sequence[Row]) -> list[str]:
    envoy = reference_of(rows, row.cell, ENVOY)
    ratio = ratio_to(envoy, row)
    target = row.target.text if row.target is not None else ""
    verdict = _VERDICTS[met(row, envoy)]
    if target and not verdict:
        verdict = "not decided"
    return [*(column(row) for column in _COLUMNS), "" if ratio is None else f"{ratio:.2f}", target, verdict]


def as_text(rows: Sequence[Row]) -> str:
    """All rows under one heading, cells apart by an empty line; numbers to the right."""
    lines = [list(_HEAD), *(_line(row, rows) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    left = {0, 1, 9, 10}
    text = [
        "  ".join(
            field.ljust(width) if column in left else field.rjust(width)
            for column, (field, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    out = [text[0], "-" * len(text[0])]
    for index, row in enumerate(rows):
        if index and rows[index - 1].cell != row.cell:
            out.append("")
        out.append(text[index + 1])
    notes = [f"{row.cell}, {row.proxy}: {row.note}" for row in rows if row.note]
    return "\n".join([*out, *([""] if notes else []), *notes])


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same rows as plain objects; `value`, `unit` and `ratio_to_envoy` belong to the cell's main figure."""
    out = []
    for row in rows:
        envoy = reference_of(rows, row.cell, ENVOY)
        out.append(
            {
                "cell": row.cell,
                "proxy": row.proxy,
                "figure": row.figure.name,
                "unit": row.figure.unit,
                "value": row.value,
                "ratio_to_envoy": ratio_to(envoy, row),
                "target": row.target.text if row.target is not None else None,
                "met": met(row, envoy),
                "figures": dict(row.figures),
                "rounds": list(row.rounds),
                "note": row.note,
            }
        )
    return out
