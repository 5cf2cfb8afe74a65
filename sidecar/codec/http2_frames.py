"""HTTP/2 frames: numbers, headers, and the small frames as bytes (RFC 9113 sections 4, 6 and 7)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Types of frames (section 6).
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

# Error codes (section 7).
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
SETTINGS_TIMEOUT: Final = 4
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
CONNECT_ERROR: Final = 10
ENHANCE_YOUR_CALM: Final = 11
INADEQUATE_SECURITY: Final = 12
HTTP_1_1_REQUIRED: Final = 13

# Settings (section 6.5.2, RFC 8441 section 3).
HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8

DEFAULT_WINDOW: Final = 65535
LARGEST_WINDOW: Final = 0x7FFFFFFF
LARGEST_STREAM_ID: Final = 0x7FFFFFFF
LEAST_MAX_FRAME_SIZE: Final = 16384
MOST_MAX_FRAME_SIZE: Final = 0xFFFFFF
HEADER_SIZE: Final = 9

_HEADER: Final = Struct(">IBI")  # length and type in one number: there is no integer of 24 bits
_WORD: Final = Struct(">IBII")
_SETTING: Final = Struct(">HI")
_PAIR: Final = Struct(">II")

read_header = _HEADER.unpack_from
"""(length << 8 | type, flags, stream with its reserved bit) of the frame at an offset."""

write_header = _HEADER.pack
"""The inverse of ``read_header``."""

read_setting = _SETTING.unpack_from
read_pair = _PAIR.unpack_from

SETTINGS_ACK: Final = write_header(SETTINGS, ACK, 0)


def settings(pairs: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame (section 6.5)."""
    payload = b"".join([_SETTING.pack(number, value) for number, value in pairs])
    return write_header(len(payload) << 8 | SETTINGS, 0, 0) + payload


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame (section 6.9); stream 0 is the connection."""
    return _WORD.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def rst_stream(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame (section 6.4)."""
    return _WORD.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def ping(opaque: bytes, flags: int = 0) -> bytes:
    """A PING frame (section 6.7) with 8 octets."""
    return write_header(8 << 8 | PING, flags, 0) + opaque


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """A GOAWAY frame (section 6.8)."""
    size = 8 + len(debug)
    return write_header(size << 8 | GOAWAY, 0, 0) + _PAIR.pack(last_stream_id, code) + debug
