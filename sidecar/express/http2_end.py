"""The end of an exchange on a client's HTTP/2 connection, as the lane has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compile_end_of_exchange(options: Any) -> Callable[[Any, Any, float], None]:
    """``end(downstream, connection, now)``: what ``Http2Exchange.finished`` does for a request that came whole."""

    def end(downstream: Any, connection: Any, now: float) -> None:
        if downstream.unconsumed:
            downstream.give_back()
        if downstream.id in connection.codec.streams:
            connection.flush_later(downstream.id)
        del connection.exchanges[downstream.id]
        del downstream.stream
        downstream.through = None
        connection.stats.streams_active -= 1
        if not connection.exchanges:
            connection.now = connection.idle_since = now
            if connection.codec.draining:
                connection.rest()
            elif now + options.idle_timeout < connection.due:
                connection.wake_by(now + options.idle_timeout)

    return end
