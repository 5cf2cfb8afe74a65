"""How answers are written: a chunk in a turn of the loop, no faster than the client reads, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.admin.terminal import Answer
from tests.sidecar.admin.bootstraps import VARIED, large
from tests.sidecar.admin.interface import Interface, serving

_CHUNK = b"x" * 65536


class Pages:
    """An endless page that counts its chunks, in the place of /stats."""

    def __init__(self, chunks: int = 1 << 30, failing_at: int = -1) -> None:
        self.made = 0
        self.chunks = chunks
        self.failing_at = failing_at
        self.ended = False

    def __call__(self, parameters: object, prometheus: bool) -> Any:
        return SimpleNamespace(status=200, content_type="text/plain", body=self._body())

    def _body(self) -> Iterator[bytes]:
        try:
            while self.made < self.chunks:
                if self.made == self.failing_at:
                    raise RuntimeError("the page is broken")
                self.made += 1
                yield _CHUNK
        finally:
            self.ended = True


@asynccontextmanager
async def _connected(
    interface: Interface, request: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", interface.port, limit=1 << 16)
    writer.write(request)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _until(condition: Any) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "did not come about"
        await asyncio.sleep(0.001)


async def _standstill(pages: Pages) -> int:
    """Chunks made when no more are: the same number after many turns of the loop."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        before = pages.made
        for _ in range(200):
            await asyncio.sleep(0.0005)
        if pages.made == before:
            return before
    raise AssertionError("the answer did not pause")


_GET = b"GET /stats HTTP/1.1\r\nhost: a\r\n\r\n"


def test_a_client_that_does_not_read_stops_the_page_and_reading_resumes_it() -> None:
    pages = Pages()
    with serving(VARIED, buffer_limit=1 << 18, stats=pages) as interface:

        async def read_slowly() -> None:
            async with _connected(interface, _GET) as (reader, _):
                paused = await _standstill(pages)
                assert 0 < paused < 1000
                await reader.readexactly(paused * len(_CHUNK) // 2)
                for _ in range(paused):
                    await reader.readexactly(len(_CHUNK))
                await _until(lambda: pages.made > paused)

        interface.run(read_slowly)


def test_a_client_that_leaves_ends_the_page() -> None:
    pages = Pages()
    with serving(VARIED, stats=pages) as interface:

        async def leave() -> None:
            async with _connected(interface, _GET) as (reader, _):
                await reader.readexactly(1000)
            await _until(lambda: pages.ended)
            assert not interface.manager.connections
            assert interface.manager.stats.downstream_rq_active == 0

        interface.run(leave)


def test_a_page_that_breaks_off_ends_the_connection_without_a_last_chunk() -> None:
    pages = Pages(failing_at=2)
    with serving(VARIED, stats=pages) as interface:

        async def read_all() -> bytes:
            received = b""
            async with _connected(interface, _GET) as (reader, _):
                try:
                    while data := await reader.read(1 << 16):
                        received += data
                except ConnectionResetError:
                    pass
            return received

        assert not interface.run(read_all).endswith(b"0\r\n\r\n")
        assert pages.made == 2
        assert interface.ask("/ready").status == 200


def test_other_requests_are_answered_while_a_long_page_is_written() -> None:
    pages = Pages()
    with serving(VARIED, stats=pages) as interface:

        async def beside() -> None:
            async def drink(reader: asyncio.StreamReader) -> None:
                while await reader.read(1 << 16):
                    pass

            async with _connected(interface, _GET) as (reader, _):
                drinking = asyncio.ensure_future(drink(reader))
                await _until(lambda: pages.made > 10)
                before = pages.made
                async with _connected(interface, b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n") as (other, _):
                    answer = await other.readuntil(b"0\r\n\r\n")
                assert b"LIVE" in answer
                await _until(lambda: pages.made > before)
                drinking.cancel()

        interface.run(beside)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_page_of_several_chunks_arrives_whole(version: bytes) -> None:
    with serving(VARIED, stats=Pages(chunks=3)) as interface:

        async def read_all() -> bytes:
            request = b"GET /stats HTTP/" + version + b"\r\nhost: a\r\nconnection: close\r\n\r\n"
            async with _connected(interface, request) as (reader, _):
                return await reader.read(-1)

        answer = interface.run(read_all)
        if version == b"1.0":  # Envoy's admin takes no HTTP/1.0, either
            assert answer.startswith(b"HTTP/1.1 426 ")
        else:
            assert answer.count(b"x") - answer.partition(b"\r\n\r\n")[0].count(b"x") == 3 * len(_CHUNK)
            assert answer.endswith(b"\r\n0\r\n\r\n")


def test_head_makes_no_body() -> None:
    pages = Pages(chunks=3)
    with serving(VARIED, stats=pages) as interface:
        answer = interface.ask("/stats", "HEAD")
        assert (answer.status, answer.body) == (200, "")
        assert pages.made == 0


def test_a_large_dump_over_the_wire() -> None:
    with serving(large(300, 10)) as interface:
        body = interface.ask("/clusters").body
        assert body.count("::cx_active::") == 3000
        assert interface.ask("/config_dump").body.count('"port_value"') == 2 * (3000 + 1)


def test_nothing_of_an_answer_stays() -> None:
    with serving(VARIED) as interface:
        interface.ask("/config_dump")

        async def left() -> int:
            return sum(type(found) is Answer for found in gc.get_objects())

        gc.disable()
        try:
            interface.ask("/clusters")
            interface.ask("/ready", "POST", body=b"abc")
            assert interface.run(left) == 0
        finally:
            gc.enable()
