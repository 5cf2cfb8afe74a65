"""Relaying bytes between two sockets without looking at them.

Bytes go from socket to socket through a pipe inside the kernel (splice), never into Python: that takes about a fifth
less CPU time than reading and writing them with a buffer of the same size. A flow reads only while it holds nothing, so
that a receiver that does not take its bytes stops the sender, and no more than one piece is ever held. Pipes are
borrowed for the moment in which a piece is on its way, and kept only by flows that are stuck: an idle session has none.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable
from typing import Protocol

_SPLICE_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)
_KEPT = 32  # pipes
_SMALLEST = 4096

Pipe = tuple[int, int, int]
"""The descriptors for reading and writing, and what it holds in bytes."""


class Pipes:
    """Empty pipes to borrow, of ``size`` bytes each if the system allows that much."""

    __slots__ = ("_free", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[Pipe] = []

    def take(self) -> Pipe:
        """An empty pipe. Raises OSError when there are no descriptors left."""
        if self._free:
            return self._free.pop()
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, self.size)
        except OSError:  # over the user's share of pipe memory
            size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        return reader, writer, size

    def give_back(self, pipe: Pipe, empty: bool) -> None:
        """Return a pipe; one that still holds bytes is closed."""
        if empty and len(self._free) < _KEPT:
            self._free.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])

    def close(self) -> None:
        """Close those that nobody has borrowed."""
        while self._free:
            reader, writer, _ = self._free.pop()
            os.close(reader)
            os.close(writer)

    def __repr__(self) -> str:
        return f"<Pipes {len(self._free)} free>"


class Owner(Protocol):
    """The session that two flows belong to."""

    def on_moved(self, flow: Flow, size: int) -> None:
        """``size`` bytes were read from the source."""
        ...

    def on_stuck(self, flow: Flow) -> None:
        """The target takes no more; the source is not read."""
        ...

    def on_unstuck(self, flow: Flow) -> None:
        """All that was held has gone on, and the source is read again."""
        ...

    def on_ended(self, flow: Flow, error: OSError | None, reading: bool) -> None:
        """The source has ended, and the target was told; or reading (else writing) failed."""
        ...


class Flow:
    """One direction. ``moved`` counts the bytes that were read, ``held`` those of them not written yet. ``failure`` is the
    number of the error that ended the source while there were still bytes to read.
    """

    __slots__ = ("ended", "failure", "held", "loop", "moved", "owner", "size", "source", "source_fd", "stuck", "target",
                 "target_fd")  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Owner, source: socket.socket, target: socket.socket, size: int
    ) -> None:
        self.loop = loop
        self.owner = owner
        self.source = source
        self.target = target
        self.source_fd = source.fileno()
        self.target_fd = target.fileno()
        self.size = max(size, _SMALLEST)
        self.moved = 0
        self.held = 0
        self.stuck = False
        self.ended = False
        self.failure = 0

    def start(self) -> None:
        """Begin to relay."""
        self.loop.add_reader(self.source_fd, self._on_readable)

    def stop(self) -> None:
        """Relay no more; what is held is lost."""
        if not self.ended:
            self.ended = True
            self._leave_loop()
            self._discard()

    def _on_readable(self) -> None:
        if self.ended or self.stuck:  # meanwhile, where it was to read on
            return
        try:
            size = self._fill()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error, True)
            return
        if not size:
            self._end(OSError(self.failure, os.strerror(self.failure)) if self.failure else None, True)
            return
        self.moved += size
        self.held = size
        self.owner.on_moved(self, size)
        if not self._empty() or self.ended:
            return
        if self.held:
            self.stuck = True
            self.loop.remove_reader(self.source_fd)
            self.loop.add_writer(self.target_fd, self._on_writable)
            self.owner.on_stuck(self)
        elif self.failure or self._has_failed():
            self.loop.call_soon(self._on_readable)

    def _has_failed(self) -> bool:
        """Whether a reset has come with the bytes: libuv tells of an error once, and then nothing more of this socket."""
        self.failure = self.source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self.failure != 0

    def _on_writable(self) -> None:
        if self._empty() and not self.held and not self.ended:
            self.stuck = False
            self.loop.remove_writer(self.target_fd)
            self.loop.add_reader(self.source_fd, self._on_readable)
            self.owner.on_unstuck(self)

    def _empty(self) -> bool:
        """Write what is held, as far as the target takes it; False if the flow has ended by that."""
        try:
            self._pour()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._end(error, False)
            return False
        return True

    def _end(self, error: OSError | None, reading: bool) -> None:
        self.ended = True
        self._leave_loop()
        self._discard()
        if error is None:
            try:
                self.target.shutdown(socket.SHUT_WR)
            except OSError as failure:
                self.owner.on_ended(self, failure, False)
                return
        self.owner.on_ended(self, error, reading)

    def _leave_loop(self) -> None:
        if self.stuck:
            self.loop.remove_writer(self.target_fd)
        else:
            self.loop.remove_reader(self.source_fd)

    def _fill(self) -> int:
        """Read one piece; its size, 0 at the end. Raises OSError."""
        raise NotImplementedError

    def _pour(self) -> None:
        """Write what is held, counting ``held`` down. Raises OSError, BlockingIOError if the target is full."""
        raise NotImplementedError

    def _discard(self) -> None:
        """Let go of what is held."""
        raise NotImplementedError

    def __repr__(self) -> str:
        state = "ended" if self.ended else f"stuck with {self.held} bytes" if self.stuck else "flowing"
        return f"<{type(self).__name__} {self.source_fd} -> {self.target_fd} {state}, {self.moved} bytes>"


class SpliceFlow(Flow):
    """Through a pipe in the kernel."""

    __slots__ = ("pipe", "pipes")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        source: socket.socket,
        target: socket.socket,
        size: int,
        pipes: Pipes,
    ) -> None:
        super().__init__(loop, owner, source, target, size)
        self.pipes = pipes
        self.pipe: Pipe | None = None

    def _fill(self) -> int:
        pipes = self.pipes
        pipe = pipes.take()
        try:
            size = os.splice(self.source_fd, pipe[1], min(self.size, pipe[2]), flags=_SPLICE_FLAGS)
        except BaseException:
            pipes.give_back(pipe, True)
            raise
        if size:
            self.pipe = pipe
        else:
            pipes.give_back(pipe, True)
        return size

    def _pour(self) -> None:
        pipe = self.pipe
        assert pipe is not None
        self.held -= os.splice(pipe[0], self.target_fd, self.held, flags=_SPLICE_FLAGS)
        if not self.held:
            self.pipe = None
            self.pipes.give_back(pipe, True)

    def _discard(self) -> None:
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            self.pipes.give_back(pipe, not self.held)
            self.held = 0


class CopyFlow(Flow):
    """Through one buffer that all flows of a worker share, where the system has no splice. Only what the target does
    not take at once is copied to a place of its own.
    """

    __slots__ = ("piece", "shared")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        source: socket.socket,
        target: socket.socket,
        size: int,
        shared: memoryview,
    ) -> None:
        super().__init__(loop, owner, source, target, min(size, len(shared)))
        self.shared = shared
        self.piece = memoryview(b"")

    def _fill(self) -> int:
        size = self.source.recv_into(self.shared, self.size)
        self.piece = self.shared[:size]
        return size

    def _pour(self) -> None:
        try:
            self.piece = self.piece[self.target.send(self.piece) :]
        finally:
            self.held = len(self.piece)
            if self.held and self.piece.obj is self.shared.obj:
                self.piece = memoryview(bytes(self.piece))

    def _discard(self) -> None:
        self.piece = memoryview(b"")
        self.held = 0


MakeFlow = Callable[[asyncio.AbstractEventLoop, Owner, socket.socket, socket.socket, int], Flow]


def splicing(pipes: Pipes) -> MakeFlow:
    """Flows that borrow from ``pipes``."""
    return lambda loop, owner, source, target, size: SpliceFlow(loop, owner, source, target, size, pipes)


def copying(size: int) -> MakeFlow:
    """Flows that share a buffer of ``size`` bytes."""
    shared = memoryview(bytearray(size))
    return lambda loop, owner, source, target, limit: CopyFlow(loop, owner, source, target, limit, shared)


def best_flows(size: int = 1 << 20) -> MakeFlow:
    """The quickest kind that this system has; ``size`` is that of one piece at most, in bytes."""
    return splicing(Pipes(size)) if hasattr(os, "splice") else copying(size)
