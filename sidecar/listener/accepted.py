"""Accepted connections, from the choice of their filter chain to their end: the listener's account of each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.timer_wheel import Timed
from sidecar.listener.terminal import Chain, LastingSession, Session

if TYPE_CHECKING:
    from sidecar.listener.listener import Listener


class Descriptor:
    """An accepted connection before there is a socket object: all that uvloop asks of one, for a third of the work.

    Whoever does more with it than hand it to uvloop, which owns and closes it from then on, asks for it ``as_socket``.
    """

    __slots__ = ("descriptor", "family")

    type = int(socket.SOCK_STREAM)

    def __init__(self, descriptor: int, family: int) -> None:
        self.descriptor = descriptor
        self.family = family

    def fileno(self) -> int:
        return self.descriptor

    def close(self) -> None:
        """uvloop calls it when it has closed the connection itself."""

    def as_socket(self) -> socket.socket:
        """A socket object that owns the connection, non-blocking."""
        sock = socket.socket(self.family, self.type, 0, self.descriptor)
        sock.setblocking(False)
        return sock

    def __repr__(self) -> str:
        return f"<Descriptor {self.descriptor}>"


class Accepted(asyncio.Protocol):
    """The protocol that the event loop knows: it hears of the connection's beginning and end, and nothing between.

    The loop takes ``data_received`` and its like from the slots here, and finds the methods of the terminal's protocol
    in them: a read costs no call more than without this object.

    ``opening`` is the loop's coroutine that made the transport, and then waits to hear of ``connection_made``, which is
    heard here: it needs no task, and ends with the connection.
    """

    __slots__ = ("listener", "info", "chain", "inner", "transport", "aborted", "opening", "data_received",
                 "eof_received", "pause_writing", "resume_writing")  # fmt: skip

    def __init__(self, listener: Listener, info: ConnectionInfo, chain: Chain, inner: Any) -> None:
        self.listener = listener
        self.info = info
        self.chain = chain
        self.transport: Any = None
        self.aborted = False
        self.opening: Coroutine[Any, Any, Any] | None = None
        self._take(inner)

    def itself(self) -> Accepted:
        """This protocol, for the loop, which wants a factory."""
        return self

    def switch(self, inner: asyncio.Protocol) -> None:
        """Let another protocol take over; its ``connection_made`` is not called."""
        self._take(inner)
        self.transport.set_protocol(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.inner.connection_made(transport)
        if self.aborted:
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.opening is not None:
            try:
                self.opening.send(None)
            except StopIteration:
                self.opening = None
        self.inner.connection_lost(error)
        session: LastingSession | None = self.info.session
        if session is None:
            self.listener.lost(self, None)
        else:
            session.when_ended(self._ended)

    def _ended(self, record: StreamInfo) -> None:
        self.listener.lost(self, record)

    def abort(self) -> None:
        """End the connection at once, or as soon as it has a transport."""
        self.aborted = True
        if self.transport is not None:
            self.transport.abort()
        session: LastingSession | None = self.info.session
        if session is not None:
            session.abort()

    def _take(self, inner: Any) -> None:
        self.inner = inner
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<Accepted {self.info!r} {self.inner!r}>"


class AcceptedSocket:
    """A connection whose terminal works on the bare socket."""

    __slots__ = ("chain", "info", "listener", "session")

    def __init__(self, listener: Listener, info: ConnectionInfo, chain: Chain) -> None:
        self.listener = listener
        self.info = info
        self.chain = chain
        self.session: Session | None = None

    def ended(self, record: StreamInfo) -> None:
        """The terminal has closed the socket; ``record`` is what it knows of the connection."""
        self.session = None
        self.listener.lost(self, record)

    def abort(self) -> None:
        """End the connection at once."""
        if self.session is not None:
            self.session.abort()

    def __repr__(self) -> str:
        return f"<AcceptedSocket {self.info!r} {self.session!r}>"


class Refused(Timed):
    """A connection that a filter refused, and that is closed after a delay; until then nothing of it is read."""

    __slots__ = ("chain", "info", "listener", "sock")

    def __init__(self, listener: Listener, info: ConnectionInfo, chain: Chain, sock: socket.socket) -> None:
        self.due = inf
        self.listener = listener
        self.info = info
        self.chain = chain
        self.sock = sock

    def on_timer(self, now: float) -> None:
        self.abort()

    def abort(self) -> None:
        """Close it now."""
        self.listener.worker.wheel.cancel(self)
        self.sock.close()
        self.listener.lost(self, None)

    def __repr__(self) -> str:
        return f"<Refused {self.info!r}>"
