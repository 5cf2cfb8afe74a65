"""A blocking HTTP/2 client on the h2 library: several requests under way, and everything that came back kept."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

Fields = Sequence[tuple[str, str]]


def _texts(headers: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers]


class _Connection(H2Connection):
    """Goes on after GOAWAY: h2 takes it for the end, though streams below it are still served."""

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]


@dataclass
class Response:
    """What has come on a stream so far; ``reset`` is the code with which it ended before it was whole."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    took: float = 0.0

    def field(self, name: str) -> str | None:
        """A field of the head, or of the trailers."""
        return next((value for found, value in [*self.fields, *self.trailers] if found == name), None)

    def json(self) -> Any:
        """The body, from JSON."""
        return json.loads(self.body)


class Http2Client:
    """One connection, by prior knowledge, or by ALPN when it is given the PEM of an authority. A context manager."""

    def __init__(self, port: int, authority: bytes | None = None, *, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if authority is not None:
            context = ssl.create_default_context(cadata=authority.decode())
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="server.example")
            assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = _Connection(H2Configuration(header_encoding="utf-8"))
        self.responses: dict[int, Response] = {}
        self.began: dict[int, float] = {}
        self.goaways: list[tuple[int, int]] = []
        self.pongs = 0
        self.closed = False
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what h2 has."""
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def request(
        self,
        path: str,
        method: str = "GET",
        *,
        fields: Fields = (),
        body: bytes | None = None,
        trailers: Fields = (),
        end: bool = True,
    ) -> int:
        """Send a request, whole unless ``end`` is false; the id of its stream. A body has to fit into the window."""
        stream_id = self.h2.get_next_available_stream_id()
        if body is not None:
            method = "POST"
        head = [(":method", method), (":scheme", "http"), (":authority", "server.example"), (":path", path), *fields]
        self.began[stream_id] = time.monotonic()
        self.responses[stream_id] = Response()
        self.h2.send_headers(stream_id, head, end_stream=end and body is None and not trailers)
        if body is not None:
            self.send(stream_id, body, end and not trailers)
        if trailers:
            self.h2.send_headers(stream_id, trailers, end_stream=True)
        self.flush()
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Send some of a body, waiting for the window."""
        while True:
            most = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if most or not data:
                part, data = data[:most], data[most:]
                self.h2.send_data(stream_id, part, end_stream=end and not data)
                self.flush()
                if not data:
                    return
            else:
                self.receive()

    def receive(self) -> None:
        """Take one read from the socket. Raises TimeoutError."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self._event(event)
        if not self.closed:
            self.flush()

    def _event(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaways.append((int(event.error_code or 0), event.last_stream_id or 0))
            return
        if isinstance(event, PingAckReceived):
            self.pongs += 1
            return
        stream_id = getattr(event, "stream_id", 0)
        response = self.responses.get(stream_id or 0)
        if response is None:
            return
        if isinstance(event, ResponseReceived):
            response.fields = _texts(event.headers)
            response.status = int(dict(response.fields)[":status"])
        elif isinstance(event, InformationalResponseReceived):
            response.informational.append(int(dict(_texts(event.headers))[":status"]))
        elif isinstance(event, TrailersReceived):
            response.trailers = _texts(event.headers)
        elif isinstance(event, DataReceived):
            response.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, StreamEnded):
            response.ended = True
            response.took = time.monotonic() - self.began[stream_id]
        elif isinstance(event, StreamReset):
            response.reset = int(event.error_code)

    def until(self, condition: Callable[[], object]) -> None:
        """Read until it holds; AssertionError when the connection ends before, TimeoutError when nothing comes."""
        while not condition():
            assert not self.closed, f"the connection has ended: {self.goaways} {self.responses}"
            self.receive()

    def response(self, stream_id: int) -> Response:
        """The response of a stream, when it is whole or was reset."""
        found = self.responses[stream_id]
        self.until(lambda: found.ended or found.reset is not None)
        return found

    def get(self, path: str, **options: Any) -> Response:
        """One request and its response."""
        return self.response(self.request(path, **options))

    def close(self) -> None:
        """Without a word."""
        self.closed = True
        self.socket.close()

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
