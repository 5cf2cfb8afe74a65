"""HTTP/2 frames as bytes, written before a run: for clients and backends that hardly work.

RFC 9113 section 4.1 has the frame, RFC 7541 the header blocks. Nothing here checks what a peer does: the proxies
between are what is measured, and `exchange.py` checks what they deliver.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
LARGEST_WINDOW = 2**31 - 1
_INITIAL_WINDOW = 65_535
_SETTINGS_MAX_STREAMS, _SETTINGS_INITIAL_WINDOW = 3, 4

_LONG = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame. `kind` and `flags` as RFC 9113 section 6 numbers them."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + _LONG.pack(stream) + payload


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE, of the connection when `stream` is 0."""
    return frame(WINDOW_UPDATE, 0, stream, _LONG.pack(increment))


def opening(max_streams: int = 100_000) -> bytes:
    """SETTINGS and a WINDOW_UPDATE which let the peer send all that it likes; a client puts PREFACE before them."""
    settings = _SETTING.pack(_SETTINGS_MAX_STREAMS, max_streams)
    settings += _SETTING.pack(_SETTINGS_INITIAL_WINDOW, LARGEST_WINDOW)
    return frame(SETTINGS, 0, 0, settings) + window_update(0, LARGEST_WINDOW - _INITIAL_WINDOW)


def integer(value: int, prefix_bits: int, first: int) -> bytes:
    """RFC 7541 section 5.1; `first` has the bits of the first byte that are above the prefix."""
    largest = (1 << prefix_bits) - 1
    if value < largest:
        return bytes((first | value,))
    out = bytearray((first | largest,))
    value -= largest
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    out.append(value)
    return bytes(out)


def text(value: bytes) -> bytes:
    """A string without Huffman coding (RFC 7541 section 5.2)."""
    return integer(len(value), 7, 0) + value


def huffman_codes() -> list[str]:
    """The codes of RFC 7541 appendix B as zeros and ones, by byte. Raises LookupError without the package `hpack`."""
    try:
        from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
    except ImportError as error:
        raise LookupError("the Python package hpack is not installed (it comes with h2)") from error
    return [f"{code:0{length}b}" for code, length in zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)]


_STATIC = {
    (b":method", b"GET"): 2, (b":method", b"POST"): 3, (b":scheme", b"http"): 6, (b":status", b"200"): 8,
}  # fmt: skip
_STATIC_NAMES = {b":authority": 1, b":path": 4, b"content-type": 31, b"user-agent": 58}


def plain_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A block that leaves the dynamic table alone: static entries, and literals without indexing."""
    return b"".join(
        integer(_STATIC[field], 7, 0x80) if field in _STATIC else _plain_literal(*field) for field in fields
    )


def _plain_literal(name: bytes, value: bytes) -> bytes:
    index = _STATIC_NAMES.get(name, 0)
    return integer(index, 4, 0) + (b"" if index else text(name)) + text(value)


class IndexingEncoder:
    """Header blocks with a dynamic table of `capacity` bytes, for the fields that are to be indexed.

    As nghttp2 does it, and gRPC's cores much the same: every field goes into the table but those in `unindexed` (nghttp2
    spares :path and a few that change by nature), a request id among them, which so drives out what was there; strings
    take Huffman coding where that is shorter. Raises LookupError without the package `hpack`.
    """

    _STATIC_ENTRIES = 61
    _OVERHEAD = 32

    def __init__(self, unindexed: frozenset[bytes] = frozenset({b":path"}), capacity: int = 4096) -> None:
        self._unindexed = unindexed
        self._codes = huffman_codes()
        self._free = capacity
        self._entries: deque[tuple[bytes, bytes]] = deque()
        self._inserted = 0
        self._numbers: dict[tuple[bytes, bytes], int] = {}
        self._names: dict[bytes, int] = {}

    def _index(self, number: int | None) -> int:
        """The index of the entry that was the `number`-th to be inserted; 0 when it has been evicted."""
        if number is None or number <= self._inserted - len(self._entries):
            return 0
        return self._STATIC_ENTRIES + 1 + self._inserted - number

    def _insert(self, field: tuple[bytes, bytes]) -> None:
        self._free -= len(field[0]) + len(field[1]) + self._OVERHEAD
        while self._free < 0:
            name, value = oldest = self._entries.popleft()
            self._numbers.pop(oldest, None)
            self._free += len(name) + len(value) + self._OVERHEAD
        self._entries.append(field)
        self._inserted += 1
        self._numbers[field] = self._names[field[0]] = self._inserted

    def block(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The next block of the connection."""
        out = []
        for field in fields:
            whole = _STATIC.get(field, 0) or self._index(self._numbers.get(field))
            if whole:
                out.append(integer(whole, 7, 0x80))
                continue
            name = _STATIC_NAMES.get(field[0], 0) or self._index(self._names.get(field[0]))
            if field[0] in self._unindexed:
                out.append(integer(name, 4, 0))
            else:
                out.append(integer(name, 6, 0x40))
                self._insert(field)
            out.append(b"" if name else self._text(field[0]))
            out.append(self._text(field[1]))
        return b"".join(out)

    def _text(self, value: bytes) -> bytes:
        bits = "".join(map(self._codes.__getitem__, value))
        length = (len(bits) + 7) // 8
        if length >= len(value):
            return text(value)
        padded = bits.ljust(8 * length, "1")
        return integer(length, 7, 0x80) + int(padded, 2).to_bytes(length, "big")
