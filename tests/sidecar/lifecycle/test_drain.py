"""Drains of one process: what is announced, who is asked to close and when, and what is seen of it."""

from __future__ import annotations

import asyncio
from math import inf

from sidecar import Server
from sidecar.core.worker import Worker
from sidecar.lifecycle.asking import NEXT_REQUEST, Asking
from tests.running import get, is_free
from tests.sidecar.bootstraps import bootstrap, cluster, direct, http_listener, to_cluster


def stats(port: int, pattern: str) -> dict[str, int]:
    lines = get(port, f"/stats?filter={pattern}")[2].splitlines()
    return {name: int(value) for name, _, value in (line.rpartition(": ") for line in lines)}


def test_the_end_is_announced_before_anything_else_changes() -> None:
    async def serve() -> None:
        config = bootstrap(http_listener("one", 0, [direct("hello")]), admin=0)
        async with Server(config, announce_time=0.6) as server:
            port, admin = server.address("one")[1], server.admin_address[1]
            assert (await asyncio.to_thread(get, admin, "/ready"))[::2] == (200, "LIVE\n")
            assert await asyncio.to_thread(stats, admin, "^server.drain") == {}
            drain = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            assert (await asyncio.to_thread(get, admin, "/ready"))[::2] == (503, "DRAINING\n")
            assert await asyncio.to_thread(stats, admin, "^server.drain") == {
                "server.drain.connections": 0, "server.drain.phase": 3
            }  # fmt: skip
            _, headers, body = await asyncio.to_thread(get, port)  # on a new connection
            assert (body, headers.get("connection")) == ("hello", None)
            await asyncio.wait_for(drain, 10)
            assert is_free(port)
            assert (await asyncio.to_thread(stats, admin, "^server.drain.phase"))["server.drain.phase"] == 4
            assert (await asyncio.to_thread(stats, admin, "^server.(live|state)")) == {
                "server.live": 0,
                "server.state": 1,
            }

    asyncio.run(serve())


class Connection:
    """Like one over HTTP/1.1; ``busy`` says that the head of its response has left already."""

    def __init__(self, version: int = 11) -> None:
        self.version = version
        self.busy = False
        self.asked: list[float] = []
        self.drained = 0

    def retire(self, due: float) -> bool:
        if self.version == 0 or self.busy:
            return False
        self.asked.append(due)
        return True

    def drain(self) -> None:
        self.drained += 1


class Manager:
    def __init__(self, *connections: Connection) -> None:
        self.draining = False
        self.connections = set(connections)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(asking: Asking, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    asking.due = inf
    asking.on_timer(clock.now)


def test_all_are_asked_at_once_and_those_that_could_not_be_told_again() -> None:
    async def run() -> None:
        clock = Clock()
        told, busy, other, silent = Connection(), Connection(), Connection(20), Connection(0)
        busy.busy = True
        manager = Manager(told, busy, other, silent)
        asking = Asking(Worker(asyncio.get_running_loop(), clock, seed=1), [manager], 0.0)
        asking.begin()
        assert manager.draining
        assert (told.asked[0], other.drained, busy.asked, silent.drained) == (100.0 + NEXT_REQUEST, 1, [], 0)
        busy.busy = False
        step(asking, clock, 0.25)
        assert busy.asked == [100.0 + NEXT_REQUEST]
        step(asking, clock, NEXT_REQUEST)
        assert (silent.drained, other.drained) == (1, 1)
        asking.stop()
        assert asking.due == inf

    asyncio.run(run())


def test_gradually_each_at_its_time_and_all_in_the_end() -> None:
    async def run() -> None:
        clock = Clock()
        connections = [Connection() for _ in range(400)]
        manager = Manager(*connections)
        done: list[float] = []
        worker = Worker(asyncio.get_running_loop(), clock, seed=1)
        asking = Asking(worker, [manager], 100.0, lambda: done.append(clock.now))
        asking.begin()

        def asked() -> int:
            return sum(bool(connection.asked) for connection in connections)

        for quarter in (100, 200, 300):
            for _ in range(100):
                step(asking, clock, 0.25)
            assert quarter - 40 <= asked() <= quarter + 40
            assert not manager.draining
        late = Connection()
        manager.connections.add(late)
        for _ in range(101):
            step(asking, clock, 0.25)
        assert asked() == 400
        assert late.asked
        assert manager.draining
        assert len(done) == 1
        asking.stop()

    asyncio.run(run())


def test_nothing_is_cut_whose_end_was_not_announced() -> None:
    """A response whose head has left without a word of the end: its connection has one more request."""

    async def serve() -> None:
        async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
                await half.wait()
                writer.write(b"later")

        half = asyncio.Event()
        behind = await asyncio.start_server(upstream, "127.0.0.1", 0)
        clusters = (cluster("up", behind.sockets[0].getsockname()[1]),)
        async with behind, Server(bootstrap(http_listener("one", 0, [to_cluster("up")]), clusters=clusters)) as server:
            reader, writer = await asyncio.open_connection(*server.address("one"))
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"connection: close" not in await reader.readuntil(b"first")
            drain = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            half.set()
            assert await reader.readexactly(5) == b"later"
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            last = await reader.read()
            assert b"connection: close\r\n" in last
            assert last.endswith(b"firstlater")
            writer.close()
            await asyncio.wait_for(drain, 10)

    asyncio.run(serve())


def test_connections_that_a_listener_filter_looks_at_are_served() -> None:
    """Who has connected and said nothing yet is not turned away by a drain."""

    async def serve() -> None:
        listener = http_listener("one", 0, [direct("hello")])
        listener["listener_filters"] = [
            {
                "name": "inspector",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
                },
            }
        ]
        async with Server(bootstrap(listener)) as server:
            reader, writer = await asyncio.open_connection(*server.address("one"))
            assert server.stack is not None
            while not server.stack.unfinished():
                await asyncio.sleep(0.001)
            drain = asyncio.create_task(server.drain())
            while not is_free(writer.get_extra_info("peername")[1]):
                await asyncio.sleep(0.001)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.read()).endswith(b"hello")
            writer.close()
            await asyncio.wait_for(drain, 10)

    asyncio.run(serve())
