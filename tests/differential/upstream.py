"""The recording upstreams: HTTP/1.1, HTTP/2 and raw TCP servers on loopback which answer as told and keep what they saw.

All of them live on one event loop in one thread of the test process. A case scripts them with `Upstreams.begin`
and reads what arrived with `Upstreams.seen`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterable, Mapping

from tests.differential.case import OK, Close, Delay, ReadBody, ReadUntil, Reply, Reset, Tunnel, UpstreamStep
from tests.differential.http2_upstream import Http2Connection
from tests.differential.seen import Seen

PREFACE_HEAD = b"PRI * HTTP/2.0\r\n\r\n"
LEAVE_SECONDS = 1.0


class _Ended(Exception):
    """The proxy closed the connection, or the script did."""


class _Connection:
    """One connection accepted by an upstream."""

    def __init__(
        self, upstreams: Upstreams, name: str, raw: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.upstreams = upstreams
        self.name = name
        self.raw = raw
        self.reader = reader
        self.writer = writer
        self.number = next(upstreams.numbers)
        self.body_read = False

    async def serve(self) -> None:
        try:
            if self.raw:
                await self._serve_raw()
            while not self.raw:
                await self._serve_request()
        except (_Ended, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(Exception):
                self.writer.close()

    async def _serve_raw(self) -> None:
        seen = self.upstreams.record(Seen(self.name, connection=self.number))
        try:
            for step in self.upstreams.next_reply(self.name, OK).steps:
                await self._step(step, seen, "RAW")
            await self._receive_to_end(seen)
        except (_Ended, ConnectionError):
            pass
        except TypeError as error:
            seen.fault = str(error)
        finally:
            seen.done = True

    async def _serve_request(self) -> None:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.upstreams.record(Seen(self.name, body=error.partial, connection=self.number, done=True))
            raise
        if head == PREFACE_HEAD:
            await self.upstreams.serve_http2(self.name, self.number, self.reader, self.writer)
            raise _Ended
        start, *lines = head[:-4].decode("latin-1").split("\r\n")
        seen = Seen(self.name, start=start, connection=self.number)
        seen.headers = [_header(line) for line in lines]
        self.upstreams.record(seen)
        self.body_read = False
        try:
            for step in self.upstreams.next_reply(self.name, OK).steps:
                await self._step(step, seen, start.split(" ", 1)[0])
            if not self.body_read:
                await self._read_body(seen)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            if isinstance(error, asyncio.IncompleteReadError):
                seen.body += error.partial
            raise _Ended from error
        except TypeError as error:
            seen.fault = str(error)
            raise _Ended from error
        finally:
            seen.done = True

    async def _step(self, step: UpstreamStep, seen: Seen, method: str) -> None:
        if isinstance(step, bytes):
            self.writer.write(self._filled(step, method))
            await self.writer.drain()
        elif isinstance(step, Delay):
            await self._delay(step.seconds)
        elif isinstance(step, ReadBody):
            if not self.body_read:
                await self._read_body(seen)
        elif isinstance(step, ReadUntil):
            while step.data not in seen.body:
                await self._receive(seen)
        elif isinstance(step, Close):
            self.writer.close()
            raise _Ended
        elif isinstance(step, Reset):
            connection = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
            raise _Ended
        elif isinstance(step, Tunnel):
            while True:
                self.writer.write((await self._receive(seen)).upper())
        else:
            raise TypeError(f"no step of HTTP/1.1: {step!r}")

    async def _delay(self, seconds: float) -> None:
        """Wait, but not for a proxy that has gone away meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.reader.at_eof() or self.writer.transport.is_closing():
                raise _Ended
            await asyncio.sleep(min(left, 0.005))

    async def _receive(self, seen: Seen) -> bytes:
        data = await self.reader.read(65536)
        if not data:
            seen.complete = True
            raise _Ended
        seen.body += data
        return data

    async def _receive_to_end(self, seen: Seen) -> None:
        while True:
            await self._receive(seen)

    def _filled(self, data: bytes, method: str) -> bytes:
        data = data.replace(b"{upstream}", self.name.encode())
        head, end, content = data.partition(b"\r\n\r\n")
        if b"{length}" in head:
            head = head.replace(b"{length}", str(len(content)).encode())
            if method == "HEAD":
                content = b""
        return head + end + content

    async def _read_body(self, seen: Seen) -> None:
        self.body_read = True
        framing = {name.lower(): value for name, value in seen.headers}
        if "chunked" in framing.get("transfer-encoding", ""):
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                seen.body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                seen.trailers.append(_header(line[:-2].decode("latin-1")))
        else:
            seen.body += await self.reader.readexactly(int(framing.get("content-length", "0")))
        seen.complete = True


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip(" ")


