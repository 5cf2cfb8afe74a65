"""Blocks that differ in a few values only: a path, a request id. What is the same of them is compared, not decoded.

A pattern is made from one block that left the dynamic table alone. It holds the octets between the literals of volatile
fields; a block that has the same octets around other values means the same but for those, as long as the table does not
change: the decoder drops its patterns then. Whatever does not fit exactly is left to the decoder, errors included.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Generic, TypeVar

from sidecar.codec.hpack_huffman import decode as huffman_decode
from sidecar.codec.hpack_table import FIRST_DYNAMIC, STATIC, VOLATILE, continued
from sidecar.codec.wire import Field
from sidecar.core.characters import only

Kept = TypeVar("Kept")

VISIBLE: Final = only(bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100)))
"""Of what may stand anywhere in a value; blanks may, too, but not outside (RFC 9113 section 8.2.1)."""

_VISIBLE_OR_BLANK: Final = only(bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100)) + b" \t")
_BLANKS: Final = b" \t"
_MOST_HOLES: Final = 8
_MOST_CUTS: Final = 16
_CUT_OCTETS: Final = 4096
"""So long are all blocks together of which is remembered how they come apart: each keeps its constants."""

Cut = tuple[Callable[[bytes], tuple[bytes, ...]], tuple[bytes, ...]]
"""How a block of one size comes apart into constants and values in turn, and those constants, lengths of values included."""


class Pattern(Generic[Kept]):
    """What is constant of a block, and what was made of it, which its owner puts into ``kept``.

    ``spots`` are the volatile fields: where they stand among the regular fields, -1 for :path, and their names. ``cuts``
    has, by their sizes, blocks whose values came without Huffman coding: those are taken apart in one step.
    """

    __slots__ = ("cuts", "first", "kept", "room", "segments", "spots")

    kept: Kept

    def __init__(
        self, first: bytes, segments: tuple[tuple[bool, bytes], ...], spots: tuple[tuple[int, bytes], ...]
    ) -> None:
        self.first = first
        self.segments = segments  # whether a value is a path, which is worth remembering, and the octets behind it
        self.spots = spots
        self.cuts: dict[int, Cut] = {}
        self.room = _CUT_OCTETS

    def match(self, block: bytes, texts: dict[bytes, bytes]) -> list[bytes] | None:
        """The values at ``spots`` in ``block``; None if it does not fit, or has values to be looked at more closely."""
        if self.cuts:
            cut = self.cuts.get(len(block))
            if cut is not None:
                unpack, constants = cut
                pieces = unpack(block)
                if pieces[::2] == constants:
                    values = [*pieces[1::2]]
                    joined = b"".join(values)
                    if joined.translate(VISIBLE) == joined:
                        return values
        if not block.startswith(self.first):
            return None
        at = len(self.first)
        values = []
        plain = True
        try:
            for remembered, segment in self.segments:
                length = block[at]
                at += 1
                if length > 127:
                    plain = False
                    length &= 127
                    value = block[at : at + length]
                    value = texts[value] if remembered else huffman_decode(value)
                else:
                    value = block[at : at + length]
                at += length
                if length == 127 or not block.startswith(segment, at):
                    return None
                if value.translate(VISIBLE) != value and (remembered or has_odd_characters(value)):
                    return None
                at += len(segment)
                values.append(value)
        except (IndexError, ValueError):
            return None
        if at != len(block):
            return None
        if plain and at <= self.room and len(self.cuts) < _MOST_CUTS and at not in self.cuts:
            self._learn(block, values)
        return values

    def _learn(self, block: bytes, values: list[bytes]) -> None:
        """Remember how a block that fits comes apart."""
        sizes = [len(self.first) + 1]
        for value, (_, segment) in zip(values, self.segments, strict=True):
            sizes += (len(value), len(segment) + 1)
        sizes[-1] -= 1  # behind the last value no length follows
        unpack = Struct("".join([f"{size}s" for size in sizes])).unpack
        self.room -= len(block)
        self.cuts[len(block)] = unpack, unpack(block)[::2]


def pattern_of(block: bytes, entries: list[Field], fields: list[Field]) -> Pattern[Any] | None:
    """The pattern of a block that has been decoded, over these dynamic ``entries``, into these regular ``fields``.

    None if nothing in it is volatile, or if that does not stand in the fields just as in the block.
    """
    segments: list[bytes] = []
    names: list[bytes] = []
    start = at = 0
    while at < len(block):
        byte = block[at]
        at += 1
        if byte & 0x80:
            if byte == 0xFF:
                _, at = continued(block, at, 127)
            continue
        if byte & 0x60:
            return None  # it changes the table
        index = byte & 15
        if index == 15:
            index, at = continued(block, at, 15)
        if index:
            name = STATIC[index][0] if index < FIRST_DYNAMIC else entries[FIRST_DYNAMIC - 1 - index][0]
        else:
            end = string_end(block, at)
            name = block[at + 1 : end] if block[at] & 127 < 127 else b""
            if block[at] > 127:
                name = huffman_decode(name)
            at = end
        end = string_end(block, at)
        if name in names:
            return None
        if name in VOLATILE:
            segments.append(block[start:at])
            names.append(name)
            start = end
        at = end
    places = [name for name, _ in fields]
    if not names or len(names) > _MOST_HOLES or any(places.count(name) != (name != b":path") for name in names):
        return None
    segments.append(block[start:])
    holes = tuple((name == b":path", segment) for name, segment in zip(names, segments[1:], strict=True))
    spots = tuple((places.index(name) if name != b":path" else -1, name) for name in names)
    return Pattern(segments[0], holes, spots)


def has_odd_characters(value: bytes) -> bool:
    """Whether a value, which is not empty, has what no field may have."""
    return value.translate(_VISIBLE_OR_BLANK) != value or value[0] in _BLANKS or value[-1] in _BLANKS


def string_end(block: bytes, at: int) -> int:
    """Where what follows the string at ``at`` begins."""
    length = block[at] & 127
    at += 1
    if length == 127:
        length, at = continued(block, at, 127)
    return at + length
