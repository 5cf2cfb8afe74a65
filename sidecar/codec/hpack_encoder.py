"""HPACK, outbound: lists of fields to header blocks (RFC 7541).

The encoder is itself the memory of its fields: a dictionary from a field to the octets that stand for it now, so that a
block is one join over lookups. Entries that name the dynamic table are good until something is inserted there, which
is rare: a field is indexed when it is seen for the second time, and volatile or secret ones never are. Once the table is
full, a newcomer pushes others out only now and then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sidecar.codec.hpack_huffman import encode as huffman_encode
from sidecar.codec.hpack_table import (
    FIRST_DYNAMIC,
    OVERHEAD,
    SECRET,
    STATIC_INDEX,
    STATIC_NAME,
    VOLATILE,
    integer,
)
from sidecar.codec.wire import Field

_MOST_REMEMBERED: Final = 256
_MOST_SEEN_ONCE: Final = 64
_LONGEST_INDEXED: Final = 512
_RENEWAL: Final = 64  # fields that find the table full, for each one that may push others out

_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"host", b"http2-settings")
)
"""What HTTP/2 cannot carry (RFC 9113 section 8.2.2); Host travels as :authority."""


def _shorts(prefix: int, mask: int) -> tuple[bytes, ...]:
    return tuple(integer(prefix, mask, length) for length in range(256))


_LENGTHS: Final = _shorts(0, 127)


def string(text: bytes) -> bytes:
    """A string literal without Huffman coding: quick for whoever reads it, too."""
    length = len(text)
    return (_LENGTHS[length] if length < 256 else integer(0, 127, length)) + text


def shortest_string(text: bytes) -> bytes:
    """A string literal, Huffman-coded if that is shorter (RFC 7541 section 5.2)."""
    coded = huffman_encode(text)
    return integer(0x80, 127, len(coded)) + coded if len(coded) < len(text) else string(text)


def open_field(name: bytes) -> bytes:
    """What stands before the length of a value that differs from block to block, and that no table holds."""
    prefix = _VOLATILE_NAMES.get(name)
    return _volatile_name(name) if prefix is None else prefix


def _volatile_name(name: bytes) -> bytes:
    """What stands before the value of a volatile field: literal, and for secrets never to be indexed."""
    prefix = 0x10 if name in SECRET else 0
    index = STATIC_NAME.get(name)
    return integer(prefix, 15, index) if index else bytes((prefix,)) + string(name)


_VOLATILE_NAMES: Final = {name: _volatile_name(name) for name in VOLATILE}
PATH: Final = tuple(_VOLATILE_NAMES[b":path"] + length for length in _LENGTHS[:128])
"""What stands before a path that is shorter than 128 octets."""


class HpackEncoder(dict[Field, bytes]):
    """The outbound half of one connection's header compression; ``encoder[field]`` are the octets for a field now.

    The fields of one block must be looked up in their order, behind what ``begin`` returns: a lookup may insert.
    ``table_size``: the most that we want to use, whatever more the peer allows.
    """

    __slots__ = (
        "epoch",
        "indexed",
        "inserted",
        "limit",
        "max_size",
        "once",
        "passed_over",
        "size",
        "table_size",
        "updates",
    )

    def __init__(self, table_size: int = 4096) -> None:
        super().__init__()
        self.table_size = table_size
        self.limit = 4096  # what the peer allows
        self.max_size = 4096
        self.size = 0
        self.inserted = 0
        self.epoch = 0  # counts what makes other octets stand for fields that are indexed
        self.indexed: dict[Field, int] = {}  # in the order of insertion, to how many had been inserted with it
        self.once: dict[Field, None] = {}
        self.passed_over = 0
        self.updates: list[int] = []  # sizes of the table that the peer has not been told of
        if table_size < 4096:
            self._resize(table_size)

    def allow(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE: the next block tells it what we make of it."""
        self.limit = size
        size = min(size, self.table_size)
        if size != self.max_size:
            self._resize(size)

    def encode(self, fields: Iterable[Field]) -> bytes:
        """A whole block, pseudo-header fields among the others. ``encoder.begin() + encoder.rest(fields)``."""
        return self.begin() + self.rest(fields)

    def begin(self) -> bytes:
        """What a block has to begin with: nothing but after the table's size has changed (RFC 7541 section 4.2)."""
        if not self.updates:
            return b""
        least, last = min(self.updates), self.updates[-1]
        self.updates.clear()
        return (integer(0x20, 31, least) if least < last else b"") + integer(0x20, 31, last)

    def rest(self, fields: Iterable[Field]) -> bytes:
        """The fields of a block one behind the other."""
        return b"".join(map(self.__getitem__, fields))

    def settled(self, field: Field) -> bytes | None:
        """The octets that stand for a field as long as ``epoch`` stays the same; None if it is about to be indexed."""
        coded = self.get(field)
        if coded is not None:
            return coded
        name, value = field
        if name in VOLATILE or field in STATIC_INDEX or field in self.indexed or name in _CONNECTION_SPECIFIC:
            return self[field]
        entry = len(name) + len(value) + OVERHEAD
        if entry <= _LONGEST_INDEXED and entry <= self.max_size // 2 and self.size + entry <= self.max_size:
            return None
        index = STATIC_NAME.get(name)
        return (integer(0, 15, index) if index else b"\x00" + shortest_string(name)) + string(value)

    def __missing__(self, field: Field) -> bytes:
        name, value = field
        prefix = _VOLATILE_NAMES.get(name)
        if prefix is not None:
            return prefix + string(value)
        if name != name.lower():
            return self[(name.lower(), value)]
        if name in _CONNECTION_SPECIFIC or (name == b"te" and value.strip().lower() != b"trailers"):
            return b""
        index = STATIC_INDEX.get(field)
        if index is None and field in self.indexed:
            index = FIRST_DYNAMIC + self.inserted - self.indexed[field]
        if index is not None:
            if len(self) >= _MOST_REMEMBERED:
                self.clear()
            self[field] = coded = integer(0x80, 127, index)
            return coded
        return self._literal(field)

    def _literal(self, field: Field) -> bytes:
        """A field that no table has: inserted on the second time, if there is room."""
        name, value = field
        entry = len(name) + len(value) + OVERHEAD
        insert = False
        if entry <= _LONGEST_INDEXED and entry <= self.max_size // 2:
            if field not in self.once:
                if len(self.once) >= _MOST_SEEN_ONCE:
                    self.once.clear()
                self.once[field] = None
            elif self.size + entry <= self.max_size:
                insert = True
            else:
                self.passed_over += 1
                insert = self.passed_over >= _RENEWAL
        prefix, mask = (0x40, 0x3F) if insert else (0, 15)
        index = STATIC_NAME.get(name)
        head = integer(prefix, mask, index) if index else bytes((prefix,)) + shortest_string(name)
        if not insert:
            return head + string(value)
        self.passed_over = 0
        del self.once[field]
        self.size += entry
        self._evict()
        self.inserted += 1
        self.indexed[field] = self.inserted
        self.epoch += 1
        self.clear()
        return head + shortest_string(value)

    def _resize(self, size: int) -> None:
        self.max_size = size
        self.updates.append(size)
        if len(self.updates) > 2:  # only the least and the last are told
            self.updates[:-1] = [min(self.updates)]
        self._evict()
        self.epoch += 1
        self.clear()

    def _evict(self) -> None:
        while self.size > self.max_size:
            name, value = field = next(iter(self.indexed))
            del self.indexed[field]
            self.size -= len(name) + len(value) + OVERHEAD

    def __repr__(self) -> str:
        return f"<HpackEncoder {len(self.indexed)} entries, {self.size}/{self.max_size} octets>"
