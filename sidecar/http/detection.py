"""Which protocol a client speaks who has not agreed on one by ALPN: seen by the first bytes (RFC 9113 section 3.3)."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from sidecar.codec.http2_frames import PREFACE
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Timed
from sidecar.http.connection_manager import ConnectionManager


class UndecidedConnection(asyncio.Protocol, Timed):
    """Stands in until enough has been read, and gives way to the connection of that protocol then."""

    __slots__ = ("due", "info", "manager", "read", "transport")

    version = 0

    def __init__(self, manager: ConnectionManager, info: ConnectionInfo) -> None:
        self.due = inf
        self.manager = manager
        self.info = info
        self.read = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.manager.opened(self)
        manager = self.manager
        manager.unused.begin(self)
        if manager.options.max_connection_duration != inf:
            manager.worker.wheel.arm(self, self.info.start + manager.options.max_connection_duration)

    def data_received(self, data: bytes) -> None:
        read = self.read = self.read + data
        if len(read) < len(PREFACE) and PREFACE.startswith(read):
            return
        self._decide(self.manager.speaking(read.startswith(PREFACE), self.info))

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._disarm()
        self.manager.closed(self, not self.transport.is_closing(), False)

    def expire(self) -> None:
        self.on_timer(self.manager.worker.clock())

    def on_timer(self, now: float) -> None:
        stats = self.manager.stats
        if now >= self.info.start + self.manager.options.max_connection_duration:
            stats.downstream_cx_max_duration_reached += 1
        else:
            stats.downstream_cx_idle_timeout += 1
        self.transport.close()

    def streams(self) -> int:
        return 0

    def retire(self, due: float) -> bool:
        """What it speaks is not known, so there is nothing to say yet."""
        return False

    def drain(self) -> None:
        """Close: there is no request under way."""
        self.transport.close()

    def _disarm(self) -> None:
        self.manager.worker.wheel.cancel(self)
        self.manager.unused.end(self)

    def _decide(self, connection: Any) -> None:
        self._disarm()
        self.manager.gave_way(self)
        outer = self.transport.get_protocol()
        if outer is self:
            self.transport.set_protocol(connection)
        else:
            outer.switch(connection)
        connection.connection_made(self.transport)
        connection.data_received(self.read)

    def __repr__(self) -> str:
        return f"<UndecidedConnection {self.info!r}, {len(self.read)} bytes>"
