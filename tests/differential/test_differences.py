"""The list of intended differences and its document say the same, and the list names only what there is."""

from __future__ import annotations

import re

from tests.differential.cases import CASES
from tests.differential.known_differences import DOCUMENT, Known, known_differences
from tests.differential.test_admin import VIEWS
from tests.differential.test_http2_statistics import TRAFFIC

SHOWN = "## Shown by the differential suite"


def headings() -> list[str]:
    """The titles in the part of the document that mirrors the list."""
    _, _, part = DOCUMENT.read_text().partition(f"{SHOWN}\n")
    assert part, f"{DOCUMENT.name} has no section {SHOWN!r}"
    return re.findall(r"^### (.+)$", part.split("\n## ")[0], re.MULTILINE)


def test_document_describes_each_listed_difference() -> None:
    listed = [entry.title for entry in known_differences()]
    assert sorted(set(listed)) == sorted(headings())


def test_each_entry_is_about_cases_that_exist() -> None:
    names = [case.name for case in CASES] + [f"admin/{view.name}" for view in VIEWS] + ["admin/default-access-log"]
    names += [f"http2-statistics/{traffic}" for traffic in TRAFFIC]
    for entry in known_differences():
        for pattern in entry.cases:
            alone = Known(entry.title, entry.reason, (pattern,), entry.fields)
            assert any(alone.about(name) for name in names), f"{entry.title}: no case is named {pattern}"


def test_each_entry_says_why() -> None:
    for entry in known_differences():
        assert len(entry.reason) > 20, entry.title
        assert entry.fields, entry.title
        assert entry.cases, entry.title
