"""Mixed traffic, good and hostile, against a sidecar whose upstreams die and come back; and what must be left of it.

The sidecar is a process of its own: what it holds is read from /proc, and what it counts from its /stats.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile.surroundings import HELLO, Peer, bootstrap, connect
from tests.running import Process, free_ports

GOOD = b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Request-Id: %d\r\n\r\n"

_BUSY = {"http.in.downstream_rq_active", "http.in.downstream_cx_active", "cluster.up.upstream_rq_active"}


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
        self.port, self.admin_port = free_ports(2)
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
        listening = made["static_resources"]["listeners"][0]["address"]["socket_address"]
        listening["port_value"] = self.port
        made["admin"] = {"address": {"socket_address": {**listening, "port_value": self.admin_port}}}
        return made

    @asynccontextmanager
    async def sidecar(self, directory: Path) -> AsyncIterator[Process]:
        """The sidecar, serving. It must not have reported any failure of its own when it is left."""
        file = directory / "bootstrap.json"
        file.write_text(json.dumps(self.configuration()))
        with Process("sidecar", "-c", str(file), "-l", "info") as process:
            await asyncio.to_thread(process.wait_for, "listening on")
            yield process
            assert "Traceback" not in process.output, process.output[-2000:]

    async def in_flight(self) -> dict[str, int]:
        """Every gauge of what is under way that is not zero, by what the sidecar says; its admin interface apart."""
        peer = await connect(self.admin_port)
        await peer.send(b"GET /stats?type=Gauges HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
        _, page = await peer.message()
        peer.close()
        gauges = dict(line.split(": ", 1) for line in page.decode().splitlines())
        return {
            name: int(value)
            for name, value in gauges.items()
            if name.startswith(("http.in.", "cluster.up.", "listener.127."))
            and name.endswith(("_active", "_open"))
            and value != "0"
        }

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
        kinds: tuple[Callable[[], Awaitable[None]], ...] = (
            *[self.good] * 5, *[self.hostile] * 3, self.posting, self.pipelining
        )  # fmt: skip
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

    async def run(self, seconds: float, directory: Path, clients: int = 20) -> dict[str, Any]:
        """Soak for so long; what was seen, and what was left. Raises AssertionError for anything that leaked."""
        loop = asyncio.get_running_loop()
        for upstream in self.upstreams:
            upstream.start()
        async with self.sidecar(directory) as process:
            identifier = process.child.pid
            await self.in_flight()  # what the first look at the statistics loads is no growth
            at_rest = open_sockets(identifier)
            chaos = loop.create_task(self.chaos())
            working = [loop.create_task(self.client()) for _ in range(clients)]
            async with asyncio.timeout(10.0):
                while _BUSY - (await self.in_flight()).keys():  # or nothing would be shown by finding none later
                    await asyncio.sleep(0.01)
            await asyncio.sleep(seconds / 2)
            warm = resident_memory(identifier)
            await asyncio.sleep(seconds / 2)
            self.stopping = True
            chaos.cancel()
            await asyncio.gather(chaos, return_exceptions=True)
            await asyncio.gather(*working)
            growth = resident_memory(identifier) - warm
            for upstream in self.upstreams:
                await upstream.stop()
            async with asyncio.timeout(10.0):
                while left := await self.in_flight():
                    await asyncio.sleep(0.02)
                while (sockets := open_sockets(identifier)) > at_rest:
                    await asyncio.sleep(0.02)
            process.send(signal.SIGTERM)
            assert await asyncio.to_thread(process.end) == 0
        return {
            "outcomes": dict(self.outcomes), "in_flight": left, "sockets": sockets, "at_rest": at_rest, "growth": growth
        }  # fmt: skip

    async def drain_under_load(self, seconds: float, directory: Path, clients: int = 20) -> int:
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

        async with self.sidecar(directory) as process:
            working = [asyncio.create_task(ask()) for _ in range(clients)]
            await asyncio.sleep(seconds)
            process.send(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*working), 10.0)
            assert await asyncio.to_thread(process.end) == 0
        for upstream in self.upstreams:
            await upstream.stop()
        assert not lost, lost
        return answered


def open_sockets(identifier: int) -> int:
    """How many sockets a process has open."""
    count = 0
    for descriptor in Path(f"/proc/{identifier}/fd").iterdir():
        try:
            count += os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:  # closed meanwhile
            continue
    return count


def resident_memory(identifier: int) -> int:
    """Resident memory of a process, in bytes."""
    return int(Path(f"/proc/{identifier}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
