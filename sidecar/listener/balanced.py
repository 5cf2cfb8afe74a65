"""Connections spread evenly over several workers, as with Envoy's `exact_balance`: the kernel only throws dice.

The workers share a board with the number of connections that each has on each listener. One that accepts a connection and sees
that another has fewer passes the socket on to that one (SCM_RIGHTS), which serves it as if it had accepted it.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any

from sidecar.core.address import Address
from sidecar.core.descriptors import memory_file, receive_descriptors
from sidecar.core.stream_info import StreamInfo
from sidecar.listener.accepted import Descriptor
from sidecar.listener.listener import Listener

_log = logging.getLogger(__name__)

LISTENERS = 64
"""Listeners that are balanced; more than that are left to the kernel."""

CLOSED = 1 << 60
"""On the board: this worker takes no connections."""

_AT_ONCE = 64


class Board:
    """What each worker has, for each listener, in memory that all share. Every number has one writer, so that none gets lost:
    ``own``, connections of a worker; ``received``, how many of those were passed on to it; ``passed``, how many one worker
    has passed to another. What was passed and not received is on its way, and counts where it goes.
    """

    __slots__ = ("_numbers", "_workers")

    def __init__(self, descriptor: int, workers: int) -> None:
        self._workers = workers
        self._numbers = memoryview(mmap.mmap(descriptor, self.size(workers))).cast("q")

    @staticmethod
    def size(workers: int) -> int:
        """In bytes."""
        return 8 * LISTENERS * workers * (2 + workers)

    def load(self, index: int, worker: int) -> int:
        """How many connections a worker has or is about to have."""
        numbers, workers = self._numbers, self._workers
        row = index * workers * (2 + workers) + worker * (2 + workers)
        passed = sum(numbers[row + 2 : row + 2 + workers])
        return numbers[row] + passed - numbers[row + 1]

    def tell(self, index: int, worker: int, connections: int) -> None:
        """Of the worker itself: so many connections, or CLOSED."""
        self._numbers[(index * self._workers + worker) * (2 + self._workers)] = connections

    def coming(self, worker: int) -> int:
        """How many connections were passed to a worker, and have not come to it yet."""
        numbers, width = self._numbers, 2 + self._workers
        rows = range(worker * width, LISTENERS * self._workers * width, self._workers * width)
        return sum(sum(numbers[row + 2 : row + width]) - numbers[row + 1] for row in rows)

    def received(self, index: int, worker: int) -> None:
        """Of the worker itself: one that was passed on to it has come."""
        self._numbers[(index * self._workers + worker) * (2 + self._workers) + 1] += 1

    def passed(self, index: int, worker: int, by: int, change: int) -> None:
        """Of the worker that passes one on."""
        self._numbers[(index * self._workers + worker) * (2 + self._workers) + 2 + by] += change

    def close(self, worker: int) -> None:
        """A worker takes no connections."""
        for index in range(LISTENERS):
            self.tell(index, worker, CLOSED)

    def __repr__(self) -> str:
        return f"<Board of {self._workers} workers>"


class Exchange:
    """What the parent of so many workers makes for them: the board, and a way to each of them. It stays open here, so that what
    is on its way to a worker that dies goes to its replacement.
    """

    __slots__ = ("_descriptor", "_pairs", "board", "workers")

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._descriptor = memory_file("mizzen-board")
        os.ftruncate(self._descriptor, Board.size(workers))
        self.board = Board(self._descriptor, workers)
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(workers)]
        for number in range(workers):
            self.board.close(number)

    def of_worker(self, number: int) -> list[int]:
        """The descriptors of a worker's part: the board, its inbox, and the outboxes to all."""
        return [self._descriptor, self._pairs[number][0].fileno(), *(sender.fileno() for _, sender in self._pairs)]

    def close(self, number: int) -> None:
        """A worker is gone, and takes no connections until its replacement says so."""
        self.board.close(number)

    def end(self) -> None:
        """Close all of it here; the workers have theirs."""
        os.close(self._descriptor)
        for pair in self._pairs:
            for sock in pair:
                sock.close()

    def __repr__(self) -> str:
        return f"<Exchange between {self.workers} workers>"


