"""Documents as people write them: YAML (and JSON, which is YAML), several in one file, each with the line it begins at.

Read as Kubernetes' tools read it, to what JSON can say: names are text, what looks like a time or a base-60 number stays
text; a name that is given twice in one mapping is an error, where PyYAML would silently take the last.
https://yaml.org/spec/1.1/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from controlplane.model.resource import Origin

_MOST_VALUES: Final = 2_000_000
"""Of one document, with its aliases written out: a few lines of aliases can mean more than fits into memory."""

_DEEPEST: Final = 100
_FEW: Final = 1000
_FAR_RIGHT: Final = re.compile(r"^[ ?:-]{400}", re.MULTILINE)

_MERGE: Final = "tag:yaml.org,2002:merge"
_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(Exception):
    """Text that is not YAML, or not a document: where, and what is wrong."""

    def __init__(self, origin: Origin, message: str) -> None:
        super().__init__(f"{origin}: {message}")
        self.origin = origin
        self.message = message


class _Loader(_CLoader):  # type: ignore[misc]
    """Gives what JSON can say."""

    yaml_implicit_resolvers = {
        first: [row for row in table if not row[0].endswith((":timestamp", ":int", ":float", ":value"))]
        for first, table in _CLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a name must be text", problem_mark=name.start_mark)
            if name.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{name.value!r} is given twice", problem_mark=name.start_mark)
            if name.tag != _MERGE:
                seen.add(name.value)
        self.flatten_mapping(node)
        return {name.value: self.construct_object(value, deep=deep) for name, value in node.value}


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:[0-9]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?[0-9]+[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_documents(text: str | bytes, path: str, source: str = "files") -> list[tuple[dict[str, Any], Origin]]:
    """All documents of a text, with the items of lists (`kind: List`) in their place; empty ones are left out.

    ``path`` is for the origins. Raises Unreadable for the first thing that is wrong: then nothing of the text counts.
    """
    where = Origin(source, path)
    _check_depth(text, source, path)
    document = _json(text)
    if document is not None:
        origin = Origin(source, path, 1)
        return [(item, origin) for item in _items(document)]
    try:
        loader = _Loader(text)
        try:
            found: list[tuple[dict[str, Any], Origin]] = []
            while loader.check_node():
                for node in _documents(loader.get_node()):
                    origin = Origin(source, path, node.start_mark.line + 1)
                    found.append((_construct(loader, node, origin), origin))
            return found
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        context = f"{error.context}: " if error.context else ""
        raise Unreadable(Origin(source, path, line), f"{context}{error.problem}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise Unreadable(where, " ".join(str(error).split())) from None
    except (ValueError, RecursionError) as error:  # a number that is none; nesting without end
        raise Unreadable(where, str(error)) from None


def _check_depth(text: str | bytes, source: str, path: str) -> None:
    """Refuse what is nested so deep that a parser that recurses in C would take the process with it.

    Nearly every text shows at a glance that it is not: it has few brackets, and no line that begins far to the right.
    """
    plain = text if isinstance(text, str) else text.decode("latin-1")
    if "\x00" not in plain and plain.count("[") + plain.count("{") < _FEW and not _FAR_RIGHT.search(plain):
        return
    depth = 0
    try:
        for event in yaml.parse(text, _CLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST:
                    line = event.start_mark.line + 1 if event.start_mark else 0
                    raise Unreadable(Origin(source, path, line), f"it is nested deeper than {_DEEPEST} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.MarkedYAMLError as error:
        if is_too_deep(error):
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            raise Unreadable(Origin(source, path, line), f"it is nested deeper than {_DEEPEST} levels") from None
    except (yaml.YAMLError, UnicodeError):
        return  # what is wrong is told by whoever reads it: it is not too deep up to there


def is_too_deep(error: yaml.MarkedYAMLError) -> bool:
    """Whether libyaml itself gave up on nesting.

    From 0.2.6 it does at 1,000 levels, while it looks ahead for tokens: before it tells of the levels that are open.
    """
    return "maximum nesting depth" in (error.problem or "")


def _json(text: str | bytes) -> Any:
    """The value of a text that is strictly JSON, which has escapes that YAML has not; None for everything else."""
    if text.lstrip()[:1] not in ("{", b"{"):
        return None
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):  # as YAML it may be right; if not, the place of the error is known there
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _items(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    items = document.get("items")
    if document.get("kind") == "List" and isinstance(items, list) and all(isinstance(item, dict) for item in items):
        for item in items:
            yield from _items(item)
    else:
        yield document


def _documents(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return
    if isinstance(node, yaml.MappingNode):
        fields = {name.value: value for name, value in node.value if isinstance(name, yaml.ScalarNode)}
        kind, items = fields.get("kind"), fields.get("items")
        if isinstance(kind, yaml.ScalarNode) and kind.value == "List" and isinstance(items, yaml.SequenceNode):
            for item in items.value:
                yield from _documents(item)
            return
    yield node


def _construct(loader: Any, node: Any, origin: Origin) -> dict[str, Any]:
    _weigh(node, {}, origin)
    document = loader.construct_document(node)
    if not isinstance(document, dict):
        raise Unreadable(origin, "a document must be a mapping with apiVersion, kind and metadata")
    return document


def _weigh(node: Any, known: dict[int, int], origin: Origin) -> int:
    """How many values a node has, with aliases written out."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        weight = known[id(node)]
        if not weight:
            raise Unreadable(Origin(origin.source, origin.path, node.start_mark.line + 1), "an alias contains itself")
        return weight
    known[id(node)] = 0
    children = node.value if isinstance(node, yaml.SequenceNode) else [value for _, value in node.value]
    weight = 1 + sum(_weigh(child, known, origin) for child in children)
    if weight > _MOST_VALUES:
        raise Unreadable(origin, f"has more than {_MOST_VALUES} values with its aliases written out")
    known[id(node)] = weight
    return weight
