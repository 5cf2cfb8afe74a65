"""A server that speaks HTTP/2 with the `h2` library, and misbehaves as its script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events

Answer = Callable[["Peer", int, dict[bytes, bytes]], object]
"""What to do about a request's head: (peer, stream, head)."""


class Peer(asyncio.Protocol):
    """One connection; ``events`` is all that came. It gives no window back: what it is sent has to fit into 65,535."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.codec = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.events: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.codec.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.RequestReceived):
                assert event.headers is not None
                self.answer(self, event.stream_id, dict(event.headers))  # type: ignore[arg-type]
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.codec.data_to_send())

    def reply(self, stream: int, *fields: tuple[str, str], end: bool = True, status: int = 200) -> None:
        """A head; without fields that of a gRPC call that ended with OK."""
        all_fields = fields or (("content-type", "application/grpc"), ("grpc-status", "0"))
        self.codec.send_headers(stream, [(":status", str(status)), *all_fields], end_stream=end)

    def resets(self) -> list[int]:
        """The codes with which streams were reset by the client."""
        return [int(event.error_code) for event in self.events if isinstance(event, h2.events.StreamReset)]


@asynccontextmanager
async def serving_http2(answer: Answer) -> AsyncIterator[tuple[int, list[Peer]]]:
    """A server's port, and its connections."""
    peers: list[Peer] = []

    def made() -> Peer:
        peers.append(Peer(answer))
        return peers[-1]

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], peers
    finally:
        server.close()
