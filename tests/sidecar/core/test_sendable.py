"""What may not stand on the wire does not leave, and everything else does, unchanged."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.head import RequestHead, ResponseHead
from sidecar.core.sendable import sendable_fields, unsendable

_names = st.one_of(st.sampled_from([b"a", b"x-y", b"x y", b"", b"a:b", b"a\r\nb"]), st.binary(max_size=6))
_values = st.one_of(
    st.sampled_from([b"", b"v", b"a b", b"a\tb", b"a\n", b"\r", b"\0", b"a\x07", b"\x7f"]), st.binary(max_size=8)
)
_fields = st.lists(st.tuples(_names, _values), max_size=6)


def _is_right(name: bytes, value: bytes) -> bool:
    return re.fullmatch(rb"[!#-'*+.0-9A-Z^-z|~-]+", name) is not None and not {*range(9), *range(10, 32), 127} & set(
        value
    )


@given(_fields)
def test_a_request_leaves_if_all_its_fields_may(fields: list[tuple[bytes, bytes]]) -> None:
    wrong = unsendable(RequestHead(b"GET", b"/", b"a", list(fields)))
    assert (not wrong) == all(_is_right(name, value) for name, value in fields), wrong
    assert not {"\0", "\n", "\r"} & set(wrong)


@given(_fields)
def test_a_response_leaves_without_the_fields_that_may_not(fields: list[tuple[bytes, bytes]]) -> None:
    head = ResponseHead(200, list(fields))
    sendable_fields(head)
    wrong = {name for name, value in fields if not _is_right(name, value)}
    assert head.fields == [(name, value) for name, value in fields if name not in wrong]
    assert set(head.index) == {name for name, _ in head.fields}


def test_the_request_line() -> None:
    for path, authority in ((b"/a\r\nb", b"a"), (b"/a b", b"a"), (b"/", b"a\nb")):
        assert unsendable(RequestHead(b"GET", path, authority, [])).startswith("invalid header value for: :")
