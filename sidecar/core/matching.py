"""Compiled conditions on strings, headers, query parameters, paths and addresses, shared by every stage that decides.

Configuration says what to match (``sidecar.config.matcher``); the functions here turn it into closures that are called
per request and look at nothing else. Comparisons are on bytes, as they came over the wire. Source: Envoy's
``envoy.type.matcher.v3`` and ``route.v3.HeaderMatcher`` reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol

from sidecar.config.matcher import (
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    QueryParameterMatcher,
    RegexMatchAndSubstitute,
    StringMatcher,
)
from sidecar.core.address import Address
from sidecar.core.head import Field

Text = Callable[[bytes], bool]
"""A condition on a string."""


class Fields(Protocol):
    """The part of a head that conditions read."""

    fields: list[Field]
    index: dict[bytes, bytes]

    @property
    def repeats(self) -> bool:
        """Whether any name occurs more than once."""
        ...

    def lookup(self, name: bytes) -> bytes | None:
        """The value of a header or pseudo-header, repeated ones joined by a comma, or None."""
        ...

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        ...


class Target(Fields, Protocol):
    """The part of a request that conditions read."""

    path: bytes


Headers = Callable[[Fields], bool]
"""A condition on the headers of a request or a response."""

_INTEGER = re.compile(rb"[ \t-\r]*([+-]?[0-9]{1,40})[ \t-\r]*")
_INT64 = 1 << 63


def path_only(target: bytes) -> bytes:
    """The path of a request target: what stands before the query and the fragment."""
    if b"?" in target:
        target = target[: target.index(b"?")]
    if b"#" in target:
        target = target[: target.index(b"#")]
    return target


def parse_integer(text: bytes) -> int | None:
    """The 64-bit integer that ``text`` is as Envoy reads numbers (sign and white space around allowed), or None."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    number = int(found[1])
    return number if -_INT64 <= number < _INT64 else None


def parse_unsigned(text: bytes) -> int | None:
    """The unsigned 64-bit integer that ``text`` is as Envoy reads numbers, or None."""
    found = _INTEGER.fullmatch(text)
    if found is None or found[1][:1] == b"-":
        return None
    number = int(found[1])
    return number if number < 2 * _INT64 else None


_SMALL_PROGRAM = 1000


@lru_cache(maxsize=1)
def _engine() -> tuple[Any, Any]:
    """RE2, and the options for its Latin-1 mode, as in Envoy: a dot is any byte, so that bytes that are no UTF-8 escape
    no expression. Loaded by the first expression, for it takes 2 MB.
    """
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2, options


@lru_cache(maxsize=4096)
def compile_regex(regex: bytes) -> Text:
    """Whether an RE2 expression matches the whole of a string.

    A set of one expression answers in half the time, but has no way out when its automaton outgrows its memory: large
    programs are matched in the usual way.
    """
    re2, bytewise = _engine()
    compiled = re2.compile(regex, bytewise)
    if compiled.programsize > _SMALL_PROGRAM:
        fullmatch = compiled.fullmatch
        return lambda text: fullmatch(text) is not None
    only = re2.Set.FullMatchSet(bytewise)
    only.Add(regex)
    only.Compile()
    match = only.Match
    return lambda text: bool(match(text))


def compile_string(matcher: StringMatcher) -> Text:
    """A ``StringMatcher`` as a condition on bytes; ``ignore_case`` folds ASCII letters only."""
    value = matcher.value
    if matcher.match_pattern == "safe_regex":
        return compile_regex(value)
    if matcher.ignore_case:
        value = value.lower()
        match matcher.match_pattern:
            case "exact":
                return lambda text: text.lower() == value
            case "prefix":
                return lambda text: text.lower().startswith(value)
            case "suffix":
                return lambda text: text.lower().endswith(value)
            case _:
                return lambda text: value in text.lower()
    match matcher.match_pattern:
        case "exact":
            return lambda text: text == value
        case "prefix":
            return lambda text: text.startswith(value)
        case "suffix":
            return lambda text: text.endswith(value)
        case _:
            return lambda text: value in text


def compile_strings(matchers: Iterable[StringMatcher]) -> Text:
    """Whether any of these matches; exact ones are looked up in one set."""
    exact = frozenset(m.value for m in matchers if m.match_pattern == "exact" and not m.ignore_case)
    others = tuple(compile_string(m) for m in matchers if m.match_pattern != "exact" or m.ignore_case)
    if not others:
        return exact.__contains__
    return lambda text: text in exact or any(match(text) for match in others)


def compile_value_of_header(match: StringMatcher | Int64Range) -> Text:
    """A condition on one value of a header: on its text, or on the number that it is."""
    if isinstance(match, StringMatcher):
        return compile_string(match)
    start, end = match.start, match.end

    def in_range(text: bytes) -> bool:
        number = parse_integer(text)
        return number is not None and start <= number < end

    return in_range


