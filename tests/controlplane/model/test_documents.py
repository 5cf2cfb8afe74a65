from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.documents import Unreadable, read_documents


def values(text: str) -> object:
    ((document, _),) = read_documents(text, "f.yaml")
    return document["a"]


def test_each_document_knows_its_line() -> None:
    text = (
        "# a remark\n---\nkind: One\nmetadata: {name: a}\n---\n---\n# nothing\n--- # here\n\nkind: Two\n"
        "---\nkind: List\napiVersion: v1\nitems:\n- kind: Three\n  x: 1\n- kind: List\n  items:\n  - {kind: Four}\n  -\n"
    )
    found = read_documents(text, "conf/f.yaml")
    assert [(document["kind"], str(origin)) for document, origin in found] == [
        ("One", "conf/f.yaml:3"), ("Two", "conf/f.yaml:10"), ("Three", "conf/f.yaml:15"), ("Four", "conf/f.yaml:19")
    ]  # fmt: skip
    assert found[0][1].source == "files"
    assert read_documents("", "f") == read_documents("---\n# only this\n---\n", "f") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-01-01", "2020-01-01"), ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"), ("12:30", "12:30"), ("1_0", "1_0"),
        ("10", 10), ("-3", -3), ("0644", 0o644), ("0x1f", 31), ("1.5", 1.5), ("1e3", 1000.0), ("-.5e-1", -0.05), ("=", "="),
        ("yes", True), ("off", False), ("~", None), ("y", "y"), ("1.2.3", "1.2.3"), ("10s", "10s"), ("'10'", "10"),
        (".nan", ".nan"), ("{80: b, true: c}", {"80": "b", "true": "c"}),
    ],
)  # fmt: skip
def test_values_are_what_kubernetes_tools_make_of_them(text: str, value: object) -> None:
    found = values(f"a: {text}")
    assert found == value and type(found) is type(value)


def test_anchors_and_merges_are_followed() -> None:
    ((document, _),) = read_documents("base: &b {x: 1, y: 2}\na: {<<: *b, y: 3}\nc: *b\n", "f")
    assert document == {"base": {"x": 1, "y": 2}, "a": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [\n", 3, "expected"),
        ("kind: A\n---\nmetadata:\n  name: x\n  name: y\n", 5, "'name' is given twice"),
        ("a: 1\n---\n- a list\n", 3, "must be a mapping"),
        ("just text", 1, "must be a mapping"),
        ("a: &x\n  b: *x\n", 1, "contains itself"),
        ("a: !!python/object/apply:os.system [true]\n", 1, "could not determine a constructor"),
        ("? [1]\n: 2\n", 1, "a name must be text"),
        ("a: \x01\n", 0, "control characters"),
        ('{"a": 1,\n "a": 2}', 2, "'a' is given twice"),
        ("a: 08\n", 0, "invalid literal"),
        ("\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]), 1, "aliases"),
    ],
)
def test_what_is_no_document_is_told_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(Unreadable, match=message) as wrong:
        read_documents(text, "f.yaml")
    assert (wrong.value.origin.path, wrong.value.origin.line) == ("f.yaml", line)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[" * 200_000 + "]" * 200_000,
        "- " * 200_000 + "x",
        "? " * 200_000 + "x",
        '{"a":' * 200_000 + "1" + "}" * 200_000,
        "{a: " * 200_000,
        "\n".join(" " * depth + "a:" for depth in range(2000)),
        ("a: [" + "[" * 2000).encode("utf-16"),
    ],
    ids=["open", "whole", "sequences", "keys", "JSON", "mappings", "indented", "UTF-16"],
)
def test_nesting_without_end_is_refused_by_a_message_not_by_a_crash(text: str | bytes) -> None:
    with pytest.raises(Unreadable, match=r"nested deeper than 100 levels"):
        read_documents(text, "f.yaml")


def test_many_brackets_that_are_not_deep_are_read() -> None:
    assert read_documents("a: [" + "[], " * 3000 + "[]]", "f.yaml")[0][0] == {"a": [[] for _ in range(3001)]}


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(Unreadable):
        read_documents(b"a: \xff\xfe\n", "f.yaml")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_is_read_as_json(document: dict[str, object]) -> None:
    found = read_documents(json.dumps(document), "f.json")
    if document.get("kind") != "List" or not isinstance(document.get("items"), list):
        assert [body for body, _ in found] == [document]
