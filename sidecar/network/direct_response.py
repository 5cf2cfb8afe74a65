"""The terminal `direct_response`: sends fixed bytes and closes."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker

_LINGER = 1.0  # seconds for the peer to read the response and close


class DirectResponse:
    """Serves one response to every connection of a filter chain."""

    __slots__ = ("response", "worker")

    def __init__(self, response: bytes, worker: Worker) -> None:
        self.response = response
        self.worker = worker

    def accept(self, info: ConnectionInfo) -> asyncio.Protocol:
        return _Connection(self)

    def drain(self) -> None:
        """Nothing to do: its connections end by themselves."""

    def __repr__(self) -> str:
        return f"<DirectResponse {len(self.response)} bytes>"


class _Connection(asyncio.Protocol, Timed):
    """What the peer sends is read and dropped: unread bytes would make the close a reset, which may overtake the
    response."""

    __slots__ = ("terminal", "transport")

    def __init__(self, terminal: DirectResponse) -> None:
        self.due = inf
        self.terminal = terminal
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        terminal = self.terminal
        transport.write(terminal.response)
        transport.write_eof()
        terminal.worker.wheel.arm(self, terminal.worker.clock() + _LINGER)

    def data_received(self, data: bytes) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.terminal.worker.wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        self.transport.close()
