"""HPACK against the hpack package, both directions, while tables change; and what RFC 7541 has us refuse."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.codec.hpack_decoder import STEADY, HpackDecoder, ListTooLarge
from sidecar.codec.hpack_encoder import HpackEncoder
from sidecar.codec.hpack_table import OVERHEAD, STATIC, HpackError, integer
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.wire import Field

from .http2_recording import decoded

NAMES = st.sampled_from([name for name, _ in STATIC[1:]] + [b"x-a", b"x-b", b"x-" + b"n" * 40, b"x-request-id", b"b3"])
VALUES = st.one_of(
    st.sampled_from([b"", b"1", b"GET", b"/", b"200", b"gzip, deflate", b"v" * 127, b"v" * 300]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60).map(str.encode),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=20)
SIZES = st.sampled_from([0, 1, 40, 100, 500, 4096, 10000])
DROPPED = {b"host", b"transfer-encoding", b"te", b"connection", b"upgrade"}
STEPS = st.lists(st.one_of(FIELDS, SIZES), min_size=1, max_size=30)


def sendable(fields: list[Field]) -> list[Field]:
    return [field for field in fields if field[0] not in DROPPED]


@given(STEPS, st.sampled_from([0, 64, 4096, 65536]))
def test_what_our_encoder_writes_another_decoder_reads(steps: list[list[Field] | int], table_size: int) -> None:
    encoder = HpackEncoder(table_size)
    decoder = Decoder(max_header_list_size=1 << 20)
    for step in steps:
        if isinstance(step, int):
            decoder.max_allowed_table_size = step
            encoder.allow(step)
        else:
            for _ in range(3):  # the second time inserts, the third time refers
                assert decoded(decoder, encoder.encode(step)) == sendable(step)
            table = decoder.header_table
            assert list(table.dynamic_entries) == list(reversed(encoder.indexed))
            assert encoder.size == sum(len(name) + len(value) + OVERHEAD for name, value in encoder.indexed)
            assert encoder.size <= encoder.max_size <= table_size


@given(STEPS, st.booleans())
def test_what_another_encoder_writes_our_decoder_reads(steps: list[list[Field] | int], huffman: bool) -> None:
    encoder = Encoder()
    decoder: HpackDecoder[object] = HpackDecoder(Texts(), 1 << 20, 1000)
    sizes = [4096]
    for step in steps:
        if isinstance(step, int):
            sizes.append(step)
        else:
            if sizes[-1] != encoder.header_table_size:  # it would write all of those between, too
                decoder.allow(sizes[-1])
                encoder.header_table_size = sizes[-1]
            for kind in (HeaderTuple, HeaderTuple, NeverIndexedHeaderTuple):
                block = encoder.encode([kind(*field) for field in step], huffman=huffman)
                fields, effect = decoder.decode(block)
                assert fields == step
                if decoder.known.get(block) is not None:
                    assert decoder.known[block] == fields
                elif effect == STEADY and decoder.wants(block):
                    decoder.keep(block, list(fields))
                assert list(encoder.header_table.dynamic_entries) == list(reversed(decoder.entries))


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_decoded_as_another_decoder_does_or_refused(block: bytes) -> None:
    ours: HpackDecoder[object] = HpackDecoder(Texts(), 1 << 20, 1000)
    theirs = Decoder(max_header_list_size=1 << 20)
    try:
        expected = decoded(theirs, block)
    except Exception:
        with pytest.raises(HpackError):
            ours.decode(block)
    else:
        assert ours.decode(block)[0] == expected


BROKEN = {
    "index 0": b"\x80",
    "an index behind both tables": integer(0x80, 127, 62),
    "a name's index behind both tables": integer(0x40, 63, 62) + b"\x00",
    "an integer that never ends": b"\xff" + b"\xff" * 12,
    "an integer above 32 bits": b"\xff\x80\x80\x80\x80\x7f",
    "an integer that is cut off": b"\xff",
    "a string that is cut off": b"\x40\x01a\x05abc",
    "a name that is cut off": b"\x40\x05abc",
    "a literal without a value": b"\x41",
    "an update behind a field": b"\x82\x20",
    "an update above the limit": integer(0x20, 31, 4097),
    "wrong padding": b"\x41\x81\x00",
    "EOS": b"\x41\x84\xff\xff\xff\xff",
}


@pytest.mark.parametrize("block", BROKEN.values(), ids=BROKEN)
def test_a_broken_block_is_refused(block: bytes) -> None:
    decoder: HpackDecoder[object] = HpackDecoder(Texts())
    with pytest.raises(HpackError):
        decoder.decode(block)


def test_a_smaller_table_has_to_be_confirmed_by_an_update() -> None:
    decoder: HpackDecoder[object] = HpackDecoder(Texts())
    decoder.allow(100)
    with pytest.raises(HpackError):
        decoder.decode(b"\x82")
    decoder = HpackDecoder(Texts())
    decoder.allow(100)
    assert decoder.decode(integer(0x20, 31, 100) + b"\x82")[0] == [(b":method", b"GET")]
    assert decoder.decode(b"\x82")[0] == [(b":method", b"GET")]


def test_both_updates_of_a_table_that_shrank_and_grew_between_blocks_are_written() -> None:
    encoder = HpackEncoder()
    for size in (300, 10, 200, 4096):
        encoder.allow(size)
    assert encoder.encode([]) == integer(0x20, 31, 10) + integer(0x20, 31, 4096)
    assert encoder.encode([]) == b""


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder: HpackDecoder[object] = HpackDecoder(Texts())
    decoder.decode(b"\x40\x01a\x01b")
    assert len(decoder.entries) == 1
    decoder.decode(b"\x40\x01a" + integer(0, 127, 5000) + b"v" * 5000)
    assert decoder.entries == []
    assert decoder.size == 0


def test_volatile_fields_stay_out_of_the_table_and_secrets_are_marked() -> None:
    encoder = HpackEncoder()
    fields = [(b"x-request-id", b"1"), (b":path", b"/a"), (b"authorization", b"secret"), (b"cookie", b"a=1")]
    for _ in range(3):
        block = encoder.encode(fields)
    assert not encoder.indexed
    assert not encoder
    by_name = {bytes(field[0]): field for field in Decoder().decode(block, raw=True)}
    assert isinstance(by_name[b"authorization"], NeverIndexedHeaderTuple)
    assert isinstance(by_name[b"cookie"], NeverIndexedHeaderTuple)
    assert not isinstance(by_name[b"x-request-id"], NeverIndexedHeaderTuple)


def test_a_field_that_differs_every_time_never_reaches_the_table() -> None:
    encoder = HpackEncoder()
    for number in range(2000):
        encoder.encode([(b"x-unknown-id", b"%d" % number), (b"x-same", b"1")])
    assert list(encoder.indexed) == [(b"x-same", b"1")]
    assert len(encoder.once) <= 64
    assert len(encoder) <= 256


def test_a_full_table_lets_newcomers_in_now_and_then() -> None:
    encoder = HpackEncoder()
    decoder = Decoder()
    for round_ in range(40):
        for number in range(30):
            fields = [(b"x-long-%d" % (number + 30 * (round_ // 20)), b"v" * 200)]
            assert decoded(decoder, encoder.encode(fields)) == fields
    assert encoder.size <= 4096
    assert any(name.startswith(b"x-long-3") for name, _ in encoder.indexed)


def test_an_indexed_bomb_is_refused_and_the_table_stays_in_step() -> None:
    decoder: HpackDecoder[object] = HpackDecoder(Texts(), 60 * 1024, 10000)
    decoder.decode(b"\x40\x01a" + integer(0, 127, 4000) + b"v" * 4000)
    with pytest.raises(ListTooLarge):
        decoder.decode(b"\xbe" * 16 + b"\x40\x01b\x01c")
    assert decoder.entries[-1] == (b"b", b"c")


def test_many_small_fields_are_refused_by_their_number_and_by_their_overhead() -> None:
    with pytest.raises(ListTooLarge, match="too_many"):
        HpackDecoder[object](Texts(), 60 * 1024, 100).decode(b"\x82" * 101)
    with pytest.raises(ListTooLarge, match="too_large"):
        HpackDecoder[object](Texts(), 1000, 100).decode(b"\x82" * 30)
    assert len(HpackDecoder[object](Texts(), 1260, 100).decode(b"\x82" * 30)[0]) == 30  # 7 + 3 + 32 octets each


def test_what_is_remembered_of_blocks_goes_with_the_table_and_is_bounded() -> None:
    decoder: HpackDecoder[int] = HpackDecoder(Texts())
    for number in range(200):
        block = b"\x00\x01a\x03%03d" % number
        assert decoder.decode(block)[1] == STEADY
        if decoder.wants(block):
            decoder.keep(block, number)
        assert len(decoder.known) <= 8
    assert decoder.known
    assert decoder.decode(b"\x40\x01a\x01b")[1] == 1
    assert not decoder.known


def test_shared_texts_are_bounded_and_hold_no_secrets() -> None:
    shared = Texts(most=8)
    decoder: HpackDecoder[object] = HpackDecoder(shared)
    encoder = Encoder()
    for number in range(100):
        decoder.decode(encoder.encode([(b"x-%d" % number, b"value-%d" % number)]))
        assert len(shared) <= 8
    shared.clear()
    decoder.decode(encoder.encode([(b"authorization", b"secret"), (b"cookie", b"a=12345678")]))
    assert not shared


def test_a_block_that_is_remembered_does_not_hide_that_a_size_update_is_due() -> None:
    decoder: HpackDecoder[str] = HpackDecoder(Texts())
    block = b"\x40\x01a\x01b"
    fields, effect = decoder.decode(block)
    assert effect == 1
    decoder.keep_inserting(block, "made", effect)
    assert decoder.insert(decoder.inserting[block]) == "made"
    assert decoder.entries == fields * 2
    decoder.allow(100)
    assert not decoder.inserting
    with pytest.raises(HpackError, match="size update"):
        decoder.decode(block)
