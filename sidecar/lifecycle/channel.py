"""Messages between the processes of one sidecar: JSON objects, with file descriptors, over a Unix stream socket.

A frame is the length of its JSON text as four bytes, the text, and with the first byte as many descriptors as the text's
``fds`` says (SCM_RIGHTS). What does not keep to that ends the channel.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sidecar.core.descriptors import receive_descriptors

_log = logging.getLogger(__name__)

_LARGEST = 16 << 20
_AT_ONCE = 1 << 18
MOST_DESCRIPTORS = 250
"""In one message; the kernel takes 253."""

Message = dict[str, Any]


class Channel:
    """One end. ``on_message`` gets each message with its descriptors, which are the receiver's to close; ``on_end`` is called
    once when the other end is gone, not for ``close``. Both may be set before the first turn of the loop after ``__init__``.
    """

    __slots__ = ("_closing", "_descriptors", "_ended", "_loop", "_out", "_received", "_sock", "on_end", "on_message")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._out: deque[tuple[memoryview, list[int]]] = deque()
        self._ended = False
        self._closing = False
        self.on_message: Callable[[Message, list[int]], None] = _refuse
        self.on_end: Callable[[], None] = lambda: None
        loop.add_reader(sock.fileno(), self._read)

    @property
    def queued(self) -> int:
        """Messages that have not left yet."""
        return len(self._out)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of descriptors; nothing happens once the channel has ended. At most
        ``MOST_DESCRIPTORS`` of them.
        """
        if self._ended or self._closing:
            return
        text = json.dumps({**message, "fds": len(descriptors)}).encode()
        self._out.append((memoryview(len(text).to_bytes(4, "big") + text), [os.dup(each) for each in descriptors]))
        if len(self._out) == 1:
            self._write()

    def close(self) -> None:
        """End it once what was sent has left."""
        self._closing = True
        if not self._out:
            self._end()

    def finish(self, patience: float = 1.0) -> None:
        """End it, waiting for what was sent to leave, at most ``patience`` seconds for each message: for the process's end."""
        try:
            self._sock.settimeout(patience)
            while self._out and not self._ended:
                data, descriptors = self._out.popleft()
                if descriptors:
                    data = data[socket.send_fds(self._sock, [data], descriptors) :]
                    _close_all(descriptors)
                self._sock.sendall(data)
        except OSError as error:
            _log.debug("what was left to say to another process of this sidecar: %s", error)
        self._end()

    def _write(self) -> None:
        try:
            while self._out:
                data, descriptors = self._out[0]
                if descriptors:
                    sent = socket.send_fds(self._sock, [data], descriptors)
                    _close_all(descriptors)
                else:
                    sent = self._sock.send(data)
                self._out[0] = (data[sent:], [])
                if sent == len(data):
                    self._out.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._write)
        except OSError as error:
            self._failed(error)
        else:
            self._loop.remove_writer(self._sock.fileno())
            if self._closing:
                self._end()

    def _read(self) -> None:
        try:
            data, descriptors, truncated = receive_descriptors(self._sock, _AT_ONCE, MOST_DESCRIPTORS + 3)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._failed(error)
            return
        self._descriptors.extend(descriptors)
        if not data or truncated:
            self._failed(None)
            return
        self._received += data
        try:
            self._take()
        except (ValueError, KeyError, TypeError, IndexError) as error:
            _log.warning("what came from another process of this sidecar cannot be understood: %r", error)
            self._failed(None)

    def _take(self) -> None:
        received = self._received
        while len(received) >= 4:
            size = int.from_bytes(received[:4], "big")
            if size > _LARGEST:
                raise ValueError(f"a message of {size} bytes")
            if len(received) < 4 + size:
                return
            message = json.loads(received[4 : 4 + size])
            del received[: 4 + size]
            if not isinstance(message, dict):
                raise ValueError("a message is an object")
            descriptors = [self._descriptors.popleft() for _ in range(message.pop("fds"))]
            self.on_message(message, descriptors)
            if self._ended:
                return

    def _failed(self, error: OSError | None) -> None:
        if error is not None and not isinstance(error, ConnectionError):
            _log.warning("the channel to another process of this sidecar: %s", error)
        if not self._ended:
            self._end()
            self.on_end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            for _, descriptors in self._out:
                _close_all(descriptors)
            self._out.clear()
            _close_all(self._descriptors)
            self._sock.close()

    def __repr__(self) -> str:
        return f"<Channel {'ended' if self._ended else f'{len(self._out)} messages queued'}>"


def _close_all(descriptors: deque[int] | list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()


def _refuse(message: Message, descriptors: list[int]) -> None:
    _close_all(descriptors)
    raise ValueError(f"nothing was expected, and {message} came")
