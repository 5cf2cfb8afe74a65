"""Whether a text has certain characters only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.characters import NOTHING, only


@given(st.binary(), st.binary(max_size=12))
def test_a_table_passes_what_has_nothing_else(allowed: bytes, text: bytes) -> None:
    table = only(allowed)
    assert (text.translate(table) == text) is (not text.translate(None, allowed))


def test_each_octet_by_itself() -> None:
    for allowed in (b"", b"\x00", b"az", bytes(range(0x21, 0x7F)), bytes(range(256))):
        table = only(allowed)
        assert {octet for octet in range(256) if bytes((octet,)).translate(table) == bytes((octet,))} == set(allowed)


def test_nothing_passes_the_table_of_nothing_but_the_empty_text() -> None:
    assert b"".translate(NOTHING) == b""
    assert all(bytes((octet,)).translate(NOTHING) != bytes((octet,)) for octet in range(256))
