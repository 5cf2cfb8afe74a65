"""A connection that attacks: it sends what it is given as fast as it is taken, and keeps count of what comes back."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from hpack import Decoder

from tests.attacks.frames import GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, settings

_CHUNK = 65536


class Attacker:
    """A client, or with ``sock`` one end of an accepted connection. A context manager.

    ``frames`` counts the types of frames that came, ``goaways`` and ``resets`` have their codes, and
    ``heads`` each stream on which a head came, with the status where it had one.
    """

    def __init__(self, port: int = 0, *, sock: socket.socket | None = None, receive_buffer: int = 0) -> None:
        if sock is None:
            sock = socket.socket()
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(("127.0.0.1", port))
        self.sock = sock
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.frames: Counter[int] = Counter()
        self.goaways: list[int] = []
        self.resets: Counter[int] = Counter()
        self.heads: list[tuple[int, str]] = []
        self.sent = 0
        self.closed = False
        self.on_head: Callable[[int], None] | None = None
        self._left = b""
        self._decoder = Decoder()

    def begin(self, values: dict[int, int] | None = None) -> None:
        """The client's preface."""
        self.send([PREFACE + settings(values)])

    def send(self, chunks: Iterable[bytes], *, read: bool = True, seconds: float = 20.0) -> None:
        """Send them all, or until the peer has ended the connection or takes nothing more until time is up.

        Without ``read`` nothing is received meanwhile.
        """
        deadline = time.monotonic() + seconds
        for part in _grouped(chunks):
            rest = memoryview(part)
            while rest and not self.closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                readable, writable, _ = select.select([self.sock] if read else [], [self.sock], [], left)
                if readable:
                    self.receive()
                if writable and not self.closed:
                    try:
                        count = self.sock.send(rest)
                    except BlockingIOError:
                        continue
                    except OSError:
                        self._drain()
                        return
                    rest = rest[count:]
                    self.sent += count
            if self.closed:
                return

    def _drain(self) -> None:
        """Sending has failed: what had come before may still be there."""
        while not self.closed:
            self.receive()

    def receive(self) -> None:
        """Take one read, if there is something."""
        try:
            found = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            found = b""
        if not found:
            self.closed = True
            return
        self._left += found
        at = 0
        while len(self._left) - at >= 9:
            length = int.from_bytes(self._left[at : at + 3], "big")
            end = at + 9 + length
            if end > len(self._left):
                break
            head = self._left[at : at + 9]
            self._frame(head[3], head[4], int.from_bytes(head[5:], "big"), self._left[at + 9 : end])
            at = end
        self._left = self._left[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self.frames[kind] += 1
        if kind == GOAWAY:
            self.goaways.append(int.from_bytes(payload[4:8], "big"))
        elif kind == RST_STREAM:
            self.resets[int.from_bytes(payload, "big")] += 1
        elif kind == HEADERS:
            found = {str(name): str(value) for name, value in self._decoder.decode(payload)}
            self.heads.append((stream, found.get(":status", "")))
            if self.on_head is not None:
                self.on_head(stream)

    def until(self, condition: Callable[[], object], seconds: float = 5.0) -> bool:
        """Receive until it holds; whether it does before the connection or the time ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if self.closed or left <= 0:
                return False
            if select.select([self.sock], [], [], left)[0]:
                self.receive()
        return True

    def until_closed(self, seconds: float = 5.0) -> bool:
        """Receive until the peer ends the connection; whether it does in time."""
        self.until(lambda: self.closed, seconds)
        return self.closed

    def started(self) -> None:
        """Wait for the peer's settings and acknowledge them."""
        assert self.until(lambda: self.frames[SETTINGS])
        self.send([settings(ack=True)])

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Attacker sent {self.sent}, frames {dict(self.frames)}, goaways {self.goaways}, "
            f"resets {dict(self.resets)}, {'closed' if self.closed else 'open'}>"
        )


def _grouped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets in larger pieces."""
    held: list[bytes] = []
    size = 0
    for one in chunks:
        held.append(one)
        size += len(one)
        if size >= _CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
