"""Heads cut at their values: which other values a cut accepts."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.express.shape import Cut, cut

_NAMES = (b"date", b"etag", b"x-request-id")
_VALUE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

_octets = st.sampled_from([b" ", b"\n", b"\t", b"\0", b"\x7f", b"\x80", b"\xff", b"!", b"~", b"a", b"x", b"y"])


def _cut(values: tuple[bytes, ...]) -> Cut | None:
    lines = [b"%b: %b" % pair for pair in zip(_NAMES, values, strict=False)]
    return cut(b"\r\n".join((b"HTTP/1.1 200 OK", *lines)) + b"\r\n\r\n", frozenset(_NAMES))


def _blanks(values: tuple[bytes, ...]) -> list[int]:
    return [value.count(b" ") for value in values]


@st.composite
def _values_and_others(draw: st.DrawFn) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Values of a head, and others of their sizes."""
    plain = st.from_regex(re.compile(rb"[a-c](?:[a-c ]{0,6}[a-c])?"), fullmatch=True)
    values = tuple(draw(st.lists(plain, min_size=1, max_size=3)))
    others = []
    for value in values:
        kept = draw(st.booleans())
        octets = draw(st.lists(_octets, min_size=len(value), max_size=len(value)))
        others.append(
            b"".join(b" " if kept and octet == 0x20 else new for octet, new in zip(value, octets, strict=True))
        )
    return values, tuple(others)


@given(_values_and_others())
@example(((b"a b c",), (b"a  bc",)))
@example(((b"a b c",), (b" ab c",)))
@example(((b"a b", b"abc"), (b"abc", b"a b")))
@example(((b"abc", b"abc"), (b"a\nc", b"abc")))
def test_a_cut_accepts_plain_values_with_as_many_blanks_and_nothing_else(
    both: tuple[tuple[bytes, ...], tuple[bytes, ...]],
) -> None:
    values, others = both
    made = _cut(values)
    assert made is not None
    assert made.accepts(values)
    plain = all(_VALUE.fullmatch(other) for other in others)
    assert made.accepts(others) is (plain and _blanks(others) == _blanks(values))
