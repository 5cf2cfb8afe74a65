"""What a connection manager does while there is too much to do.

In the ordinary state nothing of it is there: the ways in and out are exchanged when the load changes, so that no request
meets a test for it. While they are exchanged the express lane is closed. Source: Envoy's "Overload manager".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.codec.http2_frames import INTERNAL_ERROR
from sidecar.core.overload import Shed
from sidecar.core.response_flags import OVERLOAD_MANAGER
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.filter_chain import FilterChain

if TYPE_CHECKING:
    from sidecar.http.stream import Stream

_BARE = FilterChain(())
_LOCAL = ((b"x-envoy-local-overloaded", b"true"),)
_CLASSES = 8
"""Streams are of one class that hold the least that counts, to twice that; of the next from there to twice that ..."""


@dataclass(frozen=True, slots=True)
class Shrinking:
    """How short a timeout may get: `least` seconds, or where that is None, `share` of what is configured."""

    least: float | None
    share: float = 0.0

    def at(self, scale: float, configured: float) -> float:
        """The timeout at a scale from 0 to 1; one that is not configured (`inf`) stays so."""
        if configured == inf:
            return inf
        least = configured * self.share if self.least is None else min(self.least, configured)
        return least + (configured - least) * (1.0 - scale)


UNCHANGED = Shrinking(None, 1.0)


@dataclass(frozen=True, slots=True)
class Timers:
    """Which timeouts shrink: of idle connections, of idle streams, of connections altogether."""

    idle: Shrinking = UNCHANGED
    stream_idle: Shrinking = UNCHANGED
    duration: Shrinking = UNCHANGED


class Shedding:
    """One connection manager's part in the overload actions: `core.overload.Serving`.

    ``least_tracked`` is the least that a stream holds, in bytes, to be reset for it.
    """

    __slots__ = (
        "_closed_share",
        "_closing_lane",
        "_finish",
        "_idle_timeout",
        "_head_patience",
        "_prepare",
        "_refused_share",
        "_shed",
        "_stream_idle",
        "_unread",
        "least_tracked",
        "manager",
        "timers",
    )  # fmt: skip

    def __init__(self, manager: ConnectionManager, least_tracked: int, timers: Timers) -> None:
        self.manager = manager
        self.least_tracked = least_tracked
        self.timers = timers
        self._shed: Shed | None = None
        self._prepare = manager.prepare
        self._finish = manager.finish_response
        self._idle_timeout = manager.options.idle_timeout
        self._head_patience = manager.options.head_patience
        self._closing_lane = False
        self._refused_share = self._closed_share = 0.0
        self._stream_idle = inf
        self._unread: list[Any] = []

    # requests

    def refuse(self, share: float, shed: Shed | None) -> None:
        """Answer this share (0 to 1) of new requests with 503, without looking at them any further, and call ``shed`` for
        each.
        """
        self._refused_share = share
        self._shed = shed
        self.manager.prepare = self._refuse_or_prepare if share else self._prepare
        self._guard_lane()

    def close_connections(self, share: float) -> None:
        """Ask the client to close its connection with this share (0 to 1) of the responses."""
        self._closed_share = share
        self.manager.finish_response = self._close_and_finish if share else self._finish
        self._guard_lane()

    def _guard_lane(self) -> None:
        lane = self.manager.lane
        if lane is None:
            return
        closing = bool(self._refused_share or self._closed_share)
        if closing is not self._closing_lane:
            self._closing_lane = closing
            if closing:
                lane.close()
            else:
                lane.open()

    def _refuse_or_prepare(self, stream: Stream) -> bool:
        if getattr(stream, "downstream", None) is None:
            return True  # a trial: nothing is to be learnt now
        manager = self.manager
        share = self._refused_share
        if share < 1.0 and manager.worker.random.random() >= share:
            return self._prepare(stream)
        manager.stats.downstream_rq_overload_close += 1
        if self._shed is not None:
            self._shed()
        stream.chain = _BARE
        headers = _LOCAL if manager.options.tells_overload else ()
        stream.reply(503, b"envoy overloaded", details="overload", headers=headers)
        return True

    def _close_and_finish(self, stream: Stream) -> None:
        downstream: Any = getattr(stream, "downstream", None)
        manager = self.manager
        if downstream is not None:
            share = self._closed_share
            draining = stream.request.version == 20 and downstream.connection.codec.draining
            if not draining and (share >= 1.0 or manager.worker.random.random() < share):
                manager.stats.downstream_cx_overload_disable_keepalive += 1
                if stream.request.version == 20:
                    if not manager.draining:
                        manager.stats.downstream_cx_drain_close += 1
                    downstream.connection.drain()
                else:
                    manager.stats.downstream_cx_drain_close += 1
                    downstream.close_after_response()
        self._finish(stream)

    # reading

    def stop_reading(self, stop: bool) -> None:
        """Whether HTTP/1 connections on which no request is under way are left unread: it costs nothing, and what the
        client has to say waits in the kernel. HTTP/2 is read on, for what it says of windows lets responses leave.
        """
        if stop:
            for connection in self.manager.connections:
                if connection.version == 11 and not connection.streams() and not connection.paused:  # type: ignore[attr-defined]
                    transport = connection.transport  # type: ignore[attr-defined]
                    if transport is not None and not transport.is_closing():
                        transport.pause_reading()
                        self._unread.append(connection)
            return
        unread, self._unread = self._unread, []
        for connection in unread:
            if not connection.closed and not connection.paused and not connection.transport.is_closing():
                connection.transport.resume_reading()

    # timeouts

    def scale_timers(self, scale: float) -> None:
        """Shrink timeouts: 0 leaves them as they are configured, 1 makes them as short as they may get."""
        manager, timers = self.manager, self.timers
        options = manager.options
        options.idle_timeout = timers.idle.at(scale, self._idle_timeout)
        self._stream_idle = timers.stream_idle.at(scale, options.stream_idle_timeout)
        options.head_patience = min(self._head_patience, self._stream_idle) if scale else self._head_patience
        duration = timers.duration.at(scale, options.max_connection_duration)
        if not scale:
            return
        now = manager.worker.clock()
        for connection in tuple(manager.connections):
            self._wake(connection, now, duration)

    def _wake(self, connection: Any, now: float, duration: float) -> None:
        """Let a connection look at its timeouts, and at those of its streams, as they are now."""
        if not connection.version:  # it has not said yet what it speaks
            if now >= connection.info.start + min(self.manager.options.idle_timeout, duration):
                connection.on_timer(now)
            return
        if connection.expires != inf:
            connection.expires = min(connection.expires, connection.info.start + duration)
        limit = self._stream_idle
        for stream in _streams_of(connection):
            if now >= stream.last_activity + limit:
                # For this look only: streams serve again, and must not keep what held for one request.
                kept, stream.idle_timeout = stream.idle_timeout, limit
                stream.downstream.now = now
                stream.on_timer(now)
                stream.idle_timeout = kept
        if not connection.closed:
            connection.on_timer(now)

    # streams

    def reset_streams(self, pressure: float, most: int) -> int:
        """Reset at most so many of the streams that hold the most; how many there were.

        Streams are classed by what they hold in powers of two, from ``least_tracked`` up; the higher the pressure (0 to
        1), the more classes from the top are reset.
        """
        lowest = _CLASSES - min(int(pressure * _CLASSES) + 1, _CLASSES)
        least = self.least_tracked << lowest
        holders = [holder for holder in self._holders() if holder[0] >= least]
        holders.sort(key=lambda holder: -holder[0])
        for _, connection, stream in holders[:most]:
            self._reset(connection, stream)
        if self.manager.worker.cork.waiting:
            self.manager.worker.cork.pull()
        return len(holders[:most])

    def _holders(self) -> Iterator[tuple[int, Any, Any]]:
        """How much is held, by which connection, and for which stream: a stream, the number of one of which only the end is left,
        or None for what is left of an HTTP/1 connection.
        """
        connections: list[Any] = list(self.manager.connections)
        for connection in connections:
            streams = _streams_of(connection)
            for stream in streams:
                yield held_by(connection, stream), connection, stream
            if connection.version == 20:
                for number in connection.flushing:
                    queued = connection.codec.streams.get(number)
                    if queued is not None:
                        yield queued.queued, connection, number
            elif connection.version == 11 and not streams and not connection.closed:
                yield connection.transport.get_write_buffer_size(), connection, None

    def _reset(self, connection: Any, stream: Any) -> None:
        if stream is None:
            connection.reset()
        elif isinstance(stream, int):
            connection.flushing.pop(stream)
            connection.codec.reset(stream, INTERNAL_ERROR)
            connection.stats.tx_reset += 1
            connection.cork()
        else:
            stream.now = stream.downstream.now = self.manager.worker.clock()
            stream.response_flags |= OVERLOAD_MANAGER
            stream.response_code_details = "overload"
            stream.reset("overload")

    def __repr__(self) -> str:
        return f"<Shedding refuses {self._refused_share:.0%}, closes {self._closed_share:.0%}>"


def _streams_of(connection: Any) -> list[Any]:
    """The streams of a downstream connection that are under way; none while its protocol is not known."""
    if connection.version == 20:
        return [exchange.stream for exchange in connection.exchanges.values()]
    if connection.version == 11 and connection.stream is not None:
        return [connection.stream]
    return []


def held_by(connection: Any, stream: Any) -> int:
    """How many bytes of its messages a stream holds in this process: in filters, for a retry, on the way to the client."""
    held: int = sum(map(len, stream.held_request or ())) + sum(map(len, stream.held_response or ()))
    upstream = stream.upstream
    if upstream is not None and upstream.body is not None:
        held += sum(map(len, upstream.body))
    if connection.version == 20:
        queued = connection.codec.streams.get(stream.downstream.id)
        held += stream.downstream.unconsumed + (0 if queued is None or queued.queue is None else queued.queued)
    else:
        held += connection.transport.get_write_buffer_size() + connection.reader.held_size()
    return held
