"""Filters that judge a connection by its TLS: they are asked when the handshake is done, and before who serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker

Accept = Callable[[ConnectionInfo], Any]
"""Makes the protocol inside a TLS connection."""


class Judge(Protocol):
    """A network filter that decides on a connection once."""

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        """None to let it pass; to refuse it, in how many seconds to close it (0.0 for now)."""
        ...


class RefusedConnection(asyncio.Protocol, Timed):
    """A connection that a judge refused, and that is closed ``delay`` seconds later."""

    __slots__ = ("delay", "transport", "worker")

    def __init__(self, worker: Worker, delay: float) -> None:
        self.due = inf
        self.worker = worker
        self.delay = delay
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.delay:
            self.worker.wheel.arm(self, self.worker.clock() + self.delay)
        else:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.worker.wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        self.transport.close()


def judged_by(judges: Sequence[Judge], accept: Accept, worker: Worker) -> Accept:
    """Asks the judges in their order, then ``accept``."""

    def judged(info: ConnectionInfo) -> Any:
        for judge in judges:
            delay = judge.on_new_connection(info)
            if delay is not None:
                return RefusedConnection(worker, delay)
        return accept(info)

    return judged
