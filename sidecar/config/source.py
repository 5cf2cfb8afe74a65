"""Configuration as it was written (YAML or JSON text, or a dict) into a protobuf message, and where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from google.protobuf.message import Message
from yaml.events import DocumentEndEvent, MappingStartEvent, StreamEndEvent

from sidecar.config.events import events_of, skip
from sidecar.config.filling import Filling
from sidecar.config.json_mapping import NULLS
from sidecar.config.problems import Problem

MessageType = TypeVar("MessageType", bound=Message)

_SURROGATES = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_PATH_PART = re.compile(r'\.?([^.\[\]]+)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]')


class Source:
    """One text that configuration was read from. `name` is what its problems call it: a file, `--config-yaml`, ..."""

    def __init__(self, text: bytes | str | Mapping[str, Any], name: str) -> None:
        self.name = name
        self._has_lines = not isinstance(text, Mapping)
        if isinstance(text, Mapping):
            text = json.dumps(text).replace("\x7f", "\\u007f")
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")
        self._text = _without_surrogates(text) if text.lstrip()[:1] == b"{" else text

    def read(self, message: MessageType, problems: list[Problem]) -> MessageType:
        """Fill `message`, which is given back, and add everything that does not fit to `problems`."""
        next_event = events_of(self._text)
        filling = Filling(next_event, self.name, problems, lines=self._has_lines)
        try:
            self._text.decode()
            next_event()
            start = next_event()
            if isinstance(start, StreamEndEvent):
                problems.append(self._problem("is empty", "write a configuration into it"))
                return message
            root = next_event()
            if isinstance(root, MappingStartEvent):
                filling.fill(root, message)
            elif getattr(root, "value", None) in NULLS:
                problems.append(self._problem("is empty", "write a configuration into it"))
            else:
                filling.refuse(root, None, f"must be a mapping with the fields of {message.DESCRIPTOR.full_name}")
                skip(root, next_event)
            while not isinstance(event := next_event(), StreamEndEvent):
                if not isinstance(event, DocumentEndEvent):
                    filling.refuse(event, None, "has a second YAML document", "keep one document in a file")
                    break
        except UnicodeDecodeError as error:
            line = self._text.count(b"\n", 0, error.start) + 1
            problems.append(Problem(self.name, line, 0, "", "is not UTF-8 text", "save it as UTF-8"))
        except yaml.YAMLError as error:
            problems.append(self._syntax(error))
        return message

    def tree(self) -> yaml.Node | None:
        """The text as a tree of YAML nodes, which know their lines; None when it is none. For telling places."""
        try:
            return yaml.compose(self._text, yaml.CSafeLoader) if self._has_lines else None
        except yaml.YAMLError:
            return None

    def _problem(self, problem: str, what_to_do: str) -> Problem:
        return Problem(self.name, 1 if self._has_lines else 0, 0, "", problem, what_to_do)

    def _syntax(self, error: yaml.YAMLError) -> Problem:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 0)
        reasons = [reason for reason in (getattr(error, "context", None), getattr(error, "problem", None)) if reason]
        reason = ": ".join(reasons) or str(error).splitlines()[0]
        return Problem(self.name, line, column, "", f"is not YAML: {reason}", "")


class Places:
    """Where in the sources the field at a path stands. Sources that were merged count as one, the last one winning.

    The trees are made when the first place is asked for, so that a configuration without problems never pays for them.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._roots: list[tuple[str, yaml.Node]] | None = None

    def __call__(self, path: str) -> tuple[str, int, int]:
        """(file, line, column) of the field, or of the nearest thing around it; the line is 0 where there are none."""
        if self._roots is None:
            trees = [(source.name, source.tree()) for source in reversed(self._sources)]
            self._roots = [(name, tree) for name, tree in trees if tree is not None]
        found = self._roots
        place: tuple[str, int, int] = (self._sources[0].name if self._sources else "", 0, 0)
        if found:
            place = _place(found[-1][0], found[-1][1])
        for match in _PATH_PART.finditer(path):
            name, index, key = match.groups()
            if index is not None:
                found = _items(found, int(index))
            else:
                found = _values(found, name if key is None else json.loads(key), exact=key is not None)
            if not found:
                break
            place = _place(found[0][0], found[0][2] if len(found[0]) > 2 else found[0][1])
            found = [(file, node) for file, node, *_ in found]
        return place


def _place(file: str, node: yaml.Node) -> tuple[str, int, int]:
    return file, node.start_mark.line + 1, node.start_mark.column + 1


def _values(nodes: list[Any], key: str, *, exact: bool) -> list[Any]:
    """What stands behind a key in some mappings, each with its file and the key's node."""
    wanted = key if exact else _folded(key)
    found = []
    for file, node in nodes:
        merged: list[yaml.Node] = []
        if not isinstance(node, yaml.MappingNode):
            continue
        for key_node, value in node.value:
            if key_node.value == "<<":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif (key_node.value if exact else _folded(str(key_node.value))) == wanted:
                found.append((file, value, key_node))
                break
        else:
            found += _values([(file, other) for other in merged], key, exact=exact)
    return found


def _items(nodes: list[Any], index: int) -> list[Any]:
    """The item at an index of some lists that were put one behind the other, the last one first here."""
    for file, node in reversed(nodes):
        length = len(node.value) if isinstance(node, yaml.SequenceNode) else 0
        if index < length:
            return [(file, node.value[index])]
        index -= length
    return []


def _folded(key: str) -> str:
    return key.replace("_", "").lower()


def _without_surrogates(text: bytes) -> bytes:
    """JSON spells characters beyond the first 65,536 as two escapes, which YAML does not know."""
    return _SURROGATES.sub(lambda match: json.loads(b'"' + match[0] + b'"').encode(), text)
