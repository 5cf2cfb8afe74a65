"""What a worker says to its parent, to its last word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from sidecar.admin.page import Page
from sidecar.lifecycle.channel import Channel, Message
from sidecar.lifecycle.handover import pair
from sidecar.lifecycle.worker_link import WorkerLink

PARTS = 50


class Answering:
    """A server that starts and stops at once, and has long pages."""

    stopped = False
    quit: Any = None

    @property
    def admin(self) -> Answering:
        return self

    def answer(self, method: bytes, target: bytes) -> Page:
        return Page(200, "text/plain", iter([target] * PARTS))

    def snapshot(self) -> Iterator[dict[str, Any]]:
        for number in range(PARTS):
            assert not self.stopped, "the statistics are gone"
            yield {"groups": [number], "classes": {}}

    async def start(self, link: object) -> None: ...

    async def stop(self) -> None:
        self.stopped = True


def test_what_was_asked_before_the_end_is_answered_whole() -> None:
    async def run() -> list[Message]:
        loop = asyncio.get_running_loop()
        ours, theirs = pair()
        said: list[Message] = []
        parent = Channel(loop, ours)
        ended = asyncio.Event()
        parent.on_message = lambda message, descriptors: said.append(message)
        parent.on_end = ended.set
        parent.send({"ask": 1, "method": "GET", "target": "/a"})
        parent.send({"snapshot": 2})
        parent.send({"end": True})
        server = Answering()
        assert await WorkerLink(server, theirs, server.snapshot).run() == 0
        async with asyncio.timeout(10):
            await ended.wait()
        return said

    said = asyncio.run(run())
    assert sum(message.get("part") == 1 and message["data"] == "/a" for message in said) == PARTS
    assert [message["groups"][0] for message in said if message.get("part") == 2] == list(range(PARTS))
    assert [message["last"] for message in said if "last" in message] == [1, 2]
