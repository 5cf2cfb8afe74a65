"""A sink for HTTP/2 connections that writes down what they call, frames to feed them, and a reader of what they sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from struct import unpack
from typing import Any

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple

from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2 import Http2Connection
from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, settings, write_header
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_server import ServerConnection
from sidecar.codec.wire import Field
from sidecar.core.head import Head, RequestHead, ResponseHead

REQUEST: list[Field] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"a"),
]
RESPONSE: list[Field] = [(b":status", b"200")]
NAMES = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
]


class Recording:
    """Every call as a tuple in ``calls``; ``bodies`` by stream. What is consumed is up to the test."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, Any] = {}
        self.ended: set[int] = set()
        self.trailers: dict[int, list[Field]] = {}
        self.resets: dict[int, tuple[int, str]] = {}
        self.reaction: Callable[[str, int], None] | None = None

    def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if self.reaction is not None:
            self.reaction(call[0], call[1] if len(call) > 1 else 0)

    def on_head(self, stream_id: int, head: Head, end: bool) -> None:
        assert stream_id not in self.ended
        self.heads[stream_id] = head
        if end:
            self.ended.add(stream_id)
        self._call("head", stream_id, head, end)

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        assert stream_id not in self.ended
        assert stream_id in self.heads
        self.bodies[stream_id] = self.bodies.get(stream_id, b"") + data
        if end:
            self.ended.add(stream_id)
        self._call("data", stream_id, data, end)

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None:
        assert stream_id not in self.ended
        self.ended.add(stream_id)
        self.trailers[stream_id] = fields
        self._call("trailers", stream_id, fields)

    def on_reset(self, stream_id: int, code: int, details: str) -> None:
        assert stream_id not in self.resets
        self.resets[stream_id] = (code, details)
        self._call("reset", stream_id, code, details)

    def on_refused(self, stream_id: int, code: int, details: str) -> None:
        assert stream_id not in self.heads
        self._call("refused", stream_id, code, details)

    def on_window(self, stream_id: int) -> None:
        self._call("window", stream_id)

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self._call("goaway", last_stream_id, code, debug)

    def on_settings(self) -> None:
        self._call("settings")

    def on_ping_ack(self, opaque: bytes) -> None:
        self._call("ping_ack", opaque)

    def names(self) -> list[str]:
        """The calls' names, without those for settings."""
        return [call[0] for call in self.calls if call[0] != "settings"]


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return write_header(len(payload) << 8 | kind, flags, stream_id) + payload


def block(fields: Iterable[Field]) -> bytes:
    """A header block that leaves the dynamic table alone."""
    return Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in fields])


def headers(stream_id: int, fields: Iterable[Field] = REQUEST, end: bool = True) -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream_id, block(fields))


def data(stream_id: int, payload: bytes, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def server(options: Http2Options | None = None, **changes: Any) -> tuple[ServerConnection, Recording]:
    """A server whose client has said hello; nothing is left of what it sent at the beginning."""
    connection = ServerConnection(options or Http2Options(**changes), Texts())
    sink = connection.sink = Recording()
    connection.receive(PREFACE + settings([]) + frame(SETTINGS, 1))
    connection.take()
    sink.calls.clear()
    return connection, sink


def client(options: Http2Options | None = None, **changes: Any) -> tuple[ClientConnection, Recording]:
    """A client whose server has said hello."""
    connection = ClientConnection(options or Http2Options(**changes), Texts())
    sink = connection.sink = Recording()
    connection.receive(settings([]) + frame(SETTINGS, 1))
    connection.take()
    sink.calls.clear()
    return connection, sink


def frames(out: bytes) -> list[tuple[str, int, int, bytes]]:
    """(type, flags, stream, payload) of each frame in ``out``, which must hold whole frames."""
    found = []
    while out:
        word, flags, stream_id = unpack(">IBI", out[:9])
        length = word >> 8
        assert len(out) >= 9 + length
        kind = word & 255
        found.append((NAMES[kind] if kind < len(NAMES) else str(kind), flags, stream_id, out[9 : 9 + length]))
        out = out[9 + length :]
    return found


def sent(connection: Http2Connection) -> list[tuple[str, int, int, bytes]]:
    """The frames that wait to be written."""
    return frames(b"".join(connection.take()).removeprefix(PREFACE))


def outcome(connection: Http2Connection, payload: bytes) -> tuple[Any, ...]:
    """What feeding ``payload`` leads to: ("connection", code), ("stream", id, code), or ("fine",)."""
    try:
        connection.receive(payload)
    except Http2Error as error:
        last = sent(connection)[-1]
        assert last[0] == "GOAWAY"
        assert int.from_bytes(last[3][4:8], "big") == error.code
        return ("connection", error.code)
    resets = [
        (stream_id, int.from_bytes(code, "big"))
        for kind, _, stream_id, code in sent(connection)
        if kind == "RST_STREAM"
    ]
    if resets:
        return ("stream", *resets[0])
    return ("fine",)


@functools.cache
def texts() -> Texts:
    return Texts()


def decoded(decoder: Decoder, payload: bytes) -> list[Field]:
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(payload, raw=True)]


def request(path: bytes = b"/", fields: Iterable[Field] = (), method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, path, b"a", list(fields), 20)


def response(status: int = 200, fields: Iterable[Field] = ()) -> ResponseHead:
    return ResponseHead(status, list(fields), 20)
