"""YAML that came over the wire, read from its events: never recursively, and without aliases.

PyYAML's loaders recurse (the one in C overflows the stack and takes the process with it), and a few nested aliases or merge
keys stand for gigabytes. kubectl sends JSON, so nobody misses them.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from controlplane.model.documents import is_too_deep

_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,16}\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?\Z")


class InvalidYaml(Exception):
    """What is wrong, with line and column."""


def parse_yaml(text: bytes, deepest: int) -> Any:
    """The one document in ``text``, as JSON's types; what looks like a date is a string, as JSON has none.

    Raises InvalidYaml: not YAML, several documents, an alias, a key that is there twice or no string, more than ``deepest``
    levels.
    """
    try:
        return _build(text, deepest)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = f"nested deeper than {deepest} levels" if is_too_deep(error) else error.problem or error.context
        raise InvalidYaml(f"{place}{problem}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise InvalidYaml(" ".join(str(error).split())) from None


def _build(text: bytes, deepest: int) -> Any:
    documents: list[Any] = []
    open_: list[Any] = [documents]  # the lists and dicts around the place that is read
    keys: list[str | None] = [None]  # of each: the key whose value comes next
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _invalid(event, "anchors and aliases are not accepted: write the value out")
        around = open_[-1]
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if not event.implicit[0] and event.tag in (None, "!") else _scalar(event)
            if isinstance(around, dict) and keys[-1] is None:
                # As in Kubernetes, a key that is not a string is taken for the string that it was written as.
                _check_key(event, around)
                keys[-1] = event.value
                continue
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            if isinstance(around, dict) and keys[-1] is None:
                raise _invalid(event, "keys must be strings")
            value = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            open_.pop()
            keys.pop()
            continue
        else:
            continue
        if isinstance(around, dict):
            around[keys[-1]] = value
            keys[-1] = None
        else:
            around.append(value)
        if not isinstance(event, yaml.ScalarEvent):
            if len(open_) > deepest:
                raise _invalid(event, f"nested deeper than {deepest} levels")
            open_.append(value)
            keys.append(None)
    if len(documents) != 1:
        raise InvalidYaml(f"{len(documents)} documents where one is expected: send them one by one")
    return documents[0]


def _check_key(event: Any, around: dict[str, Any]) -> None:
    if event.value == "<<" and event.implicit[0]:
        raise _invalid(event, "merge keys (<<) are not accepted: write the value out")
    if event.value in around:
        raise _invalid(event, f'the key "{event.value}" is there twice')


def _scalar(event: Any) -> Any:
    text = event.value
    if event.tag == "tag:yaml.org,2002:str" or event.style:
        return text
    if event.tag not in (None, "!"):
        raise _invalid(event, f"the tag {event.tag} is not accepted")
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.match(text):
        return int(text)
    if _HEXADECIMAL.match(text):
        return int(text, 16)
    if _FLOAT.match(text):
        number = float(text)
        if math.isfinite(number):
            return number
    return text


def _invalid(event: Any, message: str) -> InvalidYaml:
    return InvalidYaml(f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}: {message}")
