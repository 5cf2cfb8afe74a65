"""gRPC's framing: whole, in pieces, and what is refused."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.codec.grpc import FramingError, MessageCounter, MessageReader, frame

messages = st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=8)


def test_a_frame_is_flag_length_and_message() -> None:
    assert frame(b"hello") == b"\x00\x00\x00\x00\x05hello"
    assert frame(b"", True) == b"\x01\x00\x00\x00\x00"
    assert frame(b"x" * 70000)[:5] == b"\x00" + struct.pack(">I", 70000)


@given(messages, st.lists(st.integers(0, 400), max_size=12))
def test_messages_come_back_however_they_are_cut(sent: list[tuple[bool, bytes]], cuts: list[int]) -> None:
    wire = b"".join(frame(message, compressed) for compressed, message in sent)
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    reader, counter = MessageReader(), MessageCounter()
    received: list[tuple[bool, bytes]] = []
    for begin, end in pairwise(places):
        received += reader.feed(wire[begin:end])
        counter.feed(wire[begin:end])
    assert received == sent
    assert not reader.unfinished
    assert counter.count == len(sent)


@given(messages, st.binary(min_size=1, max_size=4))
def test_octet_by_octet_with_an_unfinished_end(sent: list[tuple[bool, bytes]], rest: bytes) -> None:
    rest = b"\x00" + rest[1:]
    wire = b"".join(frame(message, compressed) for compressed, message in sent) + rest
    reader, counter = MessageReader(), MessageCounter()
    received = [message for at in range(len(wire)) for message in reader.feed(wire[at : at + 1])]
    counted = [counter.feed(wire[at : at + 1]) for at in range(len(wire))]
    assert received == sent
    assert reader.unfinished
    assert sum(counted) == counter.count == len(sent) + 1


def test_a_message_counts_with_its_first_octet_only() -> None:
    counter = MessageCounter()
    wire = frame(b"abc")
    assert [counter.feed(wire[at : at + 1]) for at in range(len(wire))] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert counter.feed(frame(b"") + frame(b"d")) == 2


def test_a_length_that_is_too_large_is_refused_with_its_prefix() -> None:
    reader = MessageReader(10)
    assert reader.feed(frame(b"x" * 10)) == [(False, b"x" * 10)]
    with pytest.raises(FramingError, match="11 bytes is larger than the 10"):
        reader.feed(struct.pack(">BI", 0, 11))


def test_a_flag_that_is_not_known_is_refused() -> None:
    with pytest.raises(FramingError, match="flag 128"):
        MessageReader().feed(b"\x80\x00\x00\x00\x00")
