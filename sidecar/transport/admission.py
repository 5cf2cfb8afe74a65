"""Filters that judge a connection by its TLS: they are asked when the handshake is done, and before who serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from sidecar.core.connection_filter import ASKING, Question
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker

Accept = Callable[[ConnectionInfo], Any]
"""Makes the protocol inside a TLS connection."""


class Judge(Protocol):
    """A network filter that decides on a connection once."""

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        """None to let it pass; to refuse it, in how many seconds to close it (0.0 for now); ``ASKING`` to be asked to ask."""
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


class UndecidedConnection(asyncio.Protocol):
    """A connection about which a judge asks somebody else: nothing of it is read until there is an answer."""

    __slots__ = ("asking", "info", "proceed", "question", "transport", "worker")

    def __init__(self, worker: Worker, asking: Any, info: ConnectionInfo, proceed: Accept) -> None:
        self.worker = worker
        self.asking = asking
        self.info = info
        self.proceed = proceed  # to the judges behind this one, and to who serves the connection
        self.transport: Any = None
        self.question: Question | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.pause_reading()
        question = self.asking.ask(self.info, self._decided)
        if self.transport is not None:
            self.question = question

    def _decided(self, delay: float | None) -> None:
        transport, self.transport, self.question = self.transport, None, None
        inner = self.proceed(self.info) if delay is None else RefusedConnection(self.worker, delay)
        transport.get_protocol().switch(inner)
        inner.connection_made(transport)
        transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.question is not None:
            self.question.cancel()
            self.question = None


def judged_by(judges: Sequence[Judge], accept: Accept, worker: Worker) -> Accept:
    """Asks the judges in their order, then ``accept``."""

    def judged(info: ConnectionInfo) -> Any:
        for number, judge in enumerate(judges, 1):
            delay = judge.on_new_connection(info)
            if delay == ASKING:
                return UndecidedConnection(worker, judge, info, judged_by(judges[number:], accept, worker))
            if delay is not None:
                return RefusedConnection(worker, delay)
        return accept(info)

    return judged
