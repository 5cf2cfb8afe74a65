"""TLS for those who work on bare sockets: one end of a socket pair is theirs, the other is joined to the TLS connection.

What arrives through TLS is sent into the pair and what comes out of the pair is encrypted, each direction with its own
end and its own back-pressure. It costs one copy through the kernel each way.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any, Final

_READ: Final = 262144


class SocketBridge(asyncio.Protocol):
    """The protocol inside a TLS connection. ``far`` is the end to hand out, non-blocking; its new owner closes it.

    Closing ``far`` closes the connection, shutting down its sending side is ``write_eof``; and the other way round.
    """

    __slots__ = ("buffer_limit", "far", "loop", "near", "paused", "peer_ended", "reading", "rest", "transport",
                 "we_ended")  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer_limit: int) -> None:
        self.loop = loop
        self.buffer_limit = buffer_limit
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.transport: Any = None
        self.rest = memoryview(b"")  # what the pair had no room for; nothing is read from TLS then
        self.reading = False  # from the pair
        self.paused = False  # TLS has no room
        self.peer_ended = False
        self.we_ended = False

    def discard(self) -> None:
        """Close both ends: no connection came of it."""
        self._read_pair(False)
        self.near.close()
        self.far.close()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=self.buffer_limit)
        self._read_pair(True)

    def data_received(self, data: bytes) -> None:
        try:
            sent = self.near.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.transport.close()
            return
        if sent < len(data):
            self.rest = memoryview(data)[sent:]
            self.transport.pause_reading()
            self.loop.add_writer(self.near.fileno(), self._on_writable)

    def eof_received(self) -> bool:
        self.peer_ended = True
        if not self.rest:
            self._end_pair()
        return bool(self.rest) or not self.we_ended

    def pause_writing(self) -> None:
        self.paused = True
        self._read_pair(False)

    def resume_writing(self) -> None:
        self.paused = False
        self._read_pair(not self.we_ended)

    def connection_lost(self, error: Exception | None) -> None:
        self._read_pair(False)
        self.transport = None
        if not self.rest:  # else it is closed when what has come is delivered
            self.near.close()

    def _read_pair(self, wanted: bool) -> None:
        if wanted != self.reading:
            self.reading = wanted
            if wanted:
                self.loop.add_reader(self.near.fileno(), self._on_readable)
            else:
                self.loop.remove_reader(self.near.fileno())

    def _on_readable(self) -> None:
        try:
            data = self.near.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # closed with something unread
            self._read_pair(False)
            self.transport.close()
            return
        if data:
            self.transport.write(data)
            return
        self.we_ended = True
        self._read_pair(False)
        if self._is_closed() or (self.peer_ended and not self.rest):
            self.transport.close()
        else:
            self.transport.write_eof()

    def _on_writable(self) -> None:
        try:
            self.rest = self.rest[self.near.send(self.rest) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # nobody wants it any more
            self.rest = memoryview(b"")
            self.we_ended = self.peer_ended = True
        if self.rest:
            return
        self.loop.remove_writer(self.near.fileno())
        if self.transport is None:
            self.near.close()
        elif self.peer_ended and self.we_ended:
            self.transport.close()
        else:
            self.transport.resume_reading()
            if self.peer_ended:
                self._end_pair()

    def _end_pair(self) -> None:
        try:
            self.near.shutdown(socket.SHUT_WR)
        except OSError:
            self.transport.close()

    def _is_closed(self) -> bool:
        """Whether the far end is closed, and not only its sending side."""
        poll = select.poll()
        poll.register(self.near.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def __repr__(self) -> str:
        return f"<SocketBridge {self.near.fileno()} to {self.transport!r}, {len(self.rest)} bytes held>"
