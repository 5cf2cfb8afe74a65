"""A connection on its way through the listener filters, which peek at its first bytes."""

from __future__ import annotations

import socket
from math import inf
from typing import TYPE_CHECKING

from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Callback, Timed
from sidecar.listener.listener_filter import CLOSE, MORE

if TYPE_CHECKING:
    from sidecar.listener.listener import Listener

_LOOK_AGAIN = 0.01  # seconds until the next look where the kernel cannot tell that more has arrived


class Pending(Timed):
    """Runs the filters one after another. ``due`` is the end of `listener_filters_timeout`.

    What was peeked at stays readable, so the socket is told (SO_RCVLOWAT) to be readable only when there is more.
    """

    __slots__ = ("at", "again", "hand_off", "info", "listener", "low_water", "seen", "sock", "waiting")

    def __init__(self, listener: Listener, sock: socket.socket, info: ConnectionInfo, hand_off: bool) -> None:
        self.due = inf
        self.listener = listener
        self.sock = sock
        self.info = info
        self.hand_off = hand_off
        self.at = 0
        self.seen = 0
        self.low_water = 1
        self.waiting = False
        self.again: Callback | None = None

    def advance(self) -> None:
        """Go on until a filter needs more bytes, or all are done and the connection is served."""
        listener, info = self.listener, self.info
        filters = listener.filters
        while self.at < len(filters):
            listener_filter, disabled = filters[self.at]
            if disabled is None or not disabled(info):
                data = self._peek(listener_filter.peek) if listener_filter.peek else b""
                if data is None:
                    return
                taken = listener_filter.inspect(self.sock, info, data)
                if taken == MORE:
                    self._wait(len(data))
                    return
                if taken == CLOSE or (taken and not self._consume(taken)):
                    self.abort()
                    return
                self.seen = 0
            self.at += 1
        self._finish()

    def on_timer(self, now: float) -> None:
        """`listener_filters_timeout` is over."""
        self.listener.stats.downstream_pre_cx_timeout += 1
        if self.listener.config.continue_on_listener_filters_timeout:
            self._finish()
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection: it never gets a filter chain."""
        self._release()
        self.sock.close()
        self.listener.gone(self)

    def _peek(self, most: int) -> bytes | None:
        """What has arrived. None if nothing has, or nothing new: then the connection waits, or is closed."""
        try:
            data = self.sock.recv(most, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._wait(0)
            return None
        except OSError:
            self.listener.stats.downstream_listener_filter_error += 1
            self.abort()
            return None
        if not data or (len(data) <= self.seen and self.sock.family != socket.AF_UNIX):
            # Readable without a new byte: the peer has closed.
            self.listener.stats.downstream_listener_filter_remote_close += 1
            self.abort()
            return None
        return data

    def _wait(self, seen: int) -> None:
        listener = self.listener
        if self.due == inf and listener.config.listener_filters_timeout:
            listener.worker.wheel.arm(self, self.info.start + listener.config.listener_filters_timeout)
        self.seen = seen
        if self.sock.family == socket.AF_UNIX and seen:
            self._stop_waiting()
            self.again = listener.worker.wheel.call_in(_LOOK_AGAIN, self._on_readable)
            return
        self._set_low_water(seen + 1)
        if not self.waiting:
            self.waiting = True
            listener.worker.loop.add_reader(self.sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        self.again = None
        self.advance()

    def _set_low_water(self, size: int) -> None:
        if size != self.low_water:
            self.low_water = size
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _consume(self, size: int) -> bool:
        left = size
        while left:
            try:
                data = self.sock.recv(left)
            except OSError:
                data = b""
            if not data:
                self.listener.stats.downstream_listener_filter_error += 1
                return False
            left -= len(data)
        return True

    def _finish(self) -> None:
        self._release()
        self._set_low_water(1)
        self.listener.filtered(self)

    def _release(self) -> None:
        self._stop_waiting()
        wheel = self.listener.worker.wheel
        wheel.cancel(self)
        if self.again is not None:
            wheel.cancel(self.again)
            self.again = None

    def _stop_waiting(self) -> None:
        if self.waiting:
            self.waiting = False
            self.listener.worker.loop.remove_reader(self.sock.fileno())

    def __repr__(self) -> str:
        return f"<Pending {self.info!r} at listener filter {self.at}, {self.seen} bytes seen>"
