"""Frames of HTTP/2 as attackers send them: what they say is not judged here; header blocks come from hpack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0x0, 0x1, 0x3, 0x6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x7, 0x8, 0x9, 0xB
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 0x1, 0x4
LARGEST = 2**31 - 1

Fields = Sequence[tuple[str, str]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame; ``length`` is what it says of itself, true unless given."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def block(fields: Fields) -> bytes:
    """A header block that leaves the dynamic table alone."""
    return Encoder().encode([(name, value, True) for name, value in fields], huffman=False)


def request(path: str, method: str = "GET", fields: Fields = ()) -> bytes:
    """The header block of a request."""
    head = [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path), *fields]
    return block(head)


def headers(stream: int, data: bytes, *, end: bool = True, whole: bool = True) -> bytes:
    """HEADERS, with the end of the stream and of the block unless told otherwise."""
    return frame(HEADERS, (END_STREAM if end else 0) | (END_HEADERS if whole else 0), stream, data)


def continuation(stream: int, data: bytes, *, whole: bool = False) -> bytes:
    return frame(CONTINUATION, END_HEADERS if whole else 0, stream, data)


def in_frames(stream: int, data: bytes, *, end: bool = True) -> bytes:
    """A header block of any size: HEADERS and as many CONTINUATION frames as it needs."""
    parts = [data[at : at + 16384] for at in range(0, len(data), 16384)]
    found = headers(stream, parts[0], end=end, whole=len(parts) == 1)
    return found + b"".join(
        continuation(stream, part, whole=number == len(parts)) for number, part in enumerate(parts[1:], 2)
    )


def data(stream: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def reset(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def settings(values: Mapping[int, int] | None = None, *, ack: bool = False) -> bytes:
    return frame(SETTINGS, ACK, 0) if ack else setting_list(list((values or {}).items()))


def setting_list(values: Sequence[tuple[int, int]]) -> bytes:
    """SETTINGS that may say one thing many times."""
    pairs = (number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in values)
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def ping(opaque: int = 0) -> bytes:
    return frame(PING, 0, 0, opaque.to_bytes(8, "big"))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def priority(stream: int, on: int = 0) -> bytes:
    return frame(PRIORITY, 0, stream, on.to_bytes(4, "big") + b"\x0f")


def goaway(code: int = NO_ERROR, last: int = 0) -> bytes:
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big"))


def remembered(name: bytes, value: bytes) -> bytes:
    """A literal field that the decoder puts into its dynamic table (RFC 7541 section 6.2.1), where it is number 62."""
    return b"\x40" + _length(len(name)) + name + _length(len(value)) + value


NEWEST = b"\xbe"  # field 62: the first of the dynamic table


def _length(size: int) -> bytes:
    """An integer with a prefix of 7 bits (RFC 7541 section 5.1)."""
    if size < 127:
        return bytes((size,))
    found, size = b"\x7f", size - 127
    while size > 127:
        found += bytes((size & 127 | 128,))
        size >>= 7
    return found + bytes((size,))
