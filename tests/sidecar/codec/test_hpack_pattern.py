"""Patterns of header blocks: a block that is taken apart in one step means what it means when it is compared piece by piece."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.codec.hpack_decoder import HpackDecoder
from sidecar.codec.hpack_huffman import encode
from sidecar.codec.hpack_pattern import Pattern, pattern_of
from sidecar.codec.hpack_table import integer
from sidecar.codec.hpack_texts import Texts

NAMES = (b":path", b"x-request-id", b"x-envoy-upstream-service-time")
VALUES = st.tuples(
    st.binary(max_size=12).map(lambda text: b"/" + text) | st.sampled_from((b"/a", b"/b", b"/ab", b"/a b", b"")),
    st.binary(max_size=8) | st.sampled_from((b"1", b"2", b"12", b" 1", b"1\t2", b"x" * 126, b"x" * 127)),
    st.sampled_from((b"0", b"7", b"12", b"", b"\x00")),
)
DAMAGE = st.tuples(st.integers(0, 200), st.integers(0, 255)) | st.none()


def block_of(values: tuple[bytes, ...]) -> bytes:
    """GET, the values without Huffman coding and without indexing between constants, and a constant behind them."""

    def text(octets: bytes) -> bytes:
        return bytes((len(octets),)) + octets if len(octets) < 127 else b"\x7f\x00" + octets

    path, request_id, took = values
    coded = b"\x82\x04" + text(path) + b"\x86\x00" + text(NAMES[1]) + text(request_id)
    return coded + b"\x00\x03x-a\x011" + b"\x00" + text(NAMES[2]) + text(took) + b"\x00\x03x-b\x012"


def pattern(values: tuple[bytes, ...] = (b"/first", b"1", b"3")) -> Pattern[Any]:
    fields = [(NAMES[1], values[1]), (b"x-a", b"1"), (NAMES[2], values[2]), (b"x-b", b"2")]
    made = pattern_of(block_of(values), [], fields)
    assert made is not None
    return made


@given(st.lists(st.tuples(VALUES, DAMAGE), max_size=30))
@settings(deadline=None, max_examples=300)
def test_in_one_step_as_piece_by_piece(traffic: list[tuple[tuple[bytes, ...], tuple[int, int] | None]]) -> None:
    remembering, texts = pattern(), Texts()
    for values, damage in traffic:
        block = bytearray(block_of(values))
        if damage is not None:
            block[damage[0] % len(block)] = damage[1]
        found = remembering.match(bytes(block), texts)
        assert found == pattern().match(bytes(block), texts)
        if damage is None and found is not None:
            assert tuple(found) == values


def test_sizes_are_learnt_once_and_not_without_bound() -> None:
    made, texts = pattern(), Texts()
    for size in range(1, 60):
        values = (b"/" * size, b"1", b"2")
        assert made.match(block_of(values), texts) == [*values]
    assert len(made.cuts) == 16
    assert made.match(block_of((b"/b", b"22", b"3")), texts) == [b"/b", b"22", b"3"]  # the size of /bb, cut elsewhere


def test_values_in_huffman_coding_are_compared_piece_by_piece() -> None:
    made, texts = pattern(), Texts()
    path = encode(b"/items/17")
    coded = block_of((b"/b", b"1", b"2")).replace(b"\x04\x02/b", b"\x04" + bytes((0x80 | len(path),)) + path)
    assert made.match(coded, texts) == [b"/items/17", b"1", b"2"]
    assert not made.cuts


def test_what_is_remembered_of_long_blocks_is_bounded() -> None:
    value = b"v" * 1000

    def coded(path: bytes) -> bytes:
        return b"\x82\x04" + bytes((len(path),)) + path + b"\x00\x03x-a" + integer(0, 127, len(value)) + value

    made = pattern_of(coded(b"/"), [], [(b"x-a", value)])
    assert made is not None
    for size in range(1, 20):
        assert made.match(coded(b"/" * size), Texts()) == [b"/" * size]
    assert len(made.cuts) == 4


def test_the_newest_pattern_is_tried_first() -> None:
    decoder: HpackDecoder[Any] = HpackDecoder(Texts(), 65536, 100)
    patterns = [pattern((b"/", b"%d" % number, b"1")) for number in range(6)]
    for each in patterns:
        decoder.keep_pattern(each)
    assert decoder.patterns == patterns[:1:-1]
