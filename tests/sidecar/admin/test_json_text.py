"""The JSON of the pages, and that no chunk of it is large."""

from __future__ import annotations

import json
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.json_text import CHUNK, Array, Object, json_chunks

_SCALARS = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(st.characters(exclude_categories=["Cs"]))
_TREES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text("aé<\n", min_size=1), inner))


def _text(value: Any) -> str:
    return b"".join(json_chunks(value)).decode()


def _lazy(value: Any) -> Any:
    if isinstance(value, dict):
        return Object((name, _lazy(inner)) for name, inner in value.items())
    return Array(_lazy(inner) for inner in value) if isinstance(value, list) else value


@given(_TREES)
def test_lazy_and_plain_values_are_the_json_that_they_say(value: Any) -> None:
    assert json.loads(_text(value)) == value
    assert _text(_lazy(value)) == _text(value)


def test_layout() -> None:
    value = {"a": {}, "b": [], "c": {"d": [1, {"e": None}]}, "f": True}
    assert _text(value) == (
        '{\n "a": {},\n "b": [],\n "c": {\n  "d": [\n   1,\n   {\n    "e": null\n   }\n  ]\n },\n "f": true\n}\n'
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(20.0, "20"), (0.5, "0.5"), (-0.25, "-0.25"), (nan, '"NaN"'), (inf, '"Infinity"'), (-inf, '"-Infinity"')],
)
def test_numbers(number: float, text: str) -> None:
    assert _text(number) == f"{text}\n"


def test_what_is_dangerous_in_html_is_escaped() -> None:
    assert _text('<a>&\u2028\u2029\x7f\x01"') == '"\\u003ca\\u003e&\\u2028\\u2029\\u007f\\u0001\\""\n'


def test_a_long_value_comes_in_chunks_that_are_made_one_by_one() -> None:
    made = []

    def items() -> Any:
        for number in range(10 * CHUNK):
            made.append(number)
            yield number

    chunks = json_chunks(Array(items()))
    for turn in range(1, 4):
        assert len(next(chunks).splitlines()) <= CHUNK + 1
        assert len(made) <= turn * CHUNK
    assert len(list(chunks)) >= 6
