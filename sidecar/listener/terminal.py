"""What stands at the end of a filter chain, as the listener sees it, and what it is told when it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sidecar.config.listener import FilterChain, Listener
from sidecar.config.network_filters import NetworkFilter
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker


class Terminal(Protocol):
    """One network filter of one filter chain; its connections share it.

    A protocol that wants another to take over calls ``transport.get_protocol().switch(other)``, never
    ``transport.set_protocol``: the listener has to hear of the connection's end.
    """

    def accept(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """The protocol for a new connection; the listener connects it to the transport."""
        ...

    def drain(self) -> None:
        """Let every connection finish what it does, and close it; new ones too."""
        ...


@dataclass(frozen=True, slots=True)
class ListenerContext:
    """The surroundings of a filter chain."""

    config: Listener
    worker: Worker


BuildTerminal = Callable[[FilterChain, NetworkFilter, ListenerContext], Terminal]
"""Makes what serves the connections of a filter chain; the network filter is the chain's last."""