def compile_header(matcher: HeaderMatcher) -> Headers:
    """A ``HeaderMatcher`` as a condition on a head. Of several fields of one name it is enough that one matches."""
    name, match, invert = matcher.name, matcher.match, matcher.invert_match
    plain = name[:1] != b":" and name != b"host"
    if isinstance(match, bool):
        present = match != invert
        if plain:
            if present:
                return lambda head: name in head.index
            return lambda head: name not in head.index
        return lambda head: (head.lookup(name) is not None) == present
    test = compile_value_of_header(match)
    if not plain:
        return _compile_pseudo_header(matcher, test)
    missing = matcher.treat_missing_header_as_empty and test(b"") != invert
    exact = isinstance(match, StringMatcher) and match.match_pattern == "exact" and not match.ignore_case
    if exact and not invert and not missing:
        assert isinstance(match, StringMatcher)
        return _compile_exact_header(name, match.value)

    def matches(head: Fields) -> bool:
        value = head.index.get(name)
        if value is None:
            return missing
        if b"," in value and head.repeats:
            return any(map(test, head.get_all(name))) != invert
        return test(value) != invert

    return matches


def _compile_exact_header(name: bytes, expected: bytes) -> Headers:
    def matches(head: Fields) -> bool:
        value = head.index.get(name)
        if value is not None and b"," in value and head.repeats:
            return expected in head.get_all(name)
        return value == expected

    return matches


def _compile_pseudo_header(matcher: HeaderMatcher, test: Text) -> Headers:
    name, invert = matcher.name, matcher.invert_match
    missing = matcher.treat_missing_header_as_empty and test(b"") != invert

    def matches(head: Fields) -> bool:
        value = head.lookup(name)
        return missing if value is None else test(value) != invert

    return matches


def compile_headers(matchers: Sequence[HeaderMatcher]) -> Headers | None:
    """Whether all of these hold, or None when there is nothing to ask."""
    tests = tuple(map(compile_header, matchers))
    if len(tests) < 2:
        return tests[0] if tests else None
    if len(tests) == 2:
        first, second = tests
        return lambda head: first(head) and second(head)

    def matches(head: Fields) -> bool:
        for test in tests:
            if not test(head):
                return False
        return True

    return matches


def query_parameter(target: bytes, name: bytes) -> bytes | None:
    """The first value of a query parameter, as it stands in the target (nothing is decoded), or None."""
    start = target.find(b"?")
    if start < 0 or name not in target:
        return None
    for pair in target[start + 1 :].split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return value
    return None


def compile_query_parameter(matcher: QueryParameterMatcher) -> Callable[[Target], bool]:
    """A ``QueryParameterMatcher`` as a condition on a request; of a repeated parameter the first value counts."""
    name, match = matcher.name, matcher.match
    if isinstance(match, bool):
        return lambda request: (query_parameter(request.path, name) is not None) == match
    test = compile_string(match)

    def matches(request: Target) -> bool:
        value = query_parameter(request.path, name)
        return value is not None and test(value)

    return matches


def compile_path(matcher: PathMatcher) -> Callable[[Target], bool]:
    """A ``PathMatcher`` as a condition on a request's path without query and fragment."""
    test = compile_string(matcher.path)
    return lambda request: test(path_only(request.path))


def compile_cidr_ranges(ranges: Iterable[IPv4Network | IPv6Network]) -> Callable[[Address], bool]:
    """Whether an address lies in one of the ranges; a Unix socket lies in none."""
    frozen = tuple((network.version, int(network.netmask), int(network.network_address)) for network in ranges)

    def matches(address: Address) -> bool:
        parsed = address.parsed
        if parsed is None:
            return False
        version, number = parsed.version, int(parsed)
        for family, mask, network in frozen:
            if family == version and number & mask == network:
                return True
        return False

    return matches


def compile_substitution(rewrite: RegexMatchAndSubstitute) -> Callable[[bytes], bytes]:
    """Replace every match of an RE2 expression, with ``\\0`` to ``\\9`` naming its groups (RE2's GlobalReplace)."""
    pieces: list[bytes | int] = []
    literal = bytearray()
    text = rewrite.substitution
    at = 0
    while at < len(text):
        if text[at : at + 1] == b"\\" and at + 1 < len(text):
            following = text[at + 1 : at + 2]
            if following.isdigit():
                pieces += [bytes(literal), int(following)]
                literal.clear()
            else:
                literal += following
            at += 2
        else:
            literal += text[at : at + 1]
            at += 1
    pieces.append(bytes(literal))
    parts = tuple(pieces)
    re2, bytewise = _engine()
    pattern = re2.compile(rewrite.pattern.regex, bytewise)
    if len(parts) == 1:
        constant = bytes(literal)

        def expand(found: Any) -> bytes:
            return constant
    else:

        def expand(found: Any) -> bytes:
            return b"".join(part if isinstance(part, bytes) else (found.group(part) or b"") for part in parts)

    def substitute(text: bytes) -> bytes:
        done, result = 0, []
        last_end = -1
        for found in pattern.finditer(text):
            start, end = found.span()
            if start == end and start == last_end:
                continue
            result += [text[done:start], expand(found)]
            done = last_end = end
        if not result:
            return text
        result.append(text[done:])
        return b"".join(result)

    return substitute


def canonical(value: Any) -> str:
    """The text by which metadata values are compared: JSON with sorted keys, and 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
