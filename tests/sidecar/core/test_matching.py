"""Compiled conditions against plain Python that says the same."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.matcher import (
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    QueryParameterMatcher,
    RegexMatchAndSubstitute,
    RegexMatcher,
    StringMatcher,
    StringPattern,
)
from sidecar.core.address import Address
from sidecar.core.head import RequestHead
from sidecar.core.matching import (
    canonical,
    compile_cidr_ranges,
    compile_header,
    compile_headers,
    compile_path,
    compile_query_parameter,
    compile_string,
    compile_strings,
    compile_substitution,
    parse_integer,
    parse_unsigned,
    path_only,
    query_parameter,
)

texts = st.text("aAbB,", max_size=4).map(str.encode)
patterns: st.SearchStrategy[StringPattern] = st.sampled_from(["exact", "prefix", "suffix", "contains"])
string_matchers = st.builds(StringMatcher, patterns, texts, st.booleans())
numbers = st.integers(-3, 3)


def head(*values: bytes, path: bytes = b"/") -> RequestHead:
    return RequestHead(b"GET", path, b"host.test", [(b"accept", b"*/*"), *((b"x", value) for value in values)])


def naive_string(matcher: StringMatcher, text: bytes) -> bool:
    value = matcher.value
    if matcher.ignore_case:
        text, value = text.lower(), value.lower()
    return {
        "exact": text == value,
        "prefix": text.startswith(value),
        "suffix": text.endswith(value),
        "contains": value in text,
    }[matcher.match_pattern]


@given(string_matchers, texts)
def test_strings(matcher: StringMatcher, text: bytes) -> None:
    assert compile_string(matcher)(text) is naive_string(matcher, text)


@given(st.lists(string_matchers, max_size=4), texts)
def test_any_of_several_strings(matchers: list[StringMatcher], text: bytes) -> None:
    assert compile_strings(matchers)(text) is any(naive_string(matcher, text) for matcher in matchers)


@pytest.mark.parametrize(
    ("regex", "text", "matches"),
    [
        (b"a.c", b"abc", True),
        (b"a.c", b"abcd", False),
        (b"b", b"abc", False),
        (b"(?i)ABC", b"abc", True),
        (b"", b"", True),
        (b"a|ab", b"ab", True),
        (b"a.c", b"a\xffc", True),
        (b"/admin.*", b"/admin\xff", True),
        (b"(abc|de){1,500}", b"abcde" * 200, True),
        (b"(abc|de){1,500}", b"abcde" * 200 + b"d", False),
    ],
)
def test_expressions_match_the_whole_string(regex: bytes, text: bytes, matches: bool) -> None:
    assert compile_string(StringMatcher("safe_regex", regex))(text) is matches


@given(
    st.one_of(string_matchers, st.builds(Int64Range, numbers, numbers), st.booleans()),
    st.booleans(),
    st.booleans(),
    st.lists(st.one_of(texts, numbers.map(lambda number: b"%d" % number)), max_size=3),
)
def test_headers(match: StringMatcher | Int64Range | bool, invert: bool, as_empty: bool, values: list[bytes]) -> None:
    def one(value: bytes) -> bool:
        if isinstance(match, StringMatcher):
            return naive_string(match, value)
        assert isinstance(match, Int64Range)
        return value.lstrip(b"-").isdigit() and match.start <= int(value) < match.end

    if isinstance(match, bool):
        expected = (bool(values) == match) != invert
    elif not values and not as_empty:
        expected = False
    else:
        expected = any(map(one, values or [b""])) != invert
    assert compile_header(HeaderMatcher(b"x", match, invert, as_empty))(head(*values)) is expected


@pytest.mark.parametrize(
    ("name", "value"),
    [(b":method", b"GET"), (b":path", b"/p?q"), (b"host", b"host.test"), (b":authority", b"host.test")],
)
def test_pseudo_headers(name: bytes, value: bytes) -> None:
    request = head(path=b"/p?q")
    assert compile_header(HeaderMatcher(name, StringMatcher("exact", value)))(request)
    assert not compile_header(HeaderMatcher(name, StringMatcher("exact", value), True))(request)
    assert compile_header(HeaderMatcher(name, True))(request)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=4))
def test_all_headers_must_hold(wanted: list[tuple[bool, bool]]) -> None:
    matchers = [HeaderMatcher(b"x", match, invert) for match, invert in wanted]
    together = compile_headers(matchers)
    assert (together is None) == (not matchers)
    if together is not None:
        assert together(head(b"1")) is all(compile_header(matcher)(head(b"1")) for matcher in matchers)


@pytest.mark.parametrize(
    ("text", "signed", "unsigned"),
    [
        (b"12", 12, 12),
        (b" 12\t", 12, 12),
        (b"+7", 7, 7),
        (b"-7", -7, None),
        (b"007", 7, 7),
        (b"1_0", None, None),
        (b"0x1", None, None),
        (b"", None, None),
        (b"1 2", None, None),
        (b"\xd9\xa3", None, None),
        (b"9223372036854775807", 2**63 - 1, 2**63 - 1),
        (b"9223372036854775808", None, 2**63),
        (b"18446744073709551616", None, None),
    ],
)
def test_numbers(text: bytes, signed: int | None, unsigned: int | None) -> None:
    assert parse_integer(text) == signed
    assert parse_unsigned(text) == unsigned


@given(st.text("/a?#", max_size=8).map(str.encode))
def test_a_path_ends_before_query_and_fragment(target: bytes) -> None:
    path = path_only(target)
    assert path == re.split(rb"[?#]", target)[0]


@given(st.lists(st.tuples(st.sampled_from([b"q", b"qq", b"x"]), st.sampled_from([b"", b"1", b"a=b"])), max_size=4))
def test_the_first_value_of_a_query_parameter_counts(pairs: list[tuple[bytes, bytes]]) -> None:
    target = b"/p?" + b"&".join(key + b"=" + value for key, value in pairs)
    assert query_parameter(target, b"q") == next((value for key, value in pairs if key == b"q"), None)


def test_query_parameters() -> None:
    present = compile_query_parameter(QueryParameterMatcher(b"q", True))
    absent = compile_query_parameter(QueryParameterMatcher(b"q", False))
    exact = compile_query_parameter(QueryParameterMatcher(b"q", StringMatcher("exact", b"1")))
    for path, found in (
        (b"/p?q=1", (True, False, True)),
        (b"/q", (False, True, False)),
        (b"/?q", (True, False, False)),
    ):
        assert (present(head(path=path)), absent(head(path=path)), exact(head(path=path))) == found


def test_paths() -> None:
    matches = compile_path(PathMatcher(StringMatcher("exact", b"/p")))
    assert matches(head(path=b"/p?x=1"))
    assert not matches(head(path=b"/p/"))


def test_ranges_of_addresses() -> None:
    matches = compile_cidr_ranges([ip_network("10.0.0.0/8"), ip_network("::1/128")])
    found = [matches(Address(ip)) for ip in ("10.1.2.3", "11.0.0.1", "::1", "::2")]
    assert found == [True, False, True, False]
    assert not matches(Address(None, path="/tmp/socket"))


@pytest.mark.parametrize(
    ("pattern", "substitution", "text", "result"),
    [
        (b"a+", b"<\\0>", b"xaaya", b"x<aa>y<a>"),
        (b"(a)(b)?", b"\\2\\1", b"ab-a", b"ba-a"),
        (b"^/api/", b"/", b"/api/api/", b"/api/"),
        (b"a", b"\\\\", b"a.a", b"\\.\\"),
        (b"x*", b"_", b"abc", b"_a_b_c_"),
        (b"b*", b"_", b"abbc", b"_a_c_"),
        (b"z", b"_", b"abc", b"abc"),
    ],
)
def test_substitution_replaces_every_match(pattern: bytes, substitution: bytes, text: bytes, result: bytes) -> None:
    rewrite = RegexMatchAndSubstitute(RegexMatcher(pattern), substitution)
    assert compile_substitution(rewrite)(text) == result


def test_canonical_values_tell_kinds_apart() -> None:
    assert canonical(1.0) == canonical(1) == "1"
    assert len({canonical(value) for value in (1, "1", True, None, [1], 1.5)}) == 6
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})
