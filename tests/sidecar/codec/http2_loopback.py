"""A small HTTP/2 server and client on loopback that have nothing but the codec, for real programs at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2 import Http2Connection
from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_server import ServerConnection
from sidecar.codec.wire import Field
from sidecar.core.head import RequestHead, ResponseHead

TEXTS = Texts()
LARGE = b"0123456789abcdef" * (1 << 16)  # a mebibyte


class Wire(asyncio.Protocol):
    """One end of a connection: reads go to the codec, what it has to say is written after each of them."""

    def __init__(self, connection: Http2Connection) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.error: Http2Error | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            self.connection.receive(data)
            while self.connection.interrupted:
                self.connection.take_held()
        except Http2Error as error:
            self.error = error
            self.flush()
            self.transport.close()
        self.flush()

    def flush(self) -> None:
        out = self.connection.take()
        if out:
            self.transport.writelines(out)

    def pause_writing(self) -> None:
        self.connection.pause()

    def resume_writing(self) -> None:
        self.connection.resume()
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


class Silent:
    """The calls of a sink that most do not care for."""

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None: ...
    def on_reset(self, stream_id: int, code: int, details: str) -> None: ...
    def on_refused(self, stream_id: int, code: int, details: str) -> None: ...
    def on_window(self, stream_id: int) -> None: ...
    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None: ...
    def on_settings(self) -> None: ...
    def on_ping_ack(self, opaque: bytes) -> None: ...


class Answering(Silent):
    """``/large`` is a mebibyte, ``/trailers`` has trailers; a POST comes back; all else is 83 octets."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.posts: dict[int, list[bytes]] = {}

    def on_head(self, stream_id: int, head: RequestHead, end: bool) -> None:
        if end:
            self.answer(stream_id, head.path, b"x" * 83)
        else:
            self.posts[stream_id] = []

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.posts[stream_id].append(data)
        self.connection.consumed(stream_id, len(data))
        if end:
            self.answer(stream_id, b"", b"".join(self.posts.pop(stream_id)))

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None:
        self.answer(stream_id, b"", b"".join(self.posts.pop(stream_id)))

    def answer(self, stream_id: int, path: bytes, body: bytes) -> None:
        if path == b"/large":
            body = LARGE
        fields = [(b"server", b"mizzen")]
        if path != b"/trailers":  # curl does not wait for them where it knows the length
            fields.append((b"content-length", b"%d" % len(body)))
        self.connection.send_head(stream_id, ResponseHead(200, fields, 20), False)
        self.connection.send_data(stream_id, body, path != b"/trailers")
        if path == b"/trailers":
            self.connection.send_trailers(stream_id, [(b"x-trailer", b"here")])


@asynccontextmanager
async def serving(options: Http2Options | None = None) -> AsyncIterator[tuple[int, list[Wire]]]:
    """Serve on a port of the loopback; the port, and the connections that were made."""
    wires: list[Wire] = []

    def made() -> Wire:
        connection = ServerConnection(options or Http2Options(), TEXTS)
        connection.sink = Answering(connection)
        wires.append(Wire(connection))
        return wires[-1]

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], wires
    finally:
        server.close()
        for wire in wires:
            wire.connection.sink = None
            if wire.transport is not None:
                wire.transport.abort()


class Asking(Silent):
    """Collects responses; ``done`` when as many as were asked for have ended."""

    def __init__(self, connection: ClientConnection, awaited: int) -> None:
        self.connection = connection
        self.awaited = awaited
        self.heads: dict[int, ResponseHead] = {}
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, list[Field]] = {}
        self.resets: list[tuple[int, int, str]] = []
        self.settings = asyncio.Event()
        self.done = asyncio.Event()

    def ended(self) -> None:
        self.awaited -= 1
        if not self.awaited:
            self.done.set()

    def on_head(self, stream_id: int, head: ResponseHead, end: bool) -> None:
        self.heads[stream_id] = head
        if end:
            self.ended()

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.bodies[stream_id] = self.bodies.get(stream_id, b"") + data
        self.connection.consumed(stream_id, len(data))
        if end:
            self.ended()

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None:
        self.trailers[stream_id] = fields
        self.ended()

    def on_reset(self, stream_id: int, code: int, details: str) -> None:
        self.resets.append((stream_id, code, details))
        self.ended()

    def on_settings(self) -> None:
        self.settings.set()
