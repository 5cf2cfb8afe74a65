"""Label and field selectors, compiled to a question about a document.

Source: Kubernetes' "Labels and Selectors" and "Field Selectors".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.api.status import ApiError

Selector = Callable[[Mapping[str, Any]], bool]

_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)\Z")
_KEY = re.compile(r"(?:[a-z0-9A-Z.-]{1,253}/)?[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?\Z")
_VALUE = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?)?\Z")
_SELECTABLE = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "type": ("type",),
    "spec.nodeName": ("spec", "nodeName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"),
    "status.phase": ("status", "phase"),
    "status.podIP": ("status", "podIP"),
}
_OF_EVERY_KIND = ("metadata.name", "metadata.namespace")
_OF_KIND = {
    "Pod": ("spec.nodeName", "spec.serviceAccountName", "status.phase", "status.podIP"),
    "Secret": ("type",),
    "Namespace": ("status.phase",),
}


def label_selector(text: str) -> Selector | None:
    """What "app=reviews,version in (v1, v2),!canary" asks; None if it asks nothing. Raises ApiError 400."""
    requirements = [_requirement(part) for part in _split(text)]
    if not requirements:
        return None

    def matches(document: Mapping[str, Any]) -> bool:
        labels = document["metadata"].get("labels") or {}
        return all(requirement(labels) for requirement in requirements)

    return matches


def field_selector(text: str, kind: str) -> tuple[Selector | None, str | None]:
    """What "metadata.name=reviews,metadata.namespace!=shop" asks of a kind, and the name if it admits one alone.

    Raises ApiError 400 for fields that the kind cannot be selected by.
    """
    tests: list[tuple[tuple[str, ...], bool, str]] = []
    name = None
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, operator, value = _operator(part)
        if field not in _OF_EVERY_KIND and field not in _OF_KIND.get(kind, ()):
            raise ApiError(400, f'field label not supported: "{field}" of {kind} cannot be selected by')
        tests.append((_SELECTABLE[field], operator != "!=", value))
        if field == "metadata.name" and operator != "!=":
            name = value
    if not tests:
        return None, None

    def matches(document: Mapping[str, Any]) -> bool:
        return all((_at(document, path) == value) is wanted for path, wanted, value in tests)

    return matches, name


def _at(document: Any, path: tuple[str, ...]) -> str:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return "" if document is None else str(document)


def _operator(part: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        left, found, right = part.partition(operator)
        if found:
            return left.strip(), operator, right.strip()
    raise ApiError(400, f'invalid selector: "{part}"; can\'t understand it: write "key=value" or "key!=value"')


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _requirement(part: str) -> Callable[[Mapping[str, str]], bool]:
    if set_ := _SET.match(part):
        key, operator = set_[1], set_[2]
        values = frozenset(_value(value.strip()) for value in set_[3].split(","))
        _check_key(key, part)
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if "=" not in part:
        absent = part.startswith("!")
        key = part.removeprefix("!").strip()
        _check_key(key, part)
        return lambda labels: (key in labels) is not absent
    key, operator, value = _operator(part)
    _check_key(key, part)
    _value(value)
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def _check_key(key: str, part: str) -> None:
    if not _KEY.match(key):
        raise ApiError(400, f'unable to parse requirement: "{part}" does not begin with the key of a label')


def _value(value: str) -> str:
    if not _VALUE.match(value):
        raise ApiError(400, f'unable to parse requirement: "{value}" is not the value of a label')
    return value
