"""A connection for which a network filter asks somebody else: nothing of it is read until there is an answer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from sidecar.core.connection_filter import Question
from sidecar.core.stream_info import ConnectionInfo
from sidecar.listener.terminal import Chain

if TYPE_CHECKING:
    from sidecar.listener.listener import Listener


class Undecided:
    """Waits for the filter at ``position`` of its chain."""

    __slots__ = ("chain", "info", "listener", "position", "question", "sock")

    def __init__(
        self, listener: Listener, sock: socket.socket, info: ConnectionInfo, chain: Chain, position: int
    ) -> None:
        self.listener = listener
        self.sock = sock
        self.info = info
        self.chain = chain
        self.position = position
        self.question: Question | None = None

    def begin(self) -> None:
        """Let the filter ask."""
        connections = self.listener.connections
        connections.add(self)
        asking: Any = self.chain.filters[self.position]
        question = asking.ask(self.info, self.decided)
        if self in connections:
            self.question = question

    def decided(self, delay: float | None) -> None:
        """The answer is there."""
        self.question = None
        self.listener.connections.discard(self)
        self.listener.decided(self, delay)

    def abort(self) -> None:
        """Close the connection now; the filters that let it pass hear of that."""
        if self.question is not None:
            self.question.cancel()
            self.question = None
        chain = self.chain
        self.chain = Chain(chain.config, chain.filters[: self.position], chain.terminal)
        self.sock.close()
        self.listener.lost(self, None)

    def __repr__(self) -> str:
        return f"<Undecided {self.info!r} at filter {self.position}>"
