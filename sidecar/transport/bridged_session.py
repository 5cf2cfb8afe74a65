"""Who serves bare sockets, behind TLS: one end of a pair of sockets is the session's, the other is joined to TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker
from sidecar.transport.bridge import SocketBridge


class ServesSockets(Protocol):
    """The last network filter of a chain that wants the bare, non-blocking socket."""

    def accept_socket(self, info: ConnectionInfo, sock: socket.socket, ended: Callable[[StreamInfo], None]) -> Any:
        """The session, which has ``abort``; ``ended`` is called once when it has closed its socket."""
        ...


class BridgedSession:
    """The session of one connection: it may outlast the connection, by what is still to be delivered."""

    __slots__ = ("ended", "record", "session")

    def __init__(self) -> None:
        self.session: Any = None
        self.record: StreamInfo | None = None
        self.ended: Callable[[StreamInfo], None] | None = None

    def on_end(self, record: StreamInfo) -> None:
        """The session has closed its end."""
        self.record = record
        self.session = None
        if self.ended is not None:
            self.ended(record)

    def when_ended(self, ended: Callable[[StreamInfo], None]) -> None:
        """Call ``ended`` with the session's record, now if it has ended."""
        if self.record is not None:
            ended(self.record)
        else:
            self.ended = ended

    def abort(self) -> None:
        """End it at once."""
        if self.session is not None:
            self.session.abort()

    def __repr__(self) -> str:
        return f"<BridgedSession {self.session!r}>"


def bridging(terminal: ServesSockets, worker: Worker, buffer_limit: int) -> Callable[[ConnectionInfo], SocketBridge]:
    """Makes the protocols inside TLS; ``buffer_limit`` is in bytes."""

    def accept(info: ConnectionInfo) -> SocketBridge:
        bridge = SocketBridge(worker.loop, buffer_limit)
        bridged = info.session = BridgedSession()
        session = terminal.accept_socket(info, bridge.far, bridged.on_end)
        if bridged.record is None:
            bridged.session = session
        return bridge

    return accept
