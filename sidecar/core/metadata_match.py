"""Compiled conditions on metadata: of routes, of requests (dynamic metadata), of connections.

Source: Envoy's ``type.matcher.v3.MetadataMatcher`` and ``ValueMatcher``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.config.matcher import (
    BoolMatch,
    DoubleMatcher,
    ListMatcher,
    MetadataMatcher,
    NullMatch,
    OrMatcher,
    PresentMatch,
    StringMatcher,
    ValueMatcher,
)
from sidecar.core.matching import compile_string

_ABSENT: Any = object()

MetadataCondition = Callable[[Mapping[str, Mapping[str, Any]] | None], bool]
"""A condition on metadata by the names of filters; None is no metadata at all."""


def metadata_value(metadata: Mapping[str, Mapping[str, Any]] | None, keys: tuple[str, ...]) -> Any:
    """What stands under ``keys`` (the filter's name first), or None, which null is too."""
    found = find_metadata(metadata, keys)
    return None if found is _ABSENT else found


def find_metadata(value: Any, keys: tuple[str, ...]) -> Any:
    """What stands under ``keys``, or a mark that fits no condition but an absence."""
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def compile_value(matcher: ValueMatcher) -> Callable[[Any], bool]:
    """A ``ValueMatcher`` as a condition on a plain Python value; what is absent fits none of them."""
    match matcher:
        case NullMatch():
            return lambda value: value is None
        case DoubleMatcher():
            return _compile_double(matcher)
        case StringMatcher():
            text = compile_string(matcher)
            return lambda value: isinstance(value, str) and text(value.encode())
        case BoolMatch():
            wanted = matcher.value
            return lambda value: value is wanted
        case PresentMatch():
            present = matcher.present
            return lambda value: present and value is not _ABSENT
        case ListMatcher():
            one_of = compile_value(matcher.one_of)
            return lambda value: isinstance(value, list) and any(map(one_of, value))
        case OrMatcher():
            tests = tuple(map(compile_value, matcher.value_matchers))
            return lambda value: any(test(value) for test in tests)


def _compile_double(matcher: DoubleMatcher) -> Callable[[Any], bool]:
    exact, start, end = matcher.exact, matcher.start, matcher.end

    def matches(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return start <= value < end if exact is None else value == exact

    return matches


def compile_metadata(matcher: MetadataMatcher) -> MetadataCondition:
    """A ``MetadataMatcher`` as a condition on metadata."""
    keys = (matcher.filter, *matcher.path)
    test = compile_value(matcher.value)
    invert = matcher.invert
    return lambda metadata: test(find_metadata(metadata, keys)) != invert
