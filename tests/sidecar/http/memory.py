"""An event loop, transports and a dialler without any system: time stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from sidecar.core.address import Address

_LATE = 1e-6  # seconds by which a timer is late: it must not be early by a rounding


class Handle:
    """A callback that may be cancelled."""

    def __init__(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        if not self.cancelled:
            self.function(*self.arguments)


class MemoryLoop:
    """What the sidecar asks of an event loop. ``now`` is its clock, in seconds; ``problems`` is what failed in it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.turns = 0
        self.problems: list[dict[str, Any]] = []
        self.at_rest: Callable[[], None] = lambda: None  # called whenever nothing is left to be called soon
        self._soon: deque[Handle] = deque()
        self._later: list[tuple[float, int, Handle]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, function: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(function, arguments)
        self._soon.append(handle)
        return handle

    def call_later(self, delay: float, function: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(function, arguments)
        heapq.heappush(self._later, (self.now + delay, next(self._numbers), handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)

    def turn(self) -> bool:
        """One turn of the loop: what was to be called soon when it began. False if there was nothing."""
        count = len(self._soon)
        for _ in range(count):
            self._soon.popleft().run()
        self.turns += bool(count)
        return bool(count)

    def settle(self) -> None:
        """Turn until nothing is left to be called soon."""
        for _ in range(100_000):
            if not self.turn():
                self.at_rest()
                return
        raise AssertionError("the loop never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, with all timers on the way."""
        until = self.now + seconds
        while self._later and self._later[0][0] + _LATE <= until:
            due, _, handle = heapq.heappop(self._later)
            self.now = max(self.now, due + _LATE)
            handle.run()
            self.settle()
        self.now = until
        self.settle()


class MemorySocket:
    """What the sidecar asks of a transport's socket. A descriptor is made only for who looks whether the peer is gone."""

    family = socket.AF_INET

    def __init__(self, name: tuple[str, int]) -> None:
        self.name = name
        self.pair: tuple[socket.socket, socket.socket] | None = None

    def getsockname(self) -> tuple[str, int]:
        return self.name

    def fileno(self) -> int:
        if self.pair is None:
            self.pair = socket.socketpair()
            self.pair[0].setblocking(False)
        return self.pair[0].fileno()

    def peer_left(self) -> None:
        """From now on a poll of the descriptor says that the peer is gone."""
        self.fileno()
        assert self.pair is not None
        self.pair[1].close()

    def close(self) -> None:
        if self.pair is not None:
            for each in self.pair:
                each.close()


class MemoryTransport(asyncio.Transport):
    """One end of a connection: ``written`` is what the sidecar wrote.

    ``room`` is how many bytes the peer's side takes before they pile up here, None for any number; above the high
    watermark that the sidecar set its protocol is paused, as by a real event loop.
    """

    def __init__(self, loop: MemoryLoop, protocol: Any, name: tuple[str, int]) -> None:
        super().__init__()
        self.loop = loop
        self.protocol = protocol
        self.socket = MemorySocket(name)
        self.written = bytearray()
        self.wasted = 0  # octets that were written after the peer had gone, and before the protocol was told
        self.writes = 0
        self.room: int | None = None
        self.high = 65536
        self.stopped = False  # its protocol was told to pause writing
        self.reading = True
        self.pauses = 0
        self.half_closed = False
        self.closing = False
        self.lost = False
        self.undelivered: list[bytes] = []
        self.ended: Callable[[], None] | None = None

    # the sidecar's side

    def get_protocol(self) -> Any:
        """What a protocol asks that gives way to another: ``switch`` is here."""
        return self

    def switch(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.half_closed and not self.lost, "written to after its end"
        if self.closing:
            self.wasted += len(data)
            return
        self.writes += 1
        self.written += data
        self._watch()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.half_closed = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.high = high

    def get_write_buffer_size(self) -> int:
        return 0 if self.room is None else max(0, len(self.written) - self.room)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def pause_reading(self) -> None:
        assert self.reading or self.closing, "reading was paused twice"
        self.pauses += self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading or self.closing, "reading was not paused"
        self.reading = True
        self.loop.call_soon(self._deliver)

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    # the peer's side

    def take(self, size: int) -> None:
        """The peer has room for so many bytes more."""
        assert self.room is not None
        self.room += size
        self._watch()

    def receive(self, data: bytes) -> None:
        """The peer sent ``data``; it waits here while reading is paused."""
        self.undelivered.append(data)
        self._deliver()

    def finish(self) -> None:
        """The peer closed its side."""
        self._ends(self._finished)

    def break_off(self) -> None:
        """The peer reset the connection."""
        self._ends(lambda: self._end(ConnectionResetError(104, "Connection reset by peer")))

    def _finished(self) -> None:
        if not self.protocol.eof_received():
            self._end(None)

    def _ends(self, how: Callable[[], None]) -> None:
        if self.reading:
            how()
        else:
            self.socket.peer_left()
            self.ended = how

    def _deliver(self) -> None:
        while self.reading and self.undelivered and not self.closing:
            self.protocol.data_received(self.undelivered.pop(0))
        if self.reading and self.ended is not None and not self.closing:
            ended, self.ended = self.ended, None
            ended()

    def _watch(self) -> None:
        waiting = self.get_write_buffer_size()
        if waiting > self.high and not self.stopped:
            self.stopped = True
            self.protocol.pause_writing()
        elif self.stopped and waiting <= self.high // 4:
            self.stopped = False
            self.protocol.resume_writing()

    def _end(self, error: Exception | None) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        self.lost = True
        self.protocol.connection_lost(error)
        self.socket.close()


class MemoryDialer:
    """Connects to nothing, a turn of the loop later. With ``fails`` every host refuses, those with the ports ``refused`` do in
    any case, and with ``waits`` none answers until ``go_on``."""

    def __init__(self, loop: MemoryLoop) -> None:
        self.loop = loop
        self.made: list[MemoryTransport] = []
        self.dialled: list[Address] = []
        self.fails: str = ""
        self.refused: frozenset[int] = frozenset()
        self.waits = False
        self._waiting: list[Callable[[], None]] = []

    def dial(
        self,
        address: Address,
        protocol: Any,
        timeout: float,
        connected: Callable[[Any, str | None, bool], None],
        hostname: str,
        options: Any = None,
    ) -> None:
        self.dialled.append(address)

        def answer() -> None:
            if self.fails:
                connected(protocol, self.fails, False)
                return
            if address.port in self.refused:
                connected(protocol, "connection refused", False)
                return
            transport = MemoryTransport(self.loop, protocol, ("127.0.0.1", 40000 + len(self.made)))
            self.made.append(transport)
            protocol.connection_made(transport)
            connected(protocol, None, False)

        if self.waits:
            self._waiting.append(answer)
        else:
            self.loop.call_soon(answer)

    def go_on(self) -> None:
        """Answer those who wait."""
        self.waits = False
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            self.loop.call_soon(answer)
        self.loop.settle()


class MemoryLogFiles:
    """Access logs that are kept: ``lines`` by path."""

    def __init__(self, *_: Any) -> None:
        self.lines: dict[str, list[bytes]] = {}

    def open(self, path: str) -> MemoryLogFiles._File:
        return self._File(self.lines.setdefault(path, []))

    def publish(self) -> None: ...

    class _File:
        def __init__(self, lines: list[bytes]) -> None:
            self.write = lines.append
