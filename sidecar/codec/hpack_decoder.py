"""HPACK, inbound: header blocks to lists of fields (RFC 7541).

Work is remembered at two levels. ``known`` holds whatever the owner made of whole blocks, and ``patterns`` what blocks
that differ in volatile values have in common; both are emptied here as soon as the dynamic table changes, since a block
then means something else. ``inserting`` is for whole blocks that name no dynamic entry and make some: they mean the same
over any table, and what they add to it is known, too. ``texts``, shared by the connections of a worker, holds
Huffman-coded strings with what they say. All are bounded, and strings that differ from message to message or that are
secret are not remembered.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from sidecar.codec.hpack_huffman import decode as huffman_decode
from sidecar.codec.hpack_pattern import VISIBLE, Pattern, has_odd_characters, pattern_of
from sidecar.codec.hpack_shifting import Shifting, shifting_of
from sidecar.codec.hpack_table import FIRST_DYNAMIC, OVERHEAD, STATIC, VOLATILE, HpackError, continued
from sidecar.codec.hpack_texts import Texts
from sidecar.codec.wire import Field

Kept = TypeVar("Kept")

_STATIC_BY_BYTE: Final = [*([STATIC[0]] * 128), *STATIC]
_NEWEST: Final = 0x80 + FIRST_DYNAMIC - 1  # the byte that names the newest dynamic entry, less one
_FORGOTTEN: Final = VOLATILE - {b":path"}
_MOST_BLOCKS: Final = 8
_LONGEST_BLOCK: Final = 1024
_MOST_PATTERNS: Final = 4
_PATTERN_ROOM: Final = 4096  # for pseudo-header fields, and for values as long as a pattern takes
_PATIENCE: Final = 4
_LONGEST_SECTION: Final = 128

STEADY: Final = 0
CHANGED: Final = -1


class ListTooLarge(Exception):
    """A header list beyond the limits. The block was decoded to its end, so the connection can go on."""

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.details = details


class Inserting(Generic[Kept]):
    """What a block was made into, and the entries that it makes."""

    __slots__ = ("entries", "made", "size")

    def __init__(self, made: Kept, entries: list[Field], size: int) -> None:
        self.made = made
        self.entries = entries
        self.size = size


class HpackDecoder(Generic[Kept]):
    """The inbound half of one connection's header compression.

    ``table_size``: the most that the dynamic table may take, in octets, as our SETTINGS say. ``max_list_size`` bounds
    the decoded list (RFC 9113 section 6.5.2: octets, and 32 for each field), ``max_fields`` its length.
    """

    __slots__ = (
        "allowed", "entries", "inserted", "inserting", "known", "largest", "max_fields", "max_list_size", "max_size", "misses",
        "patterns", "sections", "settled", "shifting", "shrinking", "size", "suspicious", "texts",
    )  # fmt: skip

    def __init__(self, texts: Texts, max_list_size: int = 60 * 1024, max_fields: int = 100) -> None:
        self.texts = texts
        self.entries: list[Field] = []  # the oldest first
        self.size = 0
        self.max_size = 4096
        self.allowed = 4096
        self.shrinking = False  # the peer owes an update to a smaller size
        self.largest = 2 * OVERHEAD  # no entry of either table has ever been larger
        self.max_list_size = max_list_size
        self.max_fields = max_fields
        self.suspicious = False  # some value had characters that no field may have, and may still be in the table
        self.known: dict[bytes, Kept] = {}
        self.patterns: list[Pattern[Kept]] = []
        self.inserting: dict[bytes, Inserting[Kept]] = {}
        self.sections: dict[bytes, list[Field]] = {}  # short blocks of trailers
        self.inserted = 0  # entries that have been made, whatever became of them
        self.shifting: Shifting | None = (
            None  # blocks that make entries of volatile values, as the last one of the kind
        )
        self.settled: Inserting[Kept] | None = None  # what may be inserted again, and leaves the table as it is
        self.misses = 0

    def allow(self, size: int) -> None:
        """Our SETTINGS with this table size have been acknowledged."""
        self.allowed = size
        self.shrinking = size < self.max_size
        self.shifting = None
        if self.shrinking:  # the next block has to say so, whatever it means
            self.forget()
            self.inserting.clear()

    def wants(self, block: bytes) -> bool:
        """Whether what a block that left the table as it was is made into is worth a call of ``keep``.

        Blocks that never come again are not worth it: after some of them in a row, only a few are tried. Whoever finds
        one sets ``misses`` to 0.
        """
        misses = self.misses = self.misses + 1
        return (misses < _PATIENCE or not misses & 15) and len(block) <= _LONGEST_BLOCK

    def keep(self, block: bytes, made: Kept) -> None:
        """Remember what a wanted block was made into."""
        if len(self.known) >= _MOST_BLOCKS:
            self.known.clear()
        self.known[block] = made

    def pattern(self, block: bytes, fields: list[Field]) -> Pattern[Kept] | None:
        """What a wanted block has in common with others; ``fields`` are those of the head that was made of it.

        Set its ``kept``, and remember it with ``keep_pattern``.
        """
        size = sum([len(name) + len(value) + OVERHEAD for name, value in fields])
        if size + _PATTERN_ROOM > self.max_list_size:
            return None
        return pattern_of(block, self.entries, fields)

    def keep_pattern(self, pattern: Pattern[Kept]) -> None:
        """Remember a pattern that ``pattern`` has made, to be tried first: those before may be for a Date that is over."""
        self.patterns.insert(0, pattern)
        del self.patterns[_MOST_PATTERNS:]

    def keep_inserting(self, block: bytes, made: Kept, count: int) -> None:
        """Remember what a block was made into that made ``count`` entries, and named none."""
        if len(self.entries) < count:
            return  # some did not stay: over another table they may
        if len(self.inserting) >= _MOST_BLOCKS:
            self.inserting.clear()
        entries = self.entries[-count:]
        size = sum([len(name) + len(value) + OVERHEAD for name, value in entries])
        if size <= self.max_size // 2:
            self.inserting[block] = Inserting(made, entries, size)

    def insert(self, inserting: Inserting[Kept]) -> Kept:
        """Let a block take effect that ``inserting`` has: what was made of it."""
        if inserting is self.settled:
            return inserting.made
        entries = self.entries
        before = entries.copy()
        entries += inserting.entries
        self.size += inserting.size
        self.inserted += len(inserting.entries)
        if self.size > self.max_size:
            self._evict()
        # Once the table is full of one block's entries, that block pushes out what it puts in.
        self.settled = inserting if entries == before else None
        if self.known or self.sections:
            self.forget()
        return inserting.made

    def keep_section(self, block: bytes, fields: list[Field]) -> None:
        """Remember the fields of a block of trailers that left the table as it was."""
        if len(block) <= _LONGEST_SECTION:
            if len(self.sections) >= _MOST_BLOCKS:
                self.sections.clear()
            self.sections[block] = fields

    def forget(self) -> None:
        """The table has changed: blocks mean something else."""
        self.known.clear()
        self.patterns.clear()
        self.sections.clear()

    def decode(self, block: bytes) -> tuple[list[Field], int]:
        """The fields in ``block``, and what it did to the table: STEADY left it as it was, a positive number is how many
        entries were made by a block that names none, and CHANGED is anything else. Raises HpackError and ListTooLarge.
        """
        fields: list[Field] = []
        append = fields.append
        entries = self.entries
        inserted = 0
        dependent = False
        at = 0
        size = len(block)
        if self.shrinking and (not size or block[0] & 0xE0 != 0x20):
            raise HpackError("no size update where one is due")
        try:
            while at < size:
                byte = block[at]
                at += 1
                if byte > _NEWEST:
                    if byte == 0xFF:
                        index, at = continued(block, at, 127)
                        byte = 128 + index
                    append(entries[_NEWEST - byte])
                    dependent = True
                    continue
                if byte > 128:
                    append(_STATIC_BY_BYTE[byte])
                    continue
                if byte & 0x40:
                    index = byte & 0x3F
                    if index == 0x3F:
                        index, at = continued(block, at, 0x3F)
                elif byte == 128:
                    raise HpackError("index 0")
                elif byte & 0x20:
                    if fields:
                        raise HpackError("size update behind a field")
                    at = self._update_size(block, at - 1)
                    inserted = _LONGEST_BLOCK
                    dependent = True
                    continue
                else:
                    index = byte & 0x0F
                    if index == 0x0F:
                        index, at = continued(block, at, 0x0F)
                if not index:
                    length = block[at]
                    coded = length > 127
                    length &= 127
                    at += 1
                    if length == 127:
                        length, at = continued(block, at, 127)
                    name = block[at : at + length]
                    at += length
                    if coded:
                        name = self.texts[name]
                elif index < FIRST_DYNAMIC:
                    name = STATIC[index][0]
                else:
                    name = entries[FIRST_DYNAMIC - 1 - index][0]
                    dependent = True
                length = block[at]
                at += 1
                if length > 127:
                    length &= 127
                    if length == 127:
                        length, at = continued(block, at, 127)
                    value = block[at : at + length]
                    value = huffman_decode(value) if name in _FORGOTTEN else self.texts[value]
                else:
                    if length == 127:
                        length, at = continued(block, at, 127)
                    value = block[at : at + length]
                at += length
                # Most values have visible characters only; where blanks are among them, the rest is looked at, too.
                if value.translate(VISIBLE) != value and has_odd_characters(value):
                    self.suspicious = True
                field = (name, value)
                append(field)
                if byte & 0x40:
                    inserted += 1
                    self.inserted += 1
                    entries.append(field)
                    length = len(name) + len(value) + OVERHEAD
                    self.size += length
                    if length > self.largest:
                        self.largest = length
                    if self.size > self.max_size:
                        self._evict()
            if at > size:
                raise HpackError("block ends inside of a string")
        except IndexError:
            raise HpackError("no such entry, or block ends inside of a field") from None
        except ValueError as error:
            raise HpackError(str(error)) from None
        if inserted:
            self.settled = None
            if self.known or self.sections:
                self.forget()
        count = len(fields)
        if count > self.max_fields:
            raise ListTooLarge("http2.too_many_headers")
        if count * self.largest + 2 * size > self.max_list_size:
            # An exact count only where the largest entries could make a difference: a literal of n octets codes
            # at most 8n/5.
            total = sum([len(name) + len(value) + OVERHEAD for name, value in fields])
            if total > self.max_list_size:
                raise ListTooLarge("http2.header_list_size_too_large")
        return fields, CHANGED if inserted and dependent else inserted

    def _evict(self) -> None:
        entries = self.entries
        size = self.size
        gone = 0
        while size > self.max_size:
            name, value = entries[gone]
            size -= len(name) + len(value) + OVERHEAD
            gone += 1
        del entries[:gone]
        self.size = size

    def keep_shifting(self, block: bytes, fields: list[Field], inserted: int, count: int) -> Shifting | None:
        """Remember a wanted block that has made entries, and was decoded to ``fields``, if others may be like it.

        Before it ``inserted`` entries had been made, and ``count`` were there. Set its ``kept`` and ``end``.
        """
        shifting = self.shifting = shifting_of(block, fields, inserted, count)
        if shifting is not None:
            shifting.largest = self.largest
            shifting.longest = (self.max_list_size - len(fields) * self.largest) // 2
        return shifting

    def _update_size(self, block: bytes, at: int) -> int:
        """A dynamic table size update (RFC 7541 section 6.3); where what follows it begins."""
        size = block[at] & 0x1F
        at += 1
        if size == 0x1F:
            size, at = continued(block, at, 0x1F)
        if size > self.allowed:
            raise HpackError("table size above the limit")
        self.max_size = size
        self.shrinking = False
        self._evict()
        return at

    def __repr__(self) -> str:
        return f"<HpackDecoder {len(self.entries)} entries, {self.size}/{self.max_size} octets>"