class Balancer:
    """One worker's part. ``board`` is the descriptor of the shared memory, ``inbox`` where sockets for this worker arrive,
    ``outboxes`` where those for each worker go, by their numbers.
    """

    __slots__ = ("_board", "_inbox", "_loop", "_outboxes", "_workers", "listeners", "number", "taking")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, number: int, board: int, inbox: int, outboxes: Sequence[int]
    ) -> None:
        self._loop = loop
        self.number = number
        self._workers = range(len(outboxes))
        self._board = Board(board, len(outboxes))
        self._inbox = socket.socket(fileno=inbox)
        self._outboxes = [socket.socket(fileno=outbox) for outbox in outboxes]
        for sock in (self._inbox, *self._outboxes):
            sock.setblocking(False)
        self.listeners: list[BalancedListener] = []
        self.taking = False

    def listener(self, *arguments: Any) -> Listener:
        """A listener that takes part; in the order of the configuration, for its place in that is its place on the board."""
        made = BalancedListener(*arguments)
        made.balancer = self
        made.index = len(self.listeners)
        self.listeners.append(made)
        return made

    def start(self) -> None:
        """Take connections, those of others included."""
        self.taking = True
        for listener in self.listeners:
            self.tell(listener.index, listener.limit.active)
        self._loop.add_reader(self._inbox.fileno(), self._on_readable)

    def stop(self) -> None:
        """Take no more; what is on its way here is served still."""
        self.taking = False
        self._board.close(self.number)

    def coming(self) -> int:
        """How many connections others have passed on to this worker that have not come yet."""
        return self._board.coming(self.number)

    def tell(self, index: int, connections: int) -> None:
        """How many connections this worker has on the listener with this index."""
        if self.taking and index < LISTENERS:
            self._board.tell(index, self.number, connections)

    def pass_on(self, index: int, descriptor: int) -> bool:
        """Give a connection to the worker that has the fewest, if that is another one; the caller closes its copy then."""
        if not self.taking or index >= LISTENERS:
            return False
        board = self._board
        loads = [board.load(index, worker) for worker in self._workers]
        least = min(loads)
        if least >= loads[self.number]:
            return False
        fewest = loads.index(least)
        board.passed(index, fewest, self.number, 1)
        try:
            socket.send_fds(self._outboxes[fewest], [bytes((index,))], [descriptor])
        except OSError:
            board.passed(index, fewest, self.number, -1)
            return False  # its queue is full
        return True

    def _on_readable(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, descriptors, _ = receive_descriptors(self._inbox, 1, 1)
            except OSError:
                return
            self._board.received(data[0], self.number)
            for descriptor in descriptors:
                sock = socket.socket(fileno=descriptor)
                try:
                    listener, name = self.listeners[data[0]], sock.getpeername()
                except (OSError, IndexError) as error:
                    _log.debug("a connection from another worker: %s", error)
                    sock.close()
                else:
                    listener.take_over(Descriptor(sock.detach(), int(sock.family)), name)

    def __repr__(self) -> str:
        return f"<Balancer of worker {self.number} of {len(self._workers)}>"


class BalancedListener(Listener):
    """A listener that passes connections on to workers that have fewer."""

    __slots__ = ("balancer", "index")

    balancer: Balancer
    index: int

    def _admit(self, accepted: Descriptor, name: Any, local: Address | None) -> None:
        if self.balancer.pass_on(self.index, accepted.fileno()):
            os.close(accepted.fileno())
        else:
            self._keep(accepted, name, local)

    def take_over(self, accepted: Descriptor, name: Any) -> None:
        """Serve a connection from ``name`` that another worker has accepted."""
        self._keep(accepted, name, None)

    def _keep(self, accepted: Descriptor, name: Any, local: Address | None) -> None:
        Listener._admit(self, accepted, name, local)
        self.balancer.tell(self.index, self.limit.active)

    def lost(self, connection: Any, record: StreamInfo | None) -> None:
        Listener.lost(self, connection, record)
        self.balancer.tell(self.index, self.limit.active)

    def _leave(self) -> None:
        Listener._leave(self)
        self.balancer.tell(self.index, self.limit.active)
