"""An accepted connection: the terminal's protocol, and the listener's account of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sidecar.core.stream_info import ConnectionInfo

if TYPE_CHECKING:
    from sidecar.listener.listener import Listener


class Accepted(asyncio.Protocol):
    """The protocol that the event loop knows: it hears of the connection's beginning and end, and nothing between.

    The loop takes ``data_received`` and its like from the slots here, and finds the methods of the terminal's protocol
    in them: a read costs no call more than without this object.
    """

    __slots__ = ("listener", "info", "inner", "transport", "data_received", "eof_received", "pause_writing",
                 "resume_writing")  # fmt: skip

    def __init__(self, listener: Listener, info: ConnectionInfo, inner: Any) -> None:
        self.listener = listener
        self.info = info
        self.transport: Any = None
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

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.inner.connection_lost(error)
        self.listener.lost(self)

    def _take(self, inner: Any) -> None:
        self.inner = inner
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<Accepted {self.info!r} {self.inner!r}>"
