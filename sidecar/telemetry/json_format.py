"""JSON formats: a structure whose strings hold commands, compiled to a function that gives one JSON document.

A string that is one command becomes its value with its type (numbers, objects, null); other strings stay strings.
Source: Envoy's "Format Dictionaries" in its access-log documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .format_code import Formatter, Line
from .format_syntax import Command, parse
from .format_values import json_bytes, quote
from .operators import value_of
from .operators.base import NO_CONTEXT, FormatContext


def compile_json(
    structure: Mapping[str, Any], *, omit_empty_values: bool = False, context: FormatContext = NO_CONTEXT
) -> Formatter:
    """A JSON format: one document with sorted keys, and a line break behind it (in local replies, too), as in Envoy.

    With `omit_empty_values` members and elements that are null are left out, and so are objects that are empty then.
    Raises FormatError, and TypeError for what JSON has not.
    """
    if omit_empty_values:
        return _compile_omitting(structure, context)
    line = Line()
    _add(line, structure, context)
    line.literal(b"\n")
    return line.function()


def _add(line: Line, node: Any, context: FormatContext) -> None:
    if isinstance(node, Mapping):
        separator = b"{"
        for key in sorted(node):
            line.literal(separator + quote(key.encode()) + b":")
            _add(line, node[key], context)
            separator = b","
        line.literal(b"}" if node else b"{}")
    elif isinstance(node, (list, tuple)):
        separator = b"["
        for item in node:
            line.literal(separator)
            _add(line, item, context)
            separator = b","
        line.literal(b"]" if node else b"[]")
    elif isinstance(node, str):
        _add_string(line, node, b"-", context)
    elif node is None or isinstance(node, (bool, int, float)):
        line.literal(json_bytes(node))
    else:
        raise TypeError(f"a JSON format cannot hold {node!r}")


def _add_string(line: Line, format: str, missing: bytes, context: FormatContext) -> None:
    pieces = parse(format)
    match pieces:
        case []:
            line.literal(b'""')
        case [str() as literal]:
            line.literal(quote(literal.encode()))
        case [Command() as command]:
            line.json(value_of(command, context), command.length)
        case _:
            line.literal(b'"')
            for piece in pieces:
                if isinstance(piece, str):
                    line.literal(quote(piece.encode())[1:-1])
                else:
                    line.escaped(value_of(piece, context), piece.length, missing)
            line.literal(b'"')


_Part = Callable[[Any, bytes], bytes | None]


def _compile_omitting(structure: Mapping[str, Any], context: FormatContext) -> Formatter:
    part = _omitting(structure, context)

    def render(stream: Any, body: bytes = b"") -> bytes:
        return (part(stream, body) or b"{}") + b"\n"

    return render


def _omitting(node: Any, context: FormatContext) -> _Part:
    if isinstance(node, Mapping):
        members = [(quote(key.encode()) + b":", _omitting(node[key], context)) for key in sorted(node)]

        def render_object(stream: Any, body: bytes) -> bytes | None:
            shown = [key + value for key, part in members if (value := part(stream, body)) is not None]
            return b"{%b}" % b",".join(shown) if shown else None

        return render_object
    if isinstance(node, (list, tuple)):
        parts = [_omitting(item, context) for item in node]

        def render_list(stream: Any, body: bytes) -> bytes:
            shown = [value for part in parts if (value := part(stream, body)) is not None]
            return b"[%b]" % b",".join(shown)

        return render_list
    line = Line()
    if isinstance(node, str):
        _add_string(line, node, b"", context)
    else:
        _add(line, node, context)
    function: Callable[[Any, bytes], bytes] = line.function()  # type: ignore[assignment]

    def render_leaf(stream: Any, body: bytes) -> bytes | None:
        value = function(stream, body)
        return None if value == b"null" else value

    return render_leaf
