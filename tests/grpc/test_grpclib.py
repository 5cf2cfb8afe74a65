"""grpclib, gRPC written in Python on h2, as the client and as the server, with grpcio on the other side and with itself."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpclib
import grpclib.client
import grpclib.const
import grpclib.server
import pytest

from tests.grpc.bootstraps import AUTHORITY, Document, bootstrap, cluster, listener, to
from tests.grpc.client import PlainStub, open_channel
from tests.grpc.conftest import Setting
from tests.grpc.service import PLAIN_SERVICE
from tests.grpc.subjects import proxy_of
from tests.grpc.test_interop import BOUND, Requests, failure

SPECIAL = "with whitespace and ☺ \U0001f608 100%"


class Bytes:
    """Messages as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: Any) -> bytes:
        return message

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class Library:
    """A grpclib service with calls of ``PLAIN_SERVICE``. ``over`` has the names of the calls that were cancelled."""

    def __init__(self) -> None:
        self.over: list[bytes] = []
        self.changed = threading.Event()

    async def echo(self, stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    async def metadata(self, stream: Any) -> None:
        found = {name: value for name, value in stream.metadata.items() if name.startswith("x-own-")}
        await stream.recv_message()
        await stream.send_initial_metadata(metadata=found)
        await stream.send_message(b"")
        await stream.send_trailing_metadata(metadata=found)

    async def converse(self, stream: Any) -> None:
        async for message in stream:
            await stream.send_message(message)
        await stream.send_message(b"bye")

    async def forever(self, stream: Any) -> None:
        name = await stream.recv_message()
        await stream.send_message(b"first")
        try:
            await asyncio.sleep(30)
        finally:
            self.over.append(name)
            self.changed.set()

    async def deadline(self, stream: Any) -> None:
        await stream.recv_message()
        raise grpclib.GRPCError(grpclib.const.Status.FAILED_PRECONDITION, SPECIAL)

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        kinds = grpclib.const.Cardinality
        calls: dict[str, tuple[Callable[[Any], Awaitable[None]], grpclib.const.Cardinality]] = {
            "Echo": (self.echo, kinds.UNARY_UNARY),
            "Metadata": (self.metadata, kinds.UNARY_UNARY),
            "Deadline": (self.deadline, kinds.UNARY_UNARY),
            "Converse": (self.converse, kinds.STREAM_STREAM),
            "Forever": (self.forever, kinds.UNARY_STREAM),
        }
        return {
            f"/{PLAIN_SERVICE}/{name}": grpclib.const.Handler(function, kind, bytes, bytes)
            for name, (function, kind) in calls.items()
        }


class Serving:
    """The library's server on a loop in a thread of its own."""

    def __init__(self) -> None:
        self.library = Library()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self.run(self._start())
        self.port: int = self.server._server.sockets[0].getsockname()[1]

    async def _start(self) -> grpclib.server.Server:
        server = grpclib.server.Server([self.library], codec=Bytes())  # type: ignore[arg-type]
        await server.start("127.0.0.1", 0)
        return server

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def stop(self) -> None:
        async def close() -> None:
            self.server.close()
            await self.server.wait_closed()

        self.run(close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@contextlib.asynccontextmanager
async def channel_to(port: int, tls: bool = False) -> AsyncIterator[grpclib.client.Channel]:
    context: ssl.SSLContext | None = None
    if tls:
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        context.set_alpn_protocols(["h2"])
        context.check_hostname = False
    async with asyncio.timeout(BOUND), grpclib.client.Channel("127.0.0.1", port, ssl=context, codec=Bytes()) as channel:  # type: ignore[arg-type]
        yield channel


def method(kind: type[Any], channel: grpclib.client.Channel, name: str) -> Any:
    return kind(channel, f"/{PLAIN_SERVICE}/{name}", bytes, bytes)


async def use(channel: grpclib.client.Channel) -> None:
    """What a client of the library does, whoever the server is."""
    echo = method(grpclib.client.UnaryUnaryMethod, channel, "Echo")
    assert await echo(b"hello") == b"hello"
    large = bytes(range(256)) * 8192
    assert await echo(large) == large
    assert await asyncio.gather(*(echo(b"%d" % number) for number in range(100))) == [b"%d" % n for n in range(100)]
    converse = method(grpclib.client.StreamStreamMethod, channel, "Converse")
    async with converse.open() as stream:
        for number in range(10):
            await stream.send_message(b"%d" % number)
            assert await stream.recv_message() == b"%d" % number
        await stream.end()
        assert [message async for message in stream] == [b"bye"]
    metadata = {"x-own-text": "value", "x-own-data-bin": b"\x00\xff\xab"}
    async with method(grpclib.client.UnaryUnaryMethod, channel, "Metadata").open(metadata=metadata) as stream:
        await stream.send_message(b"", end=True)
        await stream.recv_message()
        await stream.recv_trailing_metadata()
        for found in (stream.initial_metadata, stream.trailing_metadata):
            assert {name: value for name, value in found.items() if name in metadata} == metadata
    with pytest.raises(asyncio.TimeoutError):
        await method(grpclib.client.UnaryStreamMethod, channel, "Forever")(b"deadline", timeout=0.2)


def test_the_client_with_a_server_of_grpcio(setting: Setting, listener_name: str) -> None:
    async def main() -> None:
        async with channel_to(setting.proxy.ports[listener_name], listener_name == "tls") as channel:
            await use(channel)
            with pytest.raises(grpclib.GRPCError) as missing:
                await method(grpclib.client.UnaryUnaryMethod, channel, "Missing")(b"")
            assert missing.value.status is grpclib.const.Status.UNIMPLEMENTED
            async with method(grpclib.client.UnaryStreamMethod, channel, "Forever").open() as stream:
                await stream.send_message(b"of the library", end=True)
                assert await stream.recv_message() == b"first"
                await stream.cancel()

    plain = setting.behind(listener_name).plain
    asyncio.run(main())
    plain.calls.wait("over", b"of the library")


@pytest.fixture(scope="module")
def library(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Library]]:
    """The port of a proxy in front of a server of the library."""
    serving = Serving()

    def made(ports: Mapping[str, int]) -> Document:
        front = listener("plain", ports["plain"], [to("grpc")])
        return bootstrap([front], [cluster("grpc", serving.port)], ports["admin"])

    try:
        with proxy_of(kind, ("plain",), made, Path(tmp_path_factory.mktemp(kind))) as proxy:
            yield proxy.ports["plain"], serving.library
    finally:
        serving.stop()


def test_the_client_with_its_own_server(library: tuple[int, Library]) -> None:
    async def main() -> None:
        async with channel_to(library[0]) as channel:
            await use(channel)
            with pytest.raises(grpclib.GRPCError) as failed:
                await method(grpclib.client.UnaryUnaryMethod, channel, "Deadline")(b"")
            assert failed.value.status is grpclib.const.Status.FAILED_PRECONDITION
            assert failed.value.message == SPECIAL

    asyncio.run(main())


def test_the_server_with_a_client_of_grpcio(library: tuple[int, Library]) -> None:
    port, service = library
    with open_channel(port) as channel:
        stub = PlainStub(channel)
        assert stub.echo(b"hello", timeout=BOUND) == b"hello"
        large = bytes(1 << 21)
        assert stub.echo(large, timeout=BOUND) == large
        calls = [stub.echo.future(b"%d" % number, timeout=BOUND) for number in range(100)]
        assert [call.result() for call in calls] == [b"%d" % number for number in range(100)]
        requests = Requests()
        converse = stub.converse(iter(requests), timeout=BOUND)
        for number in range(10):
            requests.send(b"%d" % number)
            assert next(converse) == b"%d" % number
        requests.half_close()
        assert list(converse) == [b"bye"]
        metadata = [("x-own-text", "value"), ("x-own-data-bin", b"\x00\xff\xab")]
        _, call = stub.metadata.with_call(b"", metadata=metadata, timeout=BOUND)
        for found in (call.initial_metadata(), call.trailing_metadata()):
            assert [tuple(one) for one in found if one[0].startswith("x-own-")] == metadata
        code, message = failure(lambda: stub.deadline(b"", timeout=BOUND))
        assert (code.name, message) == ("FAILED_PRECONDITION", SPECIAL)
        forever = stub.forever(b"of grpcio", timeout=BOUND)
        assert next(forever) == b"first"
        service.changed.clear()
        forever.cancel()
        assert service.changed.wait(5)
        assert service.over[-1] == b"of grpcio"
