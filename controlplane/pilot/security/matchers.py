"""Matchers for values as policies write them: whole, `abc*`, `*abc`, and `*` for any that is not empty.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/ and Envoy's `type.matcher.v3`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import metadata_pb2, string_pb2, value_pb2

JWT_FILTER = "envoy.filters.http.jwt_authn"
JWT_PAYLOAD = "payload"
"""Under which key of its metadata the filter for tokens leaves the claims of one."""


def text(value: str, before: str = "", *, ignore_case: bool = False) -> Any:
    """A `StringMatcher`. ``before`` stands before the value in what is matched, but for values that begin with `*`."""
    if value == "*":
        return regex(".+")
    if value.startswith("*"):
        return string_pb2.StringMatcher(suffix=value[1:], ignore_case=ignore_case)
    if value.endswith("*"):
        return string_pb2.StringMatcher(prefix=before + value[:-1], ignore_case=ignore_case)
    return string_pb2.StringMatcher(exact=before + value, ignore_case=ignore_case)


def exactly(value: str) -> Any:
    """A `StringMatcher` for one text."""
    return string_pb2.StringMatcher(exact=value)


def regex(pattern: str) -> Any:
    """A `StringMatcher` for texts that a regular expression matches as a whole."""
    made = string_pb2.StringMatcher()
    made.safe_regex.regex = pattern
    return made


def quoted(value: str) -> str:
    """A value as a part of a regular expression of RE2."""
    return re.escape(value)


def header(name: str, value: str, *, ignore_case: bool = False) -> Any:
    """A `HeaderMatcher`; `*` is for a header that is there, though it be empty."""
    if value == "*":
        return route_components_pb2.HeaderMatcher(name=name, present_match=True)
    return route_components_pb2.HeaderMatcher(name=name, string_match=text(value, ignore_case=ignore_case))


def metadata(filter_name: str, path: Sequence[str], value: Any) -> Any:
    """A `MetadataMatcher` for what a filter left under a path of keys."""
    made = metadata_pb2.MetadataMatcher(filter=filter_name)
    for key in path:
        made.path.add(key=key)
    made.value.CopyFrom(value)
    return made


def claim(names: Sequence[str], values: Sequence[str]) -> Any:
    """A `MetadataMatcher` for a claim that is one of the values, or a list with one of them."""
    return claim_matching(names, any_of([string_value(text(value)) for value in values]))


def claim_matching(names: Sequence[str], wanted: Any) -> Any:
    """A `MetadataMatcher` for a claim that a `ValueMatcher` holds for, or a list with something that it holds for."""
    return metadata(JWT_FILTER, (JWT_PAYLOAD, *names), any_of([in_list(wanted), wanted]))


def string_value(matcher: Any) -> Any:
    """A `ValueMatcher` for a text."""
    return value_pb2.ValueMatcher(string_match=matcher)


def in_list(value: Any) -> Any:
    """A `ValueMatcher` for a list with such a value."""
    return value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=value))


def any_of(values: Sequence[Any]) -> Any:
    """A `ValueMatcher` that holds if one of several does."""
    if len(values) == 1:
        return values[0]
    return value_pb2.ValueMatcher(or_match=value_pb2.OrMatcher(value_matchers=values))
