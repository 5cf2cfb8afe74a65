"""What conditions look at strings, headers, query parameters, paths and metadata: `envoy.type.matcher.v3` and kin.

These objects say what to match; the stages compile them. Everything that is compared with bytes from the wire is bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from sidecar.config.fields import Node

_LARGEST_REGEX = "re2.max_program_size.error_level"  # instructions

StringPattern: TypeAlias = Literal["exact", "prefix", "suffix", "contains", "safe_regex"]


@dataclass(frozen=True, slots=True)
class RegexMatcher:
    """An RE2 expression (known to compile) that the whole string must match."""

    regex: bytes


@dataclass(frozen=True, slots=True)
class RegexMatchAndSubstitute:
    """Each match of `pattern` becomes `substitution`, where \\0 to \\9 name its groups and \\\\ is a backslash."""

    pattern: RegexMatcher
    substitution: bytes


@dataclass(frozen=True, slots=True)
class StringMatcher:
    """`match_pattern` names the comparison and `value` is what to compare with: the expression for `safe_regex`.

    `ignore_case` is never True for `safe_regex`.
    """

    match_pattern: StringPattern
    value: bytes
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Int64Range:
    """Integers from `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class HeaderMatcher:
    """A condition on the header `name` (lower case; pseudo-headers too).

    `match` is a StringMatcher or Int64Range on its value, or True (must be there) or False (must not). `invert_match`
    turns the outcome round. A header that is missing never matches a StringMatcher or Int64Range, inverted or not,
    unless `treat_missing_header_as_empty`, which goes with those two only.
    """

    name: bytes
    match: StringMatcher | Int64Range | bool
    invert_match: bool = False
    treat_missing_header_as_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryParameterMatcher:
    """A condition on the query parameter `name`: a StringMatcher on its value, or whether it must be there."""

    name: bytes
    match: StringMatcher | bool


@dataclass(frozen=True, slots=True)
class PathMatcher:
    """A condition on the request's path without query and fragment."""

    path: StringMatcher


@dataclass(frozen=True, slots=True)
class NullMatch:
    """The value must be null."""


@dataclass(frozen=True, slots=True)
class DoubleMatcher:
    """The value must be a number in `start` (inclusive) to `end` (exclusive), or be `exact` when that is not None."""

    exact: float | None = None
    start: float = 0.0
    end: float = 0.0


@dataclass(frozen=True, slots=True)
class BoolMatch:
    """The value must be this very boolean."""

    value: bool


@dataclass(frozen=True, slots=True)
class PresentMatch:
    """Whether there must be a value at all."""

    present: bool


@dataclass(frozen=True, slots=True)
class ListMatcher:
    """The value must be a list of which one element at least matches."""

    one_of: ValueMatcher


@dataclass(frozen=True, slots=True)
class OrMatcher:
    """One at least of these must match the value."""

    value_matchers: tuple[ValueMatcher, ...]


ValueMatcher: TypeAlias = NullMatch | DoubleMatcher | StringMatcher | BoolMatch | PresentMatch | ListMatcher | OrMatcher


@dataclass(frozen=True, slots=True)
class MetadataMatcher:
    """A condition on the value that stands under the keys of `path` in the metadata of `filter`."""

    filter: str
    path: tuple[str, ...]
    value: ValueMatcher
    invert: bool = False


_NOTHING = StringMatcher("exact", b"")


@lru_cache(maxsize=4096)
def regex_problem(regex: bytes) -> str | None:
    """Why RE2 does not take an expression, or None."""
    import re2  # 2 MB, of which most configurations have no need

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(regex, options)
    except re2.error as error:
        message = error.args[0] if error.args else "invalid"
        return message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return None


@lru_cache(maxsize=4096)
def regex_size(regex: bytes) -> int:
    """How many instructions the program of a valid RE2 expression has, as Envoy compiles it."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    return int(re2.compile(regex, options).programsize)


def regex_groups(regex: bytes) -> int:
    """How many groups a valid RE2 expression has."""
    import re2

    return int(re2.compile(regex).groups)


def header_name(name: str) -> bytes:
    """A header's name as heads hold it: bytes in lower case."""
    return name.lower().encode()


def header_names(names: Iterable[str]) -> tuple[bytes, ...]:
    """Several headers' names, each as `header_name` gives it."""
    return tuple(map(header_name, names))


def parse_regex(node: Node) -> RegexMatcher:
    """`type.matcher.v3.RegexMatcher`; an expression is refused that RE2 does not take, or that is larger than the runtime's
    key says.
    """
    node.ignore("google_re2", "RE2 is the only engine")
    regex = node.get("regex").encode()
    problem = regex_problem(regex)
    if problem is not None:
        node.refuse(f"is no regular expression for RE2: {problem}", "regex", "correct it; see RE2's syntax")
        return RegexMatcher(b"")
    most = node.context.runtime.integer(_LARGEST_REGEX)
    if most is not None and (size := regex_size(regex)) > most:
        node.refuse(
            f"makes an RE2 program of {size} instructions, and the runtime's key {_LARGEST_REGEX} allows {most}",
            "regex",
            "split it, or raise the key",
        )
        return RegexMatcher(b"")
    return RegexMatcher(regex)


def parse_regex_rewrite(node: Node) -> RegexMatchAndSubstitute:
    """`type.matcher.v3.RegexMatchAndSubstitute`. A substitution that RE2 could not carry out is refused."""
    pattern_node = node.child("pattern")
    pattern = RegexMatcher(b"") if pattern_node is None else parse_regex(pattern_node)
    substitution: bytes = node.get("substitution").encode()
    rest = substitution.replace(b"\\\\", b"").split(b"\\")[1:]
    groups = regex_groups(pattern.regex)
    for after in rest:
        if not after[:1].isdigit():
            node.refuse(
                "has a backslash before something other than a digit or a backslash",
                "substitution",
                "write \\1 for the first group, and \\\\ for a backslash",
            )
        elif int(after[:1]) > groups:
            node.refuse(
                f"names group {after[:1].decode()}, and the pattern has {groups}", "substitution", "add the group"
            )
    return RegexMatchAndSubstitute(pattern, substitution)


def parse_string_matcher(node: Node | None) -> StringMatcher:
    """`type.matcher.v3.StringMatcher`, all but `custom`."""
    if node is None:
        return _NOTHING
    match node.which("match_pattern"):
        case ("exact" | "prefix" | "suffix" | "contains") as pattern:
            return StringMatcher(pattern, node.get(pattern).encode(), node.get("ignore_case"))
        case "safe_regex":
            if node.get("ignore_case"):
                node.refuse("has no effect on safe_regex", "ignore_case", "begin the expression with (?i) instead")
            return _regex_as_string(node, "safe_regex")
        case _:
            return _NOTHING


def _regex_as_string(node: Node, field: str) -> StringMatcher:
    regex = node.child(field)
    return _NOTHING if regex is None else StringMatcher("safe_regex", parse_regex(regex).regex)


def parse_header_matcher(node: Node) -> HeaderMatcher:
    """`route.v3.HeaderMatcher`, its deprecated forms included. Without a condition the header must be there."""
    match: StringMatcher | Int64Range | bool = True
    match node.which("header_match_specifier"):
        case "exact_match":
            # Envoy takes an exact_match of nothing for any value.
            value = node.get("exact_match").encode()
            match = StringMatcher("exact", value) if value else StringMatcher("prefix", b"")
        case "prefix_match":
            match = StringMatcher("prefix", node.get("prefix_match").encode())
        case "suffix_match":
            match = StringMatcher("suffix", node.get("suffix_match").encode())
        case "contains_match":
            match = StringMatcher("contains", node.get("contains_match").encode())
        case "safe_regex_match":
            match = _regex_as_string(node, "safe_regex_match")
        case "string_match":
            match = parse_string_matcher(node.child("string_match"))
        case "range_match":
            bounds = node.child("range_match")
            match = Int64Range(bounds.get("start"), bounds.get("end")) if bounds is not None else False
        case "present_match":
            match = bool(node.get("present_match"))
    invert, as_empty = node.get("invert_match"), node.get("treat_missing_header_as_empty")
    if as_empty and isinstance(match, bool):
        # What is missing counts as an empty value, so the header is there whatever comes.
        match, invert = StringMatcher("prefix", b""), invert == match
    return HeaderMatcher(header_name(node.get("name")), match, invert, as_empty)


def parse_header_matchers(nodes: Iterable[Node]) -> tuple[HeaderMatcher, ...]:
    """A list of `route.v3.HeaderMatcher`."""
    return tuple(map(parse_header_matcher, nodes))


def parse_query_parameter_matcher(node: Node) -> QueryParameterMatcher:
    """`route.v3.QueryParameterMatcher`. Without a condition the parameter must be there."""
    match: StringMatcher | bool = True
    match node.which("query_parameter_match_specifier"):
        case "string_match":
            match = parse_string_matcher(node.child("string_match"))
        case "present_match":
            match = bool(node.get("present_match"))
    return QueryParameterMatcher(node.get("name").encode(), match)


def parse_path_matcher(node: Node) -> PathMatcher:
    """`type.matcher.v3.PathMatcher`."""
    return PathMatcher(parse_string_matcher(node.child("path")))


def parse_metadata_matcher(node: Node) -> MetadataMatcher:
    """`type.matcher.v3.MetadataMatcher`."""
    value = node.child("value")
    return MetadataMatcher(
        node.get("filter"),
        tuple(segment.get("key") for segment in node.children("path")),
        PresentMatch(True) if value is None else parse_value_matcher(value),
        node.get("invert"),
    )


def parse_value_matcher(node: Node) -> ValueMatcher:
    """`type.matcher.v3.ValueMatcher`."""
    match node.which("match_pattern"):
        case "null_match":
            node.child("null_match")
            return NullMatch()
        case "double_match":
            number = node.child("double_match")
            return NullMatch() if number is None else _parse_double_matcher(number)
        case "string_match":
            return parse_string_matcher(node.child("string_match"))
        case "bool_match":
            return BoolMatch(node.get("bool_match"))
        case "present_match":
            return PresentMatch(node.get("present_match"))
        case "list_match":
            elements = node.child("list_match")
            one_of = None if elements is None else elements.child("one_of")
            return NullMatch() if one_of is None else ListMatcher(parse_value_matcher(one_of))
        case "or_match":
            either = node.child("or_match")
            return OrMatcher(
                () if either is None else tuple(map(parse_value_matcher, either.children("value_matchers")))
            )
        case _:
            return NullMatch()


def _parse_double_matcher(node: Node) -> DoubleMatcher:
    bounds = node.child("range")
    if bounds is not None:
        return DoubleMatcher(None, bounds.get("start"), bounds.get("end"))
    return DoubleMatcher(node.get("exact"))
