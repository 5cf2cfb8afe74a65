"""Header mutations against a plain reading of the rules (that levels combine as in Envoy is shown against Envoy)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.core_types import HeaderValueOption
from sidecar.core.head import Field, RequestHead
from sidecar.router.header_mutation import compile_header_mutations
from tests.sidecar.router.compiling import compile_format, stream

names = st.sampled_from([b"a", b"b", b"c"])
values = st.sampled_from(["", "1", "2", "%REQ(a)%", "x%%"])
actions = st.sampled_from(
    ["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]
)
options = st.lists(st.builds(HeaderValueOption, names, values, actions, st.booleans()), max_size=5)
fields = st.lists(st.tuples(names, st.sampled_from([b"1", b"2"])), max_size=4)


def _overwrite(pairs: list[Field], name: bytes, value: bytes) -> list[Field]:
    if name not in dict(pairs):
        return [*pairs, (name, value)]
    first = next(at for at, pair in enumerate(pairs) if pair[0] == name)
    return [
        pair if pair[0] != name else (name, value) for at, pair in enumerate(pairs) if pair[0] != name or at == first
    ]


def naive(pairs: list[Field], to_add: list[HeaderValueOption], to_remove: list[bytes]) -> list[Field]:
    pairs = [pair for pair in pairs if pair[0] not in to_remove]
    before = RequestHead(b"GET", b"/", b"h", list(pairs))
    rendered = [(option, compile_format(option.value)(stream(before))) for option in to_add]
    wanted = [(option, value) for option, value in rendered if value or option.keep_empty_value]
    present = dict(pairs)
    for option, value in wanted:
        must_be_there = option.append_action == "OVERWRITE_IF_EXISTS"
        if option.append_action.startswith("OVERWRITE") and (option.key in present or not must_be_there):
            pairs = _overwrite(pairs, option.key, value)
    for option, value in wanted:
        must_be_missing = option.append_action == "ADD_IF_ABSENT"
        if not option.append_action.startswith("OVERWRITE") and not (must_be_missing and option.key in present):
            pairs = [*pairs, (option.key, value)]
    return pairs


@given(fields, options, st.lists(names, max_size=2))
def test_mutations(pairs: list[Field], to_add: list[HeaderValueOption], to_remove: list[bytes]) -> None:
    head = RequestHead(b"GET", b"/", b"h", list(pairs))
    mutate = compile_header_mutations(to_add, to_remove, compile_format)
    if mutate is not None:
        mutate(head, stream(head))
    assert head.fields == naive(pairs, to_add, to_remove)
    assert head.index == RequestHead(b"GET", b"/", b"h", head.fields).index


def test_nothing_to_do_is_no_function() -> None:
    empty: Any = HeaderValueOption(b"a", "", "APPEND_IF_EXISTS_OR_ADD", False)
    assert compile_header_mutations((), (), compile_format) is None
    assert compile_header_mutations((empty,), (), compile_format) is None


def test_formats_are_compiled_once_and_constants_not_at_all() -> None:
    compiled: list[str] = []

    def recording(text: str) -> Any:
        compiled.append(text)
        return compile_format(text)

    to_add = [HeaderValueOption(b"a", value, "APPEND_IF_EXISTS_OR_ADD", False) for value in ("plain", "%REQ(b)%")]
    mutate = compile_header_mutations(to_add, (), recording)
    assert mutate is not None
    for _ in range(3):
        head = RequestHead(b"GET", b"/", b"h", [(b"b", b"2")])
        mutate(head, stream(head))
        assert head.get_all(b"a") == [b"plain", b"2"]
    assert compiled == ["%REQ(b)%"]
