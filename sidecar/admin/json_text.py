"""JSON as protobuf's C++ library prints it, which is what Envoy's pages consist of: one space for each level.

Objects and arrays may be lazy (`Object`, `Array`), so that a page of many megabytes is written piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring
from math import isfinite, isnan
from typing import Any, TypeAlias

CHUNK = 400
"""Lines in a chunk: well under a millisecond's work."""


class Object:
    """A JSON object whose members are made when they are written."""

    __slots__ = ("members",)

    def __init__(self, members: Iterable[tuple[str, Any]]) -> None:
        self.members = members


class Array:
    """A JSON array whose items are made when they are written."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items


Value: TypeAlias = Object | Array | dict[str, Any] | list[Any] | str | int | float | bool | None
"""What can be written. 64-bit integers of protobuf come as str, as its JSON mapping wants them."""


def json_chunks(value: Value) -> Iterator[bytes]:
    """The text of `value`, with a newline at its end, in chunks that may be written one in a loop turn."""
    pieces: list[str] = []
    for piece in _pieces(value):
        pieces.append(piece)
        if len(pieces) >= CHUNK:
            yield "".join(pieces).encode("utf-8", "replace")
            pieces.clear()
    pieces.append("\n")
    yield "".join(pieces).encode("utf-8", "replace")


class _Container:
    __slots__ = ("begin", "empty", "end", "entries")

    def __init__(self, entries: Iterator[tuple[str | None, Any]], begin: str, end: str) -> None:
        self.entries = entries
        self.begin = begin
        self.end = end
        self.empty = True


def _opened(value: Any) -> _Container | None:
    if isinstance(value, Object):
        return _Container(iter(value.members), "{", "}")
    if isinstance(value, dict):
        return _Container(iter(value.items()), "{", "}")
    if isinstance(value, Array):
        return _Container(((None, item) for item in value.items), "[", "]")
    if isinstance(value, list):
        return _Container(((None, item) for item in value), "[", "]")
    return None


def _pieces(root: Value) -> Iterator[str]:
    container = _opened(root)
    if container is None:
        yield scalar(root)
        return
    yield container.begin
    stack = [container]
    while stack:
        container = stack[-1]
        entry = next(container.entries, None)
        if entry is None:
            stack.pop()
            yield container.end if container.empty else "\n" + " " * len(stack) + container.end
            continue
        key, value = entry
        lead = ("\n" if container.empty else ",\n") + " " * len(stack)
        container.empty = False
        if key is not None:
            lead += f"{quoted(key)}: "
        inner = _opened(value)
        if inner is None:
            yield lead + scalar(value)
        else:
            yield lead + inner.begin
            stack.append(inner)


def scalar(value: Any) -> str:
    """A string, number, boolean or null."""
    if isinstance(value, str):
        return quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    return str(value)


def quoted(text: str) -> str:
    """A JSON string; what is dangerous inside HTML is escaped, as protobuf does."""
    quoted = encode_basestring(text)
    if text.isalnum():
        return quoted
    return (
        quoted.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\x7f", "\\u007f")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _number(value: float) -> str:
    if not isfinite(value):
        return '"NaN"' if isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
