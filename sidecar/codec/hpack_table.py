"""What both directions of HPACK share: the static table, integers and limits (RFC 7541 section 5.1, appendix A)."""

from __future__ import annotations

from typing import Final

from sidecar.codec.wire import Field, FieldLines

OVERHEAD: Final = 32
"""What an entry counts beside its name and value (RFC 7541 section 4.1)."""

STATIC: Final[tuple[Field, ...]] = (
    (b"", b""),  # the table starts at 1
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""),
    (b"cache-control", b""), (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""),
    (b"content-length", b""), (b"content-location", b""), (b"content-range", b""), (b"content-type", b""),
    (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""),
    (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""),
    (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""),
    (b"max-forwards", b""), (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""),
    (b"referer", b""), (b"refresh", b""), (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""),
    (b"strict-transport-security", b""), (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""),
    (b"via", b""), (b"www-authenticate", b""),
)  # fmt: skip

FIRST_DYNAMIC: Final = len(STATIC)

STATIC_INDEX: Final = {field: index for index, field in enumerate(STATIC) if index}
STATIC_NAME: Final = {name: index for index, (name, _) in reversed(tuple(enumerate(STATIC))) if index}

VOLATILE: Final = FieldLines.FORGOTTEN | {
    b":path",
    b"grpc-timeout",
    b"grpc-message",
    b"grpc-status-details-bin",
    b"baggage",
}
"""Names whose values differ from message to message, or are secret: neither indexed nor remembered."""

SECRET: Final = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
"""Names whose values no table may hold, here or at any intermediary (RFC 7541 section 7.1.3)."""

_LONGEST_INTEGER: Final = 5  # octets behind the prefix: 35 bits


class HpackError(ValueError):
    """A block that cannot be decoded: the connection is over, with COMPRESSION_ERROR (RFC 9113 section 4.3)."""


def integer(prefix: int, mask: int, value: int) -> bytes:
    """``value`` with a prefix of the bits in ``mask``; ``prefix`` are the bits above it (RFC 7541 section 5.1)."""
    if value < mask:
        return bytes((prefix | value,))
    coded = bytearray((prefix | mask,))
    value -= mask
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def continued(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """An integer whose prefix was all ones (``mask``), and where what follows it begins. Raises HpackError."""
    value = mask
    shift = 0
    for place in range(at, at + _LONGEST_INTEGER):
        byte = block[place]
        value += (byte & 127) << shift
        if byte < 128:
            if value > 0xFFFFFFFF:
                break
            return value, place + 1
        shift += 7
    raise HpackError("integer too large")
