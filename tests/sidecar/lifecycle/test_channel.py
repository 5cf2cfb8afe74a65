"""The channel between processes: messages and descriptors arrive whole and in order, and nonsense ends it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import pytest

from sidecar.lifecycle.channel import MOST_DESCRIPTORS, Channel


class End(Channel):
    """Keeps what came."""

    __slots__ = ("came", "descriptors", "over")

    def __init__(self, sock: socket.socket) -> None:
        Channel.__init__(self, asyncio.get_running_loop(), sock)
        self.came: list[dict[str, Any]] = []
        self.descriptors: list[int] = []
        self.over = asyncio.Event()
        self.on_message = self._keep
        self.on_end = self.over.set

    def _keep(self, message: dict[str, Any], descriptors: list[int]) -> None:
        self.came.append(message)
        self.descriptors += descriptors


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_messages_and_descriptors_in_order() -> None:
    async def run() -> None:
        here, there = (End(sock) for sock in socket.socketpair())
        reading, writing = os.pipe()
        here.send({"a": 1})
        here.send({"b": "x" * 500_000}, [writing] * MOST_DESCRIPTORS)
        here.send({"c": None}, [writing])
        os.close(writing)
        await until(lambda: len(there.came) == 3)
        assert there.came == [{"a": 1}, {"b": "x" * 500_000}, {"c": None}]
        assert len(there.descriptors) == MOST_DESCRIPTORS + 1
        assert not any(os.get_inheritable(descriptor) for descriptor in there.descriptors)
        os.write(there.descriptors[-1], b"!")
        assert os.read(reading, 1) == b"!"
        for descriptor in (*there.descriptors, reading):
            os.close(descriptor)
        here.close()
        await asyncio.wait_for(there.over.wait(), 10)
        assert not here.over.is_set()

    asyncio.run(run())


def test_what_was_sent_leaves_before_the_end() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        read: list[bytes] = []

        def receive() -> None:
            while data := theirs.recv(65536):
                read.append(data)

        here = End(ours)
        for number in range(100):
            here.send({"number": number, "fill": "x" * 10_000})
        receiving = threading.Thread(target=receive)
        receiving.start()
        here.finish()
        receiving.join(10)
        theirs.close()
        whole = b"".join(read)
        assert [whole.count(b'"number": %d,' % number) for number in range(100)] == [1] * 100

    asyncio.run(run())


@pytest.mark.parametrize(
    "bad", [b"\xff\xff\xff\xff", b"\0\0\0\x02{]", b"\0\0\0\x02[]", b'\0\0\0\x0a{"fds": 1}', b"\0\0\0\x04null"]
)
def test_nonsense_ends_it(bad: bytes) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            here = End(ours)
            theirs.sendall(bad)
            await asyncio.wait_for(here.over.wait(), 10)
            assert here.came == []
            here.send({"more": 1})

    asyncio.run(run())
