"""An HTTP/2 server on the h2 library that tells of each request what it received."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings


class _Connection(asyncio.Protocol):
    """Answers each request, once it is whole, with JSON: its fields, its trailers, the size of its body.

    The path ``/echo/bytes/N`` is answered with N zero bytes instead, ``/echo/trailers`` with trailers behind it all.
    """

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.requests: dict[int, dict[str, Any]] = {}
        self.waiting: dict[int, bytes] = {}
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 100_000})
        self.h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self.transport.close()
            return
        for event in events:
            self._event(event)
        self._flush()

    def _flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def _event(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self.requests[event.stream_id] = {"fields": event.headers, "trailers": [], "size": 0}
        elif isinstance(event, DataReceived):
            if event.stream_id in self.requests:
                self.requests[event.stream_id]["size"] += len(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            self.requests[event.stream_id]["trailers"] = event.headers
        elif isinstance(event, StreamEnded):
            with contextlib.suppress(ProtocolError):  # it has been reset meanwhile
                self._answer(event.stream_id, self.requests.pop(event.stream_id))
        elif isinstance(event, StreamReset):
            self.requests.pop(event.stream_id, None)
            self.waiting.pop(event.stream_id, None)
        elif isinstance(event, WindowUpdated):
            for stream_id in [event.stream_id] if event.stream_id else list(self.waiting):
                with contextlib.suppress(ProtocolError):
                    self._send(stream_id)
        elif isinstance(event, ConnectionTerminated):
            self.transport.close()

    def _answer(self, stream_id: int, request: dict[str, Any]) -> None:
        path = dict(request["fields"])[":path"]
        _, found, size = path.partition("/bytes/")
        body = bytes(int(size)) if found else json.dumps(request).encode()
        trailers = path.endswith("/trailers")
        fields = [(":status", "200"), ("content-type", "application/json")]
        if not trailers:
            fields.append(("content-length", str(len(body))))
        self.h2.send_headers(stream_id, fields)
        if trailers:
            self.h2.send_data(stream_id, body)
            self.h2.send_headers(stream_id, [("x-trailer", "there")], end_stream=True)
            return
        self.waiting[stream_id] = body
        self._send(stream_id)

    def _send(self, stream_id: int) -> None:
        body = self.waiting.pop(stream_id, None)
        while body is not None:
            most = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if most <= 0 and body:
                self.waiting[stream_id] = body
                return
            part, body = body[:most], body[most:]
            self.h2.send_data(stream_id, part, end_stream=not body)
            if not body:
                return


class EchoUpstream:
    """Serves on a loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        serving = asyncio.run_coroutine_threadsafe(self.loop.create_server(_Connection, "127.0.0.1", 0), self.loop)
        self.server = serving.result(10)
        self.port: int = self.server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Returns when its thread has ended."""
        self.loop.call_soon_threadsafe(self.server.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()
