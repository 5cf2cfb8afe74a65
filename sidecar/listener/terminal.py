"""What stands behind the listener, as the listener sees it: connection filters, and a terminal at the end of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sidecar.config.listener import FilterChain, Listener
from sidecar.config.network_filters import NetworkFilter
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker


class Terminal(Protocol):
    """The last network filter of one filter chain; its connections share it.

    A protocol that wants another to take over calls ``transport.get_protocol().switch(other)``, never
    ``transport.set_protocol``: the listener has to hear of the connection's end.
    """

    def accept(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """The protocol for a new connection; the listener connects it to the transport."""
        ...

    def drain(self) -> None:
        """Let every connection finish what it does, and close it; new ones too."""
        ...


class Session(Protocol):
    """A connection that a terminal serves on the bare socket."""

    def abort(self) -> None:
        """End the connection at once."""
        ...


@runtime_checkable
class SocketTerminal(Protocol):
    """A terminal that wants the bare, non-blocking socket, and no transport around it. It closes the socket itself."""

    def accept_socket(self, info: ConnectionInfo, sock: socket.socket, ended: Callable[[StreamInfo], None]) -> Session:
        """Serve a new connection; call ``ended`` once when its socket is closed."""
        ...

    def drain(self) -> None:
        """As for ``Terminal``."""
        ...


class LastingSession(Protocol):
    """What serves a connection from behind TLS on a socket of its own, and may outlast it: ``ConnectionInfo.session``."""

    def when_ended(self, ended: Callable[[StreamInfo], None]) -> None:
        """Call ``ended`` once it has ended, now if it has."""
        ...

    def abort(self) -> None:
        """End it at once."""
        ...


class ConnectionFilter(Protocol):
    """A network filter in front of the terminal, which decides on a connection once, before a byte of it is read."""

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        """None to let it pass; to refuse it, in how many seconds to close it (0.0 for now)."""
        ...

    def on_close(self, info: ConnectionInfo) -> None:
        """A connection that this filter let pass has ended."""
        ...


@dataclass(frozen=True, slots=True)
class ListenerContext:
    """The surroundings of a filter chain."""

    config: Listener
    worker: Worker


BuildTerminal = Callable[[FilterChain, NetworkFilter, ListenerContext], Terminal | SocketTerminal]
"""Makes what serves the connections of a filter chain; the network filter is the chain's last."""

BuildFilters = Callable[[FilterChain, ListenerContext], tuple[ConnectionFilter, ...]]
"""Makes the filters in front of it, in their order."""


def no_filters(chain: FilterChain, context: ListenerContext) -> tuple[ConnectionFilter, ...]:
    """Nothing in front of the terminal."""
    return ()


class Chain:
    """A filter chain at work."""

    __slots__ = ("accept", "config", "filters", "name", "on_socket", "terminal")

    def __init__(
        self, config: FilterChain, filters: tuple[ConnectionFilter, ...], terminal: Terminal | SocketTerminal
    ) -> None:
        self.config = config
        self.name = config.name
        self.filters = filters
        self.terminal = terminal
        self.on_socket: SocketTerminal | None = None
        self.accept: Callable[[ConnectionInfo], asyncio.BaseProtocol] | None = None
        if isinstance(terminal, SocketTerminal):
            self.on_socket = terminal
        else:
            self.accept = terminal.accept

    def __repr__(self) -> str:
        return f"<Chain {self.name!r} {len(self.filters)} filters, {self.terminal!r}>"
