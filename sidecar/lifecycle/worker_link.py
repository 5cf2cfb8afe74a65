"""A worker's side of several: it gets its sockets from its parent, and does what the parent says until that is gone."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

from sidecar.lifecycle.channel import Message
from sidecar.lifecycle.handover import HandoverError, Successor, Telling

log = logging.getLogger(__name__)

_MOST_QUEUED = 16


class WorkerLink:
    """Runs a worker's server. ``snapshot`` gives the server's statistics in parts."""

    def __init__(self, server: Any, sock: socket.socket, snapshot: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._snapshot = snapshot
        self._over = asyncio.Event()
        self._link = Successor(self._loop, sock)
        self._link.on_order = self._on_order
        self._link.on_end = self._on_parent_end
        self._channel = self._link.channel
        self._telling = Telling(self._loop, self._channel, server)
        self._tells = False
        self._draining: asyncio.Task[None] | None = None
        self._answers: dict[int, Iterator[dict[str, Any]]] = {}

    async def run(self) -> int:
        """Until the parent says that it is over, or is gone; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            self._loop.add_signal_handler(number, lambda: None)  # they are the parent's, which tells us
        self._server.quit = self._over.set
        try:
            await self._server.start(self._link)
        except (OSError, HandoverError) as error:
            log.critical("cannot start: %s", error)
            return 1
        await self._over.wait()
        for question, parts in self._answers.items():
            for part in parts:
                self._channel.send({"part": question, **part})
            self._channel.send({"last": question})
        self._answers.clear()
        if self._tells:
            self._telling.end()
        await self._server.stop()
        self._channel.finish()
        return 0

    def _on_parent_end(self) -> None:
        log.error("the parent of this worker is gone: draining")
        self._drain(None, final=True)

    def _on_order(self, message: Message) -> None:
        if "ask" in message:
            self._answer(message["ask"], message["method"].encode("latin-1"), message["target"].encode("latin-1"))
        elif "snapshot" in message:
            self._send_parts(message["snapshot"], self._snapshot())
        elif "announce" in message:
            self._server.announced()
        elif "drain" in message:
            self._drain(message["drain"], final=True)
        elif "hand_over" in message:
            self._server.hand_over(frozenset(message["hand_over"]))
            self._tells = True
            self._telling.begin()
            self._drain(message["limit"], final=False)
        elif "reopen" in message:
            self._server.reopen_logs()
        elif "own" in message:
            self._server.own_sockets(message["own"])
        elif "hurry" in message:
            self._server.hurry()
        elif "end" in message:
            self._over.set()

    def _drain(self, limit: float | None, *, final: bool) -> None:
        """``final``: no other process has our sockets, so what is queued there is ours to serve."""

        async def drain() -> None:
            await self._server.drained(self._server.drain_time if limit is None else limit)
            self._over.set()

        if final:
            self._server.own_sockets()
            self._server.drain_listeners()
        if self._draining is not None:
            self._draining.cancel()
        self._draining = self._loop.create_task(drain())

    def _answer(self, number: int, method: bytes, target: bytes) -> None:
        """A page of the administration interface, whose address is the parent's."""
        page = self._server.admin.answer(method, target)
        self._channel.send({"page": number, "status": page.status, "content_type": page.content_type})
        body = iter((page.body,)) if isinstance(page.body, bytes) else page.body
        self._send_parts(number, ({"data": chunk.decode("latin-1")} for chunk in body))

    def _send_parts(self, number: int, parts: Iterator[dict[str, Any]]) -> None:
        self._answers[number] = parts
        self._send_part(number)

    def _send_part(self, number: int) -> None:
        """One part in a turn of the loop, so that requests do not wait for them."""
        if number not in self._answers:
            return
        if self._channel.queued >= _MOST_QUEUED:
            self._loop.call_later(0.005, self._send_part, number)
            return
        part = next(self._answers[number], None)
        if part is None:
            del self._answers[number]
            self._channel.send({"last": number})
            return
        self._channel.send({"part": number, **part})
        self._loop.call_soon(self._send_part, number)

    def __repr__(self) -> str:
        return f"<WorkerLink {self._server!r}>"
