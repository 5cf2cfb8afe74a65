"""Matchers: what each form in the configuration comes to."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.matcher import (
    BoolMatch,
    DoubleMatcher,
    HeaderMatcher,
    Int64Range,
    ListMatcher,
    MetadataMatcher,
    NullMatch,
    OrMatcher,
    PathMatcher,
    PresentMatch,
    QueryParameterMatcher,
    RegexMatchAndSubstitute,
    RegexMatcher,
    StringMatcher,
    ValueMatcher,
    parse_header_matcher,
    parse_metadata_matcher,
    parse_path_matcher,
    parse_query_parameter_matcher,
    parse_regex_rewrite,
    parse_string_matcher,
    parse_value_matcher,
)
from tests.sidecar.config.building import build, problems

STRING = "envoy.type.matcher.v3.StringMatcher"
HEADER = "envoy.config.route.v3.HeaderMatcher"
QUERY = "envoy.config.route.v3.QueryParameterMatcher"
REWRITE = "envoy.type.matcher.v3.RegexMatchAndSubstitute"
VALUE = "envoy.type.matcher.v3.ValueMatcher"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"exact": "A"}, StringMatcher("exact", b"A")),
        ({"prefix": "A", "ignore_case": True}, StringMatcher("prefix", b"A", True)),
        ({"suffix": "\u00e9"}, StringMatcher("suffix", "\u00e9".encode())),
        ({"contains": "x"}, StringMatcher("contains", b"x")),
        ({"safe_regex": {"regex": "a|b"}}, StringMatcher("safe_regex", b"a|b")),
    ],
)
def test_string_matcher(document: dict[str, Any], expected: StringMatcher) -> None:
    assert build(STRING, document, parse_string_matcher) == expected


def test_ignore_case_is_refused_for_a_regex() -> None:
    document = {"safe_regex": {"regex": "a"}, "ignore_case": True}
    assert problems(STRING, document, parse_string_matcher) == [("ignore_case", "has no effect on safe_regex")]


def test_custom_string_matchers_are_refused() -> None:
    custom = {"custom": {"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}}
    assert ("custom", "is not implemented by Mizzen") in problems(STRING, custom, parse_string_matcher)


@pytest.mark.parametrize("regex", ["(a", "[z-a]", "a(?=b)", "(a)\\1", "a**"])
def test_what_re2_does_not_take_is_refused(regex: str) -> None:
    ((path, problem),) = problems(STRING, {"safe_regex": {"regex": regex}}, parse_string_matcher)
    assert path == "safe_regex.regex"
    assert problem.startswith("is no regular expression for RE2: ")


def test_substitution() -> None:
    rewrite = build(REWRITE, {"pattern": {"regex": "/(a)(b)"}, "substitution": "\\2\\\\\\0"}, parse_regex_rewrite)
    assert rewrite == RegexMatchAndSubstitute(RegexMatcher(b"/(a)(b)"), b"\\2\\\\\\0")


@pytest.mark.parametrize(
    ("substitution", "words"), [("\\3", "group 3"), ("\\x", "a backslash"), ("a\\", "a backslash")]
)
def test_substitutions_that_cannot_be_carried_out_are_refused(substitution: str, words: str) -> None:
    document = {"pattern": {"regex": "(a)(b)"}, "substitution": substitution}
    ((path, problem),) = problems(REWRITE, document, parse_regex_rewrite)
    assert path == "substitution"
    assert words in problem


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, HeaderMatcher(b"x-a", True)),
        ({"invert_match": True}, HeaderMatcher(b"x-a", True, True)),
        ({"present_match": False}, HeaderMatcher(b"x-a", False)),
        ({"exact_match": "v"}, HeaderMatcher(b"x-a", StringMatcher("exact", b"v"))),
        ({"exact_match": ""}, HeaderMatcher(b"x-a", StringMatcher("prefix", b""))),
        ({"prefix_match": "v"}, HeaderMatcher(b"x-a", StringMatcher("prefix", b"v"))),
        ({"suffix_match": "v"}, HeaderMatcher(b"x-a", StringMatcher("suffix", b"v"))),
        ({"contains_match": "v"}, HeaderMatcher(b"x-a", StringMatcher("contains", b"v"))),
        ({"safe_regex_match": {"regex": "v+"}}, HeaderMatcher(b"x-a", StringMatcher("safe_regex", b"v+"))),
        (
            {"string_match": {"exact": "", "ignore_case": True}},
            HeaderMatcher(b"x-a", StringMatcher("exact", b"", True)),
        ),
        (
            {"range_match": {"start": -3, "end": 9}, "treat_missing_header_as_empty": True},
            HeaderMatcher(b"x-a", Int64Range(-3, 9), False, True),
        ),
    ],
)
def test_header_matcher(document: dict[str, Any], expected: HeaderMatcher) -> None:
    assert build(HEADER, {"name": "X-A", **document}, parse_header_matcher) == expected


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("invert", [True, False])
def test_a_missing_header_that_counts_as_empty_is_present(present: bool, invert: bool) -> None:
    document = {
        "name": "x",
        "present_match": present,
        "invert_match": invert,
        "treat_missing_header_as_empty": True,
    }
    matcher = build(HEADER, document, parse_header_matcher)
    assert matcher.match == StringMatcher("prefix", b"") and matcher.treat_missing_header_as_empty
    assert (not matcher.invert_match) == (present != invert)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, QueryParameterMatcher(b"Q", True)),
        ({"present_match": False}, QueryParameterMatcher(b"Q", False)),
        ({"string_match": {"prefix": "p"}}, QueryParameterMatcher(b"Q", StringMatcher("prefix", b"p"))),
    ],
)
def test_query_parameter_matcher(document: dict[str, Any], expected: QueryParameterMatcher) -> None:
    assert build(QUERY, {"name": "Q", **document}, parse_query_parameter_matcher) == expected


def test_path_matcher() -> None:
    matcher = build("envoy.type.matcher.v3.PathMatcher", {"path": {"exact": "/a"}}, parse_path_matcher)
    assert matcher == PathMatcher(StringMatcher("exact", b"/a"))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"null_match": {}}, NullMatch()),
        ({"double_match": {"exact": 0}}, DoubleMatcher(0.0)),
        ({"double_match": {"range": {"start": 1.5, "end": 2}}}, DoubleMatcher(None, 1.5, 2.0)),
        ({"string_match": {"contains": "x"}}, StringMatcher("contains", b"x")),
        ({"bool_match": False}, BoolMatch(False)),
        ({"present_match": False}, PresentMatch(False)),
        ({"list_match": {"one_of": {"bool_match": True}}}, ListMatcher(BoolMatch(True))),
        (
            {"or_match": {"value_matchers": [{"null_match": {}}, {"string_match": {"exact": "a"}}]}},
            OrMatcher((NullMatch(), StringMatcher("exact", b"a"))),
        ),
    ],
)
def test_value_matcher(document: dict[str, Any], expected: ValueMatcher) -> None:
    assert build(VALUE, document, parse_value_matcher) == expected


def test_metadata_matcher() -> None:
    document = {
        "filter": "jwt",
        "path": [{"key": "sub"}, {"key": "name"}],
        "value": {"string_match": {"exact": "me"}},
        "invert": True,
    }
    matcher = build("envoy.type.matcher.v3.MetadataMatcher", document, parse_metadata_matcher)
    assert matcher == MetadataMatcher("jwt", ("sub", "name"), StringMatcher("exact", b"me"), True)
