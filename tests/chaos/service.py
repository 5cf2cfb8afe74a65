"""``python -m tests.chaos.service``: a service that writes down each request before it answers, and answers as it is told.

The ledger has a line for each request whose every byte came: the method and its number. The mode is a word in a file, read
anew for every request, so that a disturbance needs no signal: ``well``, ``slow``, ``half``, ``wrong``, ``reset``, ``refuse``.
SIGTERM drains as a service should: what is queued is accepted before the socket closes, an answer that says close goes to
every connection that is open, then comes the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import struct
from pathlib import Path
from random import Random
from typing import Any

import uvloop

_IDLE_AFTER = 2.5
"""Seconds that a connection without a request is kept in a drain, for one may be on its way: longer than a sidecar is ever
stalled here, or it writes to what was closed meanwhile, and no proxy may send a POST a second time.
"""


class Service:
    """Listens on a fixed port, with its ledger and the file that says its mode."""

    def __init__(self, address: str, port: int, ledger: Path, mode: Path, seed: int) -> None:
        self.address = (address, port)
        self.ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.mode = mode
        self.random = Random(seed)
        self.draining = asyncio.Event()
        self.connections: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.draining.set)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(self.address)
        sock.listen(1024)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(sock.fileno(), self._accept, sock)
        print("serving", flush=True)
        await self.draining.wait()
        loop.remove_reader(sock.fileno())
        while self._accept(sock):
            pass
        sock.close()
        while self.connections:
            await asyncio.wait(self.connections, timeout=10)

    def _accept(self, sock: socket.socket) -> bool:
        try:
            accepted, _ = sock.accept()
        except BlockingIOError:
            return False
        task = asyncio.get_running_loop().create_task(self._serve(accepted))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)
        return True

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        """The next head; TimeoutError when none comes in a drain."""
        reading = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        drained = asyncio.ensure_future(self.draining.wait())
        await asyncio.wait((reading, drained), return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        return await asyncio.wait_for(reading, None if reading.done() else _IDLE_AFTER)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether another may come."""
        head = await self._head(reader)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        await reader.readexactly(int(fields.get(b"content-length", 0)))
        method, number = head.split(b" ", 1)[0], fields[b"x-number"]
        os.write(self.ledger, method + b" " + number + b"\n")
        mode = self.mode.read_text()
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(number)
        if mode == "slow":
            await asyncio.sleep(self.random.random())
        elif mode == "half":
            writer.write(answer + b"\r\n" + number[:1])
            await writer.drain()
            return False
        elif mode == "wrong":
            writer.write(
                self.random.choice((b"garbage\r\n\r\n", b"HTTP/1.1 2xx\r\n\r\n", answer + b"content-length: 3\r\n\r\n"))
            )
            await writer.drain()
            return False
        elif mode == "reset":
            sock: Any = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        elif mode == "refuse":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
            return True
        closes = self.draining.is_set()
        writer.write(answer + (b"connection: close\r\n\r\n" if closes else b"\r\n") + number)
        await writer.drain()
        return not closes


def main() -> None:
    parser = argparse.ArgumentParser("tests.chaos.service")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--mode", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    async def serve() -> None:
        await Service(options.address, options.port, options.ledger, options.mode, options.seed).run()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
