"""Blocks that index what varies: compared, they mean what they mean decoded, and leave the same table behind."""

from __future__ import annotations

from collections.abc import Sequence

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.codec.hpack_decoder import HpackDecoder
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.wire import Field

CONSTANT: tuple[Field, ...] = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"orders.shop:8080"),
    (b"user-agent", b"test/1"),
    (b"x-tenant", b"t1"),
)


class Shifted:
    """A decoder that compares where it can, beside one that decodes every block."""

    def __init__(self, room: int = 60 * 1024) -> None:
        self.quick: HpackDecoder[None] = HpackDecoder(Texts(), room)
        self.slow: HpackDecoder[None] = HpackDecoder(Texts(), room)
        self.compared = 0

    def take(self, block: bytes) -> list[Field]:
        quick, slow = self.quick, self.slow
        expected, _ = slow.decode(block)
        values = None if quick.shifting is None else quick.shifting.match(block, quick)
        if values is None:
            inserted, count = quick.inserted, len(quick.entries)
            found, effect = quick.decode(block)
            if effect:
                quick.keep_shifting(block, found, inserted, count)
        else:
            assert quick.shifting is not None
            found = quick.shifting.filled(values)
            self.compared += 1
        assert found == expected
        assert quick.entries == slow.entries
        assert (quick.size, quick.inserted, quick.max_size) == (slow.size, slow.inserted, slow.max_size)
        return found


def request(number: int, path: bytes = b"/items", *more: Field) -> list[Field]:
    return [*CONSTANT, (b":path", path), (b"x-request-id", b"%032x" % (number * 0x9E3779B97F4A7C15)), *more]


def encoded(encoder: hpack.Encoder, fields: Sequence[Field], literal: frozenset[bytes] = frozenset()) -> bytes:
    """A block in which the fields called ``literal`` are never indexed, and all others are."""
    return encoder.encode([hpack.NeverIndexedHeaderTuple(*one) if one[0] in literal else one for one in fields])


@pytest.mark.parametrize(
    "literal", [frozenset[bytes](), frozenset({b":path"})], ids=["everything indexed", "but the path"]
)
def test_most_blocks_of_a_kind_are_not_decoded(literal: frozenset[bytes]) -> None:
    both, encoder = Shifted(), hpack.Encoder()
    for number in range(300):
        both.take(encoded(encoder, request(number, b"/items/%d" % number), literal))
    assert both.compared > 200


def test_an_entry_that_is_pushed_out_by_the_block_that_names_it() -> None:
    """The peer may name the oldest entry, and push it out with the same block."""
    for room in range(64, 700, 8):
        both, encoder = Shifted(), hpack.Encoder()
        both.quick.allow(room)
        both.slow.allow(room)
        encoder.header_table_size = room
        for number in range(60):
            both.take(encoded(encoder, request(number), frozenset({b":path"})))


def test_an_index_never_outgrows_its_octet() -> None:
    """Above 126 an index takes more octets: those blocks are decoded."""
    both, encoder = Shifted(), hpack.Encoder()
    both.quick.allow(65536)
    both.slow.allow(65536)
    encoder.header_table_size = 65536
    for number in range(200):
        both.take(encoded(encoder, request(number), frozenset({b":path"})))
    assert both.quick.inserted > 128


def test_a_list_above_the_limit_is_not_compared() -> None:
    """Entries that have become larger since count for all fields, as they do for the decoder."""
    both, encoder = Shifted(room=2000), hpack.Encoder()
    for number in range(10):
        both.take(encoded(encoder, request(number), frozenset({b":path"})))
    compared = both.compared
    assert compared
    both.take(encoder.encode([(b"x-large", b"a" * 300)]))
    both.take(encoded(encoder, request(11), frozenset({b":path"})))
    assert both.compared == compared


_VALUES = st.sampled_from(
    (b"", b"1", b"abc", b"a b", b" a", b"\x80\xff", b"7f3d2c1b-1111-2222-3333-000000000000", b"z" * 150)
)


@st.composite
def lists(draw: st.DrawFn) -> list[Field]:
    """A header list: the usual one with other values, or something else."""
    if draw(st.integers(0, 4)):
        fields = request(
            draw(st.integers(0, 1 << 32)), draw(st.sampled_from((b"/", b"/a", b"/b", b"*", b"/" + b"p" * 140)))
        )
        if draw(st.booleans()):
            fields.append((b"traceparent", draw(_VALUES)))
        return fields
    names = st.sampled_from((b"x-request-id", b"x-other", b"user-agent", b":path", b"cookie"))
    return draw(st.lists(st.tuples(names, _VALUES), max_size=4))


@given(
    st.lists(
        st.tuples(lists(), st.frozensets(st.sampled_from((b":path", b"x-request-id", b"traceparent", b"x-tenant")))),
        max_size=40,
    ),
    st.dictionaries(st.integers(0, 39), st.sampled_from((0, 100, 200, 400, 4096)), max_size=3),
)
def test_any_sequence_of_blocks(
    blocks: list[tuple[list[Field], frozenset[bytes]]], sizes: list[tuple[int, int]]
) -> None:
    both, encoder = Shifted(), hpack.Encoder()
    for at, (fields, literal) in enumerate(blocks):
        size = sizes.get(at, encoder.header_table_size)
        if size != encoder.header_table_size:
            both.quick.allow(size)
            both.slow.allow(size)
            encoder.header_table_size = size
        both.take(encoded(encoder, fields, literal))


@given(st.binary(max_size=60), st.integers(1, 20))
def test_octets_that_were_changed_on_the_way(noise: bytes, kept: int) -> None:
    """A block that begins as the others do: compared or decoded, the same comes of it, errors included."""
    both, encoder = Shifted(), hpack.Encoder()
    for number in range(4):
        block = encoded(encoder, request(number), frozenset({b":path"}))
        both.take(block)
    changed = block[:kept] + noise
    try:
        both.slow.decode(changed)
    except Exception:
        assert both.quick.shifting is None or both.quick.shifting.match(changed, both.quick) is None
