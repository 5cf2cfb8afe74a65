"""A client that does not wait: requests are sent when they are due, whatever becomes of those before them.

It takes a connection that is free, or opens one. A latency counts from the moment when its request was due.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

_PATIENCE = 3.0  # seconds until a client gives a request up


@dataclass
class Outcome:
    """What became of the requests. ``latencies`` are those of responses with 200, in seconds; they are in no order."""

    due: int = 0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0  # with another status
    turned_away: int = 0  # the connection was closed or reset
    given_up: int = 0
    not_sent: int = 0  # there were as many connections as there may be

    @property
    def answered(self) -> int:
        return len(self.latencies)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def __str__(self) -> str:
        p50, p99, longest = (self.percentile(share) * 1000 for share in (0.5, 0.99, 1.0))
        return (
            f"{self.due} due, {self.answered} answered (p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {longest:.0f} ms), "
            f"{self.refused} refused, {self.turned_away} turned away, {self.given_up} given up, {self.not_sent} not sent"
        )


class OpenLoop:
    """``rate`` requests a second on average, as a Poisson process under ``seed``.

    With ``reuse``, a connection that is free takes the next request; without, each request has its own.
    """

    def __init__(
        self, port: int, request: bytes, rate: float, *, reuse: bool = True, most: int = 6000, seed: int = 1
    ) -> None:
        self.port = port
        self.request = request
        self.rate = rate
        self.reuse = reuse
        self.most = most
        self.dice = random.Random(seed)
        self.outcome = Outcome()
        self.poll = select.epoll()
        self.open: dict[int, socket.socket] = {}
        self.busy: dict[int, float] = {}  # when the request of a connection was due
        self.partial: dict[int, bytes] = {}
        self.free: list[int] = []
        self.order: deque[tuple[float, int]] = deque()

    def run(self, seconds: float) -> Outcome:
        """Send for so many seconds, then close everything that is open."""
        clock = time.perf_counter
        due = start = clock()
        while (now := clock()) < start + seconds:
            while due <= now:
                self._send(due)
                due += self.dice.expovariate(self.rate)
            while self.order and self.order[0][0] < now - _PATIENCE:
                at, number = self.order.popleft()
                if self.busy.get(number) == at:
                    self.outcome.given_up += 1
                    self._close(number)
            for number, _ in self.poll.poll(max(0.0, min(due, start + seconds) - clock()), 512):
                self._receive(number)
        for number in list(self.open):
            self._close(number)
        self.poll.close()
        return self.outcome

    def _send(self, due: float) -> None:
        self.outcome.due += 1
        if self.free:
            number = self.free.pop()
            sock = self.open[number]
        elif len(self.open) < self.most:
            sock = socket.socket()
            sock.setblocking(False)
            problem = sock.connect_ex(("127.0.0.1", self.port))
            if problem not in (0, errno.EINPROGRESS):
                self.outcome.turned_away += 1
                sock.close()
                return
            number = sock.fileno()
            self.open[number] = sock
            self.poll.register(number, select.EPOLLIN | (select.EPOLLOUT if problem else 0))
            if problem:
                self.busy[number] = due
                self.order.append((due, number))
                return
        else:
            self.outcome.not_sent += 1
            return
        self.busy[number] = due
        self.order.append((due, number))
        self._write(number, sock)

    def _write(self, number: int, sock: socket.socket) -> None:
        try:
            sock.send(self.request)
        except OSError:
            self._turned_away(number)

    def _receive(self, number: int) -> None:
        sock = self.open.get(number)
        if sock is None:
            return
        try:
            data = sock.recv(65536)
        except BlockingIOError:  # it is connected now
            self.poll.modify(number, select.EPOLLIN)
            self._write(number, sock)
            return
        except OSError:
            data = b""
        if not data:
            self._turned_away(number)
            return
        data = self.partial.pop(number, b"") + data
        at = data.find(b"\r\n\r\n")
        if at < 0 or len(data) < at + 4 + _length(data[:at]):
            self.partial[number] = data
            return
        due = self.busy.pop(number)
        if data.startswith(b"HTTP/1.1 200 "):
            self.outcome.latencies.append(time.perf_counter() - due)
        else:
            self.outcome.refused += 1
        if self.reuse and b"connection: close" not in data:
            self.free.append(number)
        else:
            self._close(number)

    def _turned_away(self, number: int) -> None:
        if number in self.busy:
            self.outcome.turned_away += 1
        self._close(number)

    def _close(self, number: int) -> None:
        sock = self.open.pop(number)
        self.busy.pop(number, None)
        self.partial.pop(number, None)
        if number in self.free:
            self.free.remove(number)
        self.poll.unregister(number)
        sock.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line[15:])
    return 0
