"""What a resource went through, as differences to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

_BOOKKEEPING: Final = ("resourceVersion", "managedFields", "generation", "uid", "creationTimestamp", "selfLink")


def differences(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines that say of each change who made it, when, and what is different since the one before; the newest first.

    ``history`` is as the API tells it, the oldest first: `type`, `who`, `when`, `resourceVersion` and `object` of each. What
    the control plane itself keeps in `metadata`, and statuses, are left out, and changes of nothing else.
    """
    before: Sequence[str] = ()
    parts: list[list[str]] = []
    for change in history:
        after = [] if change["type"] == "DELETED" else _lines(change["object"])
        head = f"{change['resourceVersion']}  {change['type']}  {change['when']}  {change['who'] or 'unknown'}"
        body = list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]
        if body:
            parts.append([head, *(f"  {line}" for line in body), ""])
        before = after
    for part in reversed(parts):
        yield from part


def _lines(document: Any) -> list[str]:
    if isinstance(document, Mapping):
        metadata = document.get("metadata")
        document = {name: value for name, value in document.items() if name != "status"}
        if isinstance(metadata, Mapping):
            document["metadata"] = {name: value for name, value in metadata.items() if name not in _BOOKKEEPING}
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True, default_flow_style=False).splitlines()
