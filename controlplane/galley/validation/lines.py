"""From the path of a field to the line on which it stands in a YAML (or JSON) text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

_STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")


class Lines:
    """The lines of one text, whose documents are counted as `read_documents` counts them: the items of lists, each."""

    def __init__(self, text: str) -> None:
        try:
            self._documents = [
                document
                for node in yaml.compose_all(text, yaml.CSafeLoader)
                if node is not None
                for document in _documents(node)
            ]
        except yaml.YAMLError:  # JSON with escapes that YAML has not: it has no lines that we could tell
            self._documents = []

    def line(self, number: int, path: str, fallback: int) -> int:
        """The line of a field of the document of that number; that of what is around it if the field is not there."""
        if number >= len(self._documents):
            return fallback
        node = self._documents[number]
        line: int = node.start_mark.line + 1
        for name, index in _STEP.findall(path):
            child = _child(node, name or index)
            if child is None:
                break
            mark, node = child
            line = mark.line + 1
        return line


def _child(node: yaml.Node, step: str) -> tuple[yaml.Mark, yaml.Node] | None:
    """Where a node's child begins (a field with its name), and the child."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == step:
                return name.start_mark, value
    elif isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
        child: yaml.Node = node.value[int(step)]
        return child.start_mark, child
    return None


def _documents(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return
    kind, items = _child(node, "kind"), _child(node, "items")
    if kind is not None and kind[1].value == "List" and items is not None and isinstance(items[1], yaml.SequenceNode):
        for item in items[1].value:
            yield from _documents(item)
    else:
        yield node