class Upstreams:
    """Every upstream that the bootstraps name, each on its own loopback port.

    http: names of upstreams that speak HTTP/2 to who begins with its preface, and else HTTP/1.1; raw: names of those
        that speak whatever their script says.
    """

    def __init__(self, http: Iterable[str], raw: Iterable[str]) -> None:
        self.ports: dict[str, int] = {}
        self.numbers = iter(range(1, 1 << 30))
        self._kinds = dict.fromkeys(http, False) | dict.fromkeys(raw, True)
        self._replies: Mapping[str, tuple[Reply, ...]] = {}
        self._settings: Mapping[int, int] = {}
        self._http2: set[Http2Connection] = set()
        self._served: dict[str, int] = {}
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstreams", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> None:
        for name, raw in self._kinds.items():
            server = await asyncio.start_server(self._accepting(name, raw), "127.0.0.1", 0, limit=1 << 24)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    def _accepting(self, name: str, raw: bool):  # type: ignore[no-untyped-def]
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await _Connection(self, name, raw, reader, writer).serve()

        return accepted

    def begin(self, replies: Mapping[str, tuple[Reply, ...]], settings: Mapping[int, int]) -> None:
        """Forget what was seen, and answer from now on as these replies say, with these SETTINGS over HTTP/2.

        Connections of HTTP/2 are closed, so that each case begins with its own.
        """
        if self._http2:
            asyncio.run_coroutine_threadsafe(self._leave_http2(), self._loop).result(10)
        with self._lock:
            self._replies = replies
            self._settings = settings
            self._served = {}
            self._seen = []

    async def _leave_http2(self) -> None:
        for connection in self._http2:
            connection.end()
        until = time.monotonic() + LEAVE_SECONDS
        while self._http2 and time.monotonic() < until:
            await asyncio.sleep(0.001)

    async def serve_http2(
        self, name: str, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection that has begun with the preface of HTTP/2."""
        connection = Http2Connection(name, number, reader, writer, self._settings, self.record, self.next_reply)
        self._http2.add(connection)
        try:
            await connection.serve()
        finally:
            self._http2.discard(connection)

    def next_reply(self, name: str, usual: Reply) -> Reply:
        """The reply whose turn it is at this upstream, the last one repeating; the usual one where none is given."""
        with self._lock:
            given = self._replies.get(name) or self._replies.get("*") or (usual,)
            turn = self._served.get(name, 0)
            self._served[name] = turn + 1
        return given[min(turn, len(given) - 1)]

    def record(self, seen: Seen) -> Seen:
        """Keep something that arrived."""
        with self._lock:
            self._seen.append(seen)
        return seen

    def count(self) -> int:
        """How many requests and raw connections have begun to arrive in this case."""
        with self._lock:
            return len(self._seen)

    def wait_count(self, at_least: int, timeout: float) -> None:
        """Return when this many have begun to arrive, or when the time (in seconds) is up."""
        until = time.monotonic() + timeout
        while self.count() < at_least and time.monotonic() < until:
            time.sleep(0.002)

    def seen(self, at_least: int, timeout: float) -> list[Seen]:
        """What arrived, once there are this many and all of it is over (or the time, in seconds, is up)."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            with self._lock:
                seen = list(self._seen)
            if len(seen) >= at_least and all(one.done for one in seen):
                return seen
            time.sleep(0.0005)
        return seen

    def rests(self, timeout: float) -> bool:
        """Whether all that began to arrive is over, or is so within this time in seconds."""
        return all(one.done for one in self.seen(0, timeout))

    def close(self) -> None:
        """Stop listening, close every connection, end the thread."""

        async def shut() -> None:
            for server in self._servers:
                server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(shut(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
