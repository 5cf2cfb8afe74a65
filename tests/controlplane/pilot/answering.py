"""Servers that say who they are: one for each cluster of a generated configuration."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any


class Answering:
    """HTTP/1.1 servers on loopback, one for each name, each answering with JSON: its name, and the request as it came.

    What does not begin with a letter is no HTTP (a ClientHello, say): it is answered with the name alone.

    A request with `x-answers: 503,200` gets that status on its first attempt, and this one on the second (attempts have
    one `x-request-id`). Everything that arrived is in ``requests``. A context manager; ``ports`` are by name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.ports: dict[str, int] = {}
        self.requests: list[dict[str, Any]] = []
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._servers: list[asyncio.AbstractServer] = []
        asyncio.run_coroutine_threadsafe(self._start(list(names)), self._loop).result(10)

    async def _start(self, names: list[str]) -> None:
        for name in names:
            server = await asyncio.start_server(self._handler(name), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    def _handler(self, name: str):  # type: ignore[no-untyped-def]
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._answer(name, reader, writer)
            writer.close()

        return serve

    async def _answer(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if not first.isalpha():
            writer.write(name.encode())
            await writer.drain()
            raise ConnectionError
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head[:-4].split("\r\n")
        method, path, _ = start.split(" ", 2)
        headers: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition(":")
            known = headers.get(key.lower())
            headers[key.lower()] = value.strip() if known is None else f"{known},{value.strip()}"
        if size := int(headers.get("content-length", "0")):
            await reader.readexactly(size)
        request: dict[str, Any] = {"from": name, "method": method, "path": path, "headers": headers}
        self.requests.append(request)
        status = 200
        if answers := headers.get("x-answers"):
            asked = name, headers.get("x-request-id", "")
            self._attempts[asked] += 1
            attempt = self._attempts[asked]
            statuses = answers.split(",")
            status = int(statuses[min(attempt, len(statuses)) - 1])
        body = json.dumps(request).encode()
        writer.write(
            b"HTTP/1.1 %d Answer\r\ncontent-type: application/json\r\nx-from-app: yes\r\ncontent-length: %d\r\n\r\n%s"
            % (status, len(body), b"" if method == "HEAD" else body)
        )
        await writer.drain()

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            for server in self._servers:
                server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
