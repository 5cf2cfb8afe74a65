"""Mixed traffic, good and hostile, against a sidecar whose upstreams die and come back; and what must be left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from sidecar import Server
from tests.hostile.surroundings import HELLO, Peer, bootstrap, connect, eventually, gauges

GOOD = b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Request-Id: %d\r\n\r\n"


class FlakyUpstream:
    """A server on a fixed port that answers well, badly or not at all, and that can die and come back."""

    def __init__(self, random: Random) -> None:
        self.random = random
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port: int = found.getsockname()[1]
        self.tasks: set[asyncio.Task[None]] = set()
        self.sock: socket.socket | None = None
        self.well_behaved = False

    def start(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.sock.setblocking(False)
        self._run(self._accept(self.sock))

    async def stop(self) -> None:
        """Die: connections are reset, new ones refused."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listening)
            self._run(self._serve(Peer(sock)))

    async def _serve(self, peer: Peer) -> None:
        try:
            while True:
                _, body = await peer.message()
                if self.well_behaved:
                    await asyncio.sleep(self.random.random() * 0.01)
                    await peer.send(HELLO)
                elif not await self._answer(peer, body):
                    return
        except (ConnectionError, EOFError, OSError):
            pass
        finally:
            if self.random.random() < 0.5 and not self.well_behaved:
                peer.reset()
            else:
                peer.close()

    async def _answer(self, peer: Peer, body: bytes) -> bool:
        chance = self.random.random()
        if chance < 0.75:
            await peer.send(HELLO)
        elif chance < 0.85:
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(self.random.randrange(1, 20)):
                await peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await peer.send(b"0\r\n\r\n")
        elif chance < 0.88:
            await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        elif chance < 0.90:
            await asyncio.sleep(self.random.random() * 0.1)
            await peer.send(HELLO)
        elif chance < 0.92:
            await peer.send(HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        else:
            await peer.send(
                self.random.choice((b"", b"garbage\r\n\r\n", HELLO[:20], HELLO[:-2], b"HTTP/1.1 100 Continue\r\n\r\n"))
            )
            return False
        return True


class Soak:
    """One run: a server, two flaky upstreams, clients of every kind."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.upstreams = [FlakyUpstream(self.random) for _ in range(2)]
        self.port = 0
        self.stopping = False

    def configuration(self) -> dict[str, Any]:
        made = bootstrap(
            {"up": self.upstreams[0].port},
            routes=[
                {
                    "match": {"prefix": "/"},
                    "route": {
                        "cluster": "up",
                        "timeout": "2s",
                        "retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 1},
                    },
                }
            ],
            manager={"request_timeout": "1s", "stream_idle_timeout": "1s", "delayed_close_timeout": "0.1s"},
            cluster={"circuit_breakers": {"thresholds": [{"max_retries": 50}]}, "connect_timeout": "0.5s"},
        )
        endpoints = made["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        address = {"address": "127.0.0.1", "port_value": self.upstreams[1].port}
        endpoints.append({"endpoint": {"address": {"socket_address": address}}})
        return made

    async def good(self) -> None:
        """A few requests over one connection, each answered whole."""
        client = await connect(self.port)
        try:
            for number in range(self.random.randrange(1, 20)):
                await client.send(GOOD % (number, self.random.getrandbits(32)))
                head, body = await client.message()
                assert b"evil" not in body
                self.outcomes["answered" if head.startswith(b"HTTP/1.1 200 ") else "failed"] += 1
                if b"\r\nconnection: close\r\n" in head:
                    return
        finally:
            client.close()

    async def posting(self) -> None:
        client = await connect(self.port)
        try:
            body = b"y" * self.random.randrange(1, 200_000)
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head, _ = await client.message()
            self.outcomes["answered" if head.startswith(b"HTTP/1.1 200 ") else "failed"] += 1
        finally:
            client.close()

    async def pipelining(self) -> None:
        client = await connect(self.port)
        try:
            count = self.random.randrange(1, 100)
            await client.send(b"".join(GOOD % (number, number) for number in range(count)))
            for _ in range(count):
                await client.message()
                self.outcomes["answered"] += 1
        finally:
            client.close()

    async def hostile(self) -> None:
        client = await connect(self.port)
        try:
            await client.send(
                self.random.choice(
                    (
                        b"GET / HT",
                        b"\x00" * 50,
                        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
                        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
                        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart",
                        GOOD % (1, 1),
                    )
                )
            )
            await asyncio.sleep(self.random.random() * 0.02)
            self.outcomes["abandoned"] += 1
        finally:
            if self.random.random() < 0.5:
                client.reset()
            else:
                client.close()

    async def client(self) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [self.good] * 5 + [self.hostile] * 3
        kinds += [self.posting, self.pipelining]
        while not self.stopping:
            try:
                await self.random.choice(kinds)()
            except EOFError:
                self.outcomes["cut"] += 1
            except ConnectionRefusedError:
                self.outcomes["refused"] += 1
            except ConnectionError:
                self.outcomes["cut"] += 1

    async def chaos(self) -> None:
        """One upstream after the other dies and comes back."""
        while True:
            for upstream in self.upstreams:
                await asyncio.sleep(0.3 + self.random.random() * 0.5)
                await upstream.stop()
                await asyncio.sleep(0.1 + self.random.random() * 0.3)
                upstream.start()

    async def run(self, seconds: float, clients: int = 20) -> dict[str, Any]:
        """Soak for so long; what was seen, and what was left. Raises AssertionError for anything that leaked."""
        loop = asyncio.get_running_loop()
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        for upstream in self.upstreams:
            upstream.start()
        async with Server(self.configuration(), seed=1) as server:
            self.port = server.address("in")[1]
            assert server.stack is not None
            worker = server.stack.worker
            at_rest = measure(worker)
            chaos = loop.create_task(self.chaos())
            working = [loop.create_task(self.client()) for _ in range(clients)]
            await asyncio.sleep(seconds / 2)
            warm = resident_memory()
            await asyncio.sleep(seconds / 2)
            self.stopping = True
            chaos.cancel()
            await asyncio.gather(chaos, return_exceptions=True)
            await asyncio.gather(*working)
            memory = resident_memory() - warm
            for upstream in self.upstreams:
                await upstream.stop()
            await eventually(lambda: not gauges(server), 10.0)
            await eventually(lambda: no_more(measure(worker), at_rest), 10.0)
            left = measure(worker)
        await asyncio.gather(*(upstream.stop() for upstream in self.upstreams))
        assert not problems, problems[:3]
        return {"outcomes": dict(self.outcomes), "left": left, "at_rest": at_rest, "growth": memory}

    async def drain_under_load(self, seconds: float, clients: int = 20) -> int:
        """Drain while all clients send; how many requests were answered. AssertionError for one that was lost."""
        for upstream in self.upstreams:
            upstream.well_behaved = True
            upstream.start()
        answered = 0
        lost: list[str] = []

        async def ask() -> None:
            nonlocal answered
            while True:
                try:
                    client = await connect(self.port)
                except ConnectionRefusedError:
                    return
                head = b""
                try:
                    while b"\r\nconnection: close\r\n" not in head:
                        await client.send(GOOD % (answered, answered))
                        head, body = await client.message()
                        assert head.startswith(b"HTTP/1.1 200 ") and body == b"hello", head
                        answered += 1
                        await asyncio.sleep(self.random.random() * 0.005)
                except (EOFError, ConnectionError) as error:
                    if head:  # a new connection may be reset with the listener's queue: it was never accepted
                        lost.append(repr(error))
                    return
                finally:
                    client.close()

        async with Server(self.configuration(), seed=1) as server:
            self.port = server.address("in")[1]
            working = [asyncio.create_task(ask()) for _ in range(clients)]
            await asyncio.sleep(seconds)
            await server.drain(10.0)
            await asyncio.wait_for(asyncio.gather(*working), 10.0)
            assert server.stack is not None and server.stack.connections() == 0
        for upstream in self.upstreams:
            await upstream.stop()
        assert not lost, lost
        return answered


def no_more(left: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether nothing of ``left`` is more than it was ``before``."""
    return all(now <= then for now, then in zip(left, before, strict=True))


def measure(worker: Any) -> tuple[int, int, int, int]:
    """(open descriptors, tasks, timers, streams and connections that are alive) of this process."""
    gc.collect()
    alive = sum(type(one).__name__ in ("Stream", "Http1Connection", "UpstreamRequest") for one in gc.get_objects())
    return len(os.listdir("/proc/self/fd")), len(worker.tasks), len(worker.wheel), alive


def resident_memory() -> int:
    """Resident memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
