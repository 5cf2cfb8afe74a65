"""The bytes of HTTP/2 frames, well-formed or not, as the cases send them: hyperframe and hpack, and nothing that judges.

Header blocks never use the dynamic table, so that one frame means the same wherever it stands, unless an encoder is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

FieldLine = tuple[str, str]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
SETTINGS_TIMEOUT = 0x4
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
CONNECT_ERROR = 0xA
ENHANCE_YOUR_CALM = 0xB
INADEQUATE_SECURITY = 0xC
HTTP_1_1_REQUIRED = 0xD

CODES = {
    NO_ERROR: "NO_ERROR",
    PROTOCOL_ERROR: "PROTOCOL_ERROR",
    INTERNAL_ERROR: "INTERNAL_ERROR",
    FLOW_CONTROL_ERROR: "FLOW_CONTROL_ERROR",
    SETTINGS_TIMEOUT: "SETTINGS_TIMEOUT",
    STREAM_CLOSED: "STREAM_CLOSED",
    FRAME_SIZE_ERROR: "FRAME_SIZE_ERROR",
    REFUSED_STREAM: "REFUSED_STREAM",
    CANCEL: "CANCEL",
    COMPRESSION_ERROR: "COMPRESSION_ERROR",
    CONNECT_ERROR: "CONNECT_ERROR",
    ENHANCE_YOUR_CALM: "ENHANCE_YOUR_CALM",
    INADEQUATE_SECURITY: "INADEQUATE_SECURITY",
    HTTP_1_1_REQUIRED: "HTTP_1_1_REQUIRED",
}

MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
ENABLE_CONNECT_PROTOCOL = 0x8


def code_name(code: int) -> str:
    """``CANCEL`` for 8; a code that nobody registered as its number."""
    return CODES.get(code, f"{code:#x}")


def block(fields: Sequence[FieldLine], encoder: Encoder | None = None) -> bytes:
    """A header block: each character of a name or value is one octet (latin-1). An encoder keeps a dynamic table, and codes."""
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    if encoder is not None:
        return encoder.encode(lines)
    return Encoder().encode([(name, value, True) for name, value in lines], huffman=False)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame, of any type and flags."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(values: Mapping[int, int] | None = None) -> bytes:
    return SettingsFrame(settings=dict(values or {})).serialize()


def opening(values: Mapping[int, int] | None = None) -> bytes:
    """What a client begins with: the preface and its SETTINGS."""
    return PREFACE + settings(values)


def head(
    method: str = "GET",
    path: str | None = "/",
    fields: Sequence[FieldLine] = (),
    *,
    authority: str | None = "a.test",
    scheme: str | None = "http",
) -> list[FieldLine]:
    """The fields of a request; what is None is left out."""
    pseudo = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    return [(name, value) for name, value in pseudo if value is not None] + list(fields)


def headers(
    stream: int, fields: Sequence[FieldLine], *, end: bool = True, pieces: int = 1, encoder: Encoder | None = None
) -> bytes:
    """HEADERS, and as many CONTINUATION as the block needs, or as make up ``pieces`` frames."""
    whole = block(fields, encoder)
    size = min(MAX_FRAME, -(-len(whole) // pieces) or 1)
    parts = [whole[start : start + size] for start in range(0, len(whole), size)] or [b""]
    frames: list[Frame] = [HeadersFrame(stream, parts[0], flags=["END_STREAM"] if end else [])]
    frames += [ContinuationFrame(stream, part) for part in parts[1:]]
    frames[-1].flags.add("END_HEADERS")
    return b"".join(one.serialize() for one in frames)


def data(stream: int, body: bytes = b"", *, end: bool = True, padding: int = 0) -> bytes:
    """DATA in frames of the usual size, each with as much padding."""
    size = MAX_FRAME - padding - 1
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    frames = [DataFrame(stream, part, pad_length=padding, flags=["PADDED"] if padding else []) for part in parts]
    if end:
        frames[-1].flags.add("END_STREAM")
    return b"".join(one.serialize() for one in frames)


def request(
    stream: int,
    method: str = "GET",
    path: str | None = "/",
    fields: Sequence[FieldLine] = (),
    *,
    authority: str | None = "a.test",
    scheme: str | None = "http",
    body: bytes | None = None,
    trailers: Sequence[FieldLine] | None = None,
) -> bytes:
    """A whole request: HEADERS, DATA where there is a body, and HEADERS again where there are trailers."""
    given = head(method, path, fields, authority=authority, scheme=scheme)
    sent = headers(stream, given, end=body is None and trailers is None)
    if body is not None:
        sent += data(stream, body, end=trailers is None)
    if trailers is not None:
        sent += headers(stream, trailers)
    return sent


def reset(stream: int, code: int = CANCEL) -> bytes:
    return RstStreamFrame(stream, error_code=code).serialize()


def window(stream: int, octets: int) -> bytes:
    """WINDOW_UPDATE; stream 0 stands for the connection."""
    return WindowUpdateFrame(stream, window_increment=octets).serialize()


def ping(opaque: bytes = b"differ42") -> bytes:
    return PingFrame(0, opaque_data=opaque).serialize()


def goaway(code: int = NO_ERROR, last: int = 0) -> bytes:
    return GoAwayFrame(0, last_stream_id=last, error_code=code).serialize()
