"""The list of intended differences: ``differences.toml`` says which case differs in which field, and why.

Each entry has ``title`` (a heading of ``docs/differences-from-envoy.md``), ``reason``, ``cases`` (names, or patterns
with ``*``) and ``fields`` (names, or patterns with ``*``: brackets stand for themselves).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.differential.outcome import Difference

LIST = Path(__file__).with_name("differences.toml")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "differences-from-envoy.md"


@dataclass(frozen=True, slots=True)
class Known:
    """One intended difference."""

    title: str
    reason: str
    cases: tuple[str, ...]
    fields: tuple[str, ...]

    def about(self, case: str) -> bool:
        return any(_matches(pattern, case) for pattern in self.cases)

    def covers(self, field: str) -> bool:
        return any(_matches(pattern, field) for pattern in self.fields)


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))))


@cache
def known_differences() -> tuple[Known, ...]:
    """The whole list; KeyError when an entry lacks a field."""
    entries = tomllib.loads(LIST.read_text()).get("difference", [])
    return tuple(
        Known(entry.pop("title"), entry.pop("reason"), tuple(entry.pop("cases")), tuple(entry.pop("fields")))
        for entry in entries
    )


def unaccounted(case: str, found: Sequence[Difference]) -> list[Difference]:
    """The differences that no entry covers."""
    entries = [entry for entry in known_differences() if entry.about(case)] if found else []
    return [difference for difference in found if not any(entry.covers(difference.field) for entry in entries)]


def idle(found: Mapping[str, Sequence[Difference]], *, log: bool) -> list[str]:
    """The patterns, with their titles, that are about some of these cases and cover nothing of what was found in any.

    ``log`` tells whether the logs were looked at: without it entries about them are not judged.
    """
    quiet: list[str] = []
    for entry in known_differences():
        if not log and all(field.startswith("access_log") for field in entry.fields):
            continue
        for pattern in entry.cases:
            about = [differences for case, differences in found.items() if _matches(pattern, case)]
            if about and not any(entry.covers(one.field) for differences in about for one in differences):
                quiet.append(f"{pattern}: {entry.title}")
    return quiet


def stale(case: str, found: Sequence[Difference], *, log: bool) -> list[str]:
    """For each entry about this case that covers none of what was found: its title.

    ``log`` tells which half was looked at: entries whose fields begin with ``access_log`` are judged on that half only.
    """
    return [
        entry.title
        for entry in known_differences()
        if case
        in entry.cases  # one that a pattern names may differ in some runs only: a race in Envoy, or between both
        and all(field.startswith("access_log") is log for field in entry.fields)
        and not any(entry.covers(difference.field) for difference in found)
    ]
