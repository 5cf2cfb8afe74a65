"""Who opens a stream says what they want, or it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from controlplane.model.grpc_calls import first_request

PATH = "/test.Service/Talk"


class Service:
    """Sends back the first request of a stream."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.ended_without: int = 0

    async def _talk(self, stream: Stream[Any, Any]) -> None:
        first = await first_request(stream, self.patience)
        if first is None:
            self.ended_without += 1
        else:
            await stream.send_message(first)

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self._talk, Cardinality.STREAM_STREAM, StringValue, StringValue)}


async def talking(service: Service, what: Any) -> Any:
    """What comes of a stream on which ``what`` is said: messages, or nothing and its end, or (None) nothing at all."""
    server = Server([service])
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    port = server._server.sockets[0].getsockname()[1]
    channel = Channel("127.0.0.1", port)
    try:
        async with asyncio.timeout(20), StreamStreamMethod(channel, PATH, StringValue, StringValue).open() as stream:
            await stream.send_request()
            for one in what or ():
                await stream.send_message(one)
            if what is not None:
                await stream.end()
            return await stream.recv_message()
    finally:
        channel.close()
        server.close()
        await server.wait_closed()


def test_the_first_request_is_given() -> None:
    said = StringValue(value="hello")
    assert asyncio.run(talking(Service(10.0), [said])) == said


def test_a_stream_that_ends_without_one() -> None:
    service = Service(10.0)
    assert asyncio.run(talking(service, [])) is None
    assert service.ended_without == 1


def test_who_says_nothing_is_told_so() -> None:
    with pytest.raises(GRPCError) as raised:
        asyncio.run(talking(Service(0.05), None))
    assert raised.value.status is Status.DEADLINE_EXCEEDED
    assert raised.value.message == "nothing was asked in 0.05 s"
