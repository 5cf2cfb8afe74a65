"""Blocks that put a value of their own into the dynamic table each time: a request id that the peer indexes, say.

Every entry that such a block makes moves all others on by one, so that the same fields are named by other octets in the
next block, and neither a remembered block nor a pattern fits. Here the octets that name entries are counted on by as much as
the table has grown since, and the whole block is compared, not decoded. Whatever does not fit exactly is left to the decoder,
errors included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sidecar.codec.hpack_huffman import decode as huffman_decode
from sidecar.codec.hpack_pattern import VISIBLE, has_odd_characters, string_end
from sidecar.codec.hpack_table import FIRST_DYNAMIC, OVERHEAD, VOLATILE, continued
from sidecar.codec.wire import Field

_LAST_STATIC: Final = FIRST_DYNAMIC - 1
_LARGEST_BYTE: Final = 126  # the largest index that takes one octet
_NOTHING_NAMED: Final = -(1 << 60)
_MOST_HOLES: Final = 8

Segment = tuple[bytes, int, int]
"""Octets, and the same as two numbers if some of them name entries: the octets, and 1 in place of each of those."""


class Shifting:
    """A kind of block, and the places of what differs in it.

    ``kept`` is its owner's, ``accepts`` says of a path whether it may be one of these, and ``end`` is whether the message
    ended with the block. ``holes`` are the names of the values that ``match``
    gives, in their order, and ``places`` say where they stand among ``fields``, which have none there.
    """

    __slots__ = (
        "accepts", "base", "deepest", "end", "fields", "first", "holes", "inserting", "kept", "largest", "longest", "newest",
        "places", "reach", "segments",
    )  # fmt: skip

    def __init__(
        self,
        base: int,
        deepest: int,
        newest: list[tuple[int, bytes]],
        segments: Sequence[Segment],
        fields: list[Field],
        places: list[int],
        inserting: list[int],
    ) -> None:
        self.base = base  # how many entries had been made before the block that this was made of
        self.deepest = deepest  # the largest index that it named, of fields that stay where they are
        self.newest = newest  # names of entries that a block names by how long ago they were made
        self.reach = max([back for back, _ in newest], default=0)
        self.places = places
        self.holes = tuple([fields[place][0] for place in places])
        self.fields = [(name, b"" if at in places else value) for at, (name, value) in enumerate(fields)]
        self.first = segments[0]
        self.segments = [(name == b":path", *segment) for name, segment in zip(self.holes, segments[1:], strict=True)]
        # Which of the values enter the table, under which name, and what an entry takes beside its value.
        self.inserting = [(hole, self.holes[hole], len(self.holes[hole]) + OVERHEAD) for hole in inserting]
        self.end = False
        self.kept: Any = None
        self.largest = self.longest = 0
        self.accepts: Callable[[bytes], bool]

    def match(self, block: bytes, decoder: Any) -> list[bytes] | None:
        """The values in ``block``, which takes effect on the table of ``decoder``; None, and nothing happens, if it differs."""
        entries: list[Field] = decoder.entries
        count = len(entries)
        size = len(block)
        shift = decoder.inserted - self.base
        deepest = self.deepest + shift
        if (
            deepest > _LARGEST_BYTE
            or deepest - _LAST_STATIC > count
            or decoder.largest > self.largest
            or size > self.longest
        ):
            return None
        segment, octets, ones = self.first
        if ones:
            segment = (octets + ones * shift).to_bytes(len(segment), "big")
        if not block.startswith(segment):
            return None
        at = len(segment)
        values = []
        try:
            for remembered, segment, octets, ones in self.segments:
                length = block[at]
                at += 1
                if length > 127:
                    length &= 127
                    value = block[at : at + length]
                    value = decoder.texts[value] if remembered else huffman_decode(value)
                else:
                    value = block[at : at + length]
                at += length
                if ones:
                    segment = (octets + ones * shift).to_bytes(len(segment), "big")
                if length == 127 or not block.startswith(segment, at):
                    return None
                if value.translate(VISIBLE) != value and (remembered or has_odd_characters(value)):
                    return None
                at += len(segment)
                values.append(value)
            for back, name in self.newest:
                if entries[-back][0] != name:
                    return None
        except (IndexError, ValueError):
            return None
        if at != size:
            return None
        # The values enter the table, unless what the block named before would leave it for them.
        fresh = []
        size = decoder.size
        for hole, name, length in self.inserting:
            value = values[hole]
            length += len(value)
            if length > decoder.largest:
                return None
            size += length
            fresh.append((name, value))
        gone = 0
        if size > decoder.max_size:
            oldest = count - max(deepest - _LAST_STATIC, self.reach)
            while size > decoder.max_size:
                if gone >= oldest:
                    return None
                name, value = entries[gone]
                size -= len(name) + len(value) + OVERHEAD
                gone += 1
        entries += fresh
        if gone:
            del entries[:gone]
        decoder.size = size
        decoder.inserted += len(fresh)
        decoder.settled = None
        decoder.misses = 0
        if decoder.known or decoder.sections:
            decoder.forget()
        return values

    def filled(self, values: list[bytes]) -> list[Field]:
        """The whole header list with these values."""
        fields = self.fields.copy()
        for place, value in zip(self.places, values, strict=True):
            fields[place] = (fields[place][0], value)
        return fields

    def __repr__(self) -> str:
        return f"<Shifting {self.holes}>"


def shifting_of(block: bytes, fields: list[Field], inserted: int, count: int) -> Shifting | None:
    """What is to be made of a block that was decoded into ``fields``, pseudo-header fields included.

    Before it ``inserted`` entries had been made, and ``count`` were in the table. None if the block may not come again with
    other values only: for what it puts into the table that is not volatile, for one.
    """
    octets = bytearray(block)
    ones = bytearray(len(block))
    bounds: list[tuple[int, int]] = []
    places: list[int] = []
    names: set[bytes] = set()
    inserting: list[int] = []
    newest: list[tuple[int, bytes]] = []
    deepest = _NOTHING_NAMED
    at = 0
    for place, (name, _) in enumerate(fields):
        byte = block[at]
        start = at
        at += 1
        if byte & 0x80:
            index = byte & 0x7F
            if index > _LARGEST_BYTE:
                return None
            if index > _LAST_STATIC:
                if index - len(inserting) <= _LAST_STATIC:
                    return None  # an entry of this very block
                ones[start] = 1
                deepest = max(deepest, index)
            continue
        if byte & 0x60 == 0x20:
            return None
        mask = 0x3F if byte & 0x40 else 0x0F
        index = byte & mask
        if index == mask:
            index, at = continued(block, at, mask)
        if index > _LAST_STATIC:
            back = index - _LAST_STATIC - len(inserting)
            if back <= 0:
                return None
            newest.append((back, name))
        elif not index:
            at = string_end(block, at)
        if name in VOLATILE and name not in names:
            end = string_end(block, at)
            if byte & 0x40:
                inserting.append(len(places))
            names.add(name)
            places.append(place)
            bounds.append((at, end))
            at = end
        elif byte & 0x40:
            return None
        else:
            at = string_end(block, at)
    if not inserting or len(places) > _MOST_HOLES or at != len(block) or deepest - _LAST_STATIC > count:
        return None
    segments = []
    start = 0
    for begin, end in (*bounds, (len(block), len(block))):
        number = int.from_bytes(ones[start:begin], "big")
        segments.append((bytes(octets[start:begin]), int.from_bytes(octets[start:begin], "big"), number))
        start = end
    return Shifting(inserted, deepest, newest, segments, fields, places, inserting)
