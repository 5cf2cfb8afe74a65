"""What a resource went through: every change with who and when, as JSON for those who ask, and as differences to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import yaml

from controlplane.model.store import Event

_BOOKKEEPING: Final = ("resourceVersion", "managedFields", "generation", "uid", "creationTimestamp", "selfLink")


def told(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The history of a resource (`Store.history`) as JSON: `revision`, `action`, `who`, `time` (RFC 3339) and `document`,
    the oldest first.
    """
    return [
        {
            "revision": event.stored.revision,
            "action": event.action.value,
            "who": event.who,
            "time": datetime.fromtimestamp(event.when, UTC).isoformat(timespec="milliseconds"),
            "document": _document(event.stored.document),
        }
        for event in events
    ]


def differences(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines that say of each change in ``history`` (as `told` gives it) who did it, when, and what is different since the
    one before; the newest first. What the control plane itself keeps in `metadata`, and statuses, are left out.
    """
    before: Sequence[str] = ()
    parts: list[list[str]] = []
    for change in history:
        deleted = change["action"] == "DELETED"
        after = [] if deleted else _lines(change["document"])
        head = f"revision {change['revision']}  {change['action']}  {change['time']}  {change['who'] or 'unknown'}"
        body = list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]
        parts.append([head, *(f"  {line}" for line in body or ["(no difference but in bookkeeping or status)"]), ""])
        before = after
    for part in reversed(parts):
        yield from part


def _document(document: bytes) -> Any:
    try:
        return orjson.loads(document)
    except ValueError:
        return document.decode(errors="replace")


def _lines(document: Any) -> list[str]:
    if isinstance(document, Mapping):
        metadata = document.get("metadata")
        document = {name: value for name, value in document.items() if name != "status"}
        if isinstance(metadata, Mapping):
            document["metadata"] = {name: value for name, value in metadata.items() if name not in _BOOKKEEPING}
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True, default_flow_style=False).splitlines()
