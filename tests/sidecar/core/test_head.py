"""Heads: the list of fields and its index stay in step, whatever is done to them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.head import RequestHead, ResponseHead, index_of

NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
VALUES = st.sampled_from([b"", b"1", b"2", b"1,2"])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, VALUES),
        st.tuples(st.just("add"), NAMES, VALUES),
        st.tuples(st.just("remove"), NAMES, st.just(b"")),
        st.tuples(st.just("remove_all"), st.sets(NAMES), st.just(b"")),
    ),
    max_size=8,
)


@given(FIELDS, OPERATIONS)
def test_list_and_index_stay_in_step(
    fields: list[tuple[bytes, bytes]], operations: list[tuple[str, object, bytes]]
) -> None:
    head = ResponseHead(200, list(fields))
    for operation, name, value in operations:
        before = list(head.fields)
        if operation == "set":
            head.set(name, value)  # type: ignore[arg-type]
            assert head.get_all(name) == [value]  # type: ignore[arg-type]
        elif operation == "add":
            head.add(name, value)  # type: ignore[arg-type]
            assert head.fields == [*before, (name, value)]
        elif operation == "remove":
            assert head.remove(name) == any(pair[0] == name for pair in before)  # type: ignore[arg-type]
            assert head.fields == [pair for pair in before if pair[0] != name]
        else:
            head.remove_all(name)  # type: ignore[arg-type]
            assert head.fields == [pair for pair in before if pair[0] not in name]  # type: ignore[operator]
        assert head.index == index_of(head.fields)


def test_set_keeps_the_first_place() -> None:
    head = ResponseHead(200, [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    head.set(b"a", b"4")
    assert head.fields == [(b"a", b"4"), (b"b", b"2")]


def test_lookup_of_pseudo_headers() -> None:
    head = RequestHead(b"GET", b"/x", b"a.example", [(b"b", b"1"), (b"b", b"2")], scheme=b"https")
    for name, value in (
        (b":method", b"GET"), (b":path", b"/x"), (b":authority", b"a.example"), (b"host", b"a.example"),
        (b":scheme", b"https"), (b":status", None), (b"b", b"1,2"), (b"c", None),
    ):  # fmt: skip
        assert head.lookup(name) == value
    assert ResponseHead(404, []).lookup(b":status") == b"404"


def test_a_copy_is_independent() -> None:
    head = RequestHead(b"GET", b"/", b"a", [(b"b", b"1")])
    copy = head.copy()
    copy.set(b"b", b"2")
    copy.path = b"/y"
    assert head.fields == [(b"b", b"1")] and head.path == b"/" and head.index == {b"b": b"1"}
