"""A management server on the bare protobufs: it writes down what it is asked, and says what the test tells it to say.

State of the world and deltas, over ADS and over the streams of single types. It works on grpclib, in the test's own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)
from google.protobuf.any_pb2 import Any as Packed
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Server

from sidecar.xds.resource_types import ADS_DELTA, ADS_STREAM, ENDPOINTS


@dataclass
class Asked:
    """One request, as transcripts show it. ``names`` are those of a DiscoveryRequest; deltas have the other two."""

    stream: int
    type: str
    message: Any

    @property
    def is_delta(self) -> bool:
        return isinstance(self.message, DeltaDiscoveryRequest)

    def line(self) -> str:
        """What is the same for every client that does it right."""
        message = self.message
        words = [f"#{self.stream}", self.type]
        if self.is_delta:
            words.append("+" + ",".join(sorted(message.resource_names_subscribe)))
            words.append("-" + ",".join(sorted(message.resource_names_unsubscribe)))
            known = ",".join(f"{k}={v}" for k, v in sorted(message.initial_resource_versions.items()))
            words.append(f"[{known}]")
        else:
            words.append(",".join(sorted(message.resource_names)) or "all")
            words.append(f"v{message.version_info}")
        words += [f"nonce={message.response_nonce}"] * bool(message.response_nonce)
        words += ["error"] * message.HasField("error_detail")
        words += ["node"] * message.HasField("node")
        return " ".join(words)


@dataclass
class Conversation:
    """One stream, open as long as ``open``."""

    number: int
    path: str
    stream: Any
    open: bool = True
    nonces: int = 0

    @property
    def is_delta(self) -> bool:
        """Whether deltas are spoken."""
        return "/Delta" in self.path

    async def send(self, message: Any) -> None:
        """Say it, with the next nonce unless it has one."""
        if not message.nonce:
            self.nonces += 1
            message.nonce = f"{message.type_url.rpartition('.')[2]}-{self.nonces}"
        await self.stream.send_message(message)

    def cut(self) -> None:
        """Cut the connection that the stream is on."""
        transport = getattr(self.stream._stream.connection, "_transport", None)  # None when it is over
        if transport is not None:
            transport.abort()

    async def end(self) -> None:
        """End the stream with OK."""
        await self.stream.send_trailing_metadata()
        self.open = False


@dataclass
class XdsServer:
    """``on_request`` is called for each request, before the test sees it; what it returns is said in answer."""

    on_request: Callable[[Conversation, Asked], Iterable[Any]] = lambda conversation, asked: ()
    asked: list[Asked] = field(default_factory=list)
    conversations: list[Conversation] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()
        self._server: Server | None = None

    def __mapping__(self) -> Mapping[str, Handler]:
        made: dict[str, Handler] = {}
        stream, delta = (DiscoveryRequest, DiscoveryResponse), (DeltaDiscoveryRequest, DeltaDiscoveryResponse)
        kinds = [(ADS_STREAM, *stream), (ADS_DELTA, *delta)]
        for paths in ENDPOINTS.values():
            kinds += [(paths.stream, *stream), (paths.delta, *delta)]
        for path, request, response in kinds:
            made[path.decode()] = Handler(
                partial(self._serve, path.decode()), Cardinality.STREAM_STREAM, request, response
            )
        return made

    async def _serve(self, path: str, stream: Any) -> None:
        conversation = Conversation(len(self.conversations) + 1, path, stream)
        self.conversations.append(conversation)
        try:
            async for message in stream:
                asked = Asked(conversation.number, message.type_url.rpartition(".")[2], message)
                answers = list(self.on_request(conversation, asked))
                self.asked.append(asked)
                self._changed.set()
                for answer in answers:
                    await conversation.send(answer)
        except StreamTerminatedError:
            pass
        finally:
            conversation.open = False
            self._changed.set()

    async def start(self) -> None:
        """Listen: on the port of before if there was one."""
        self._server = Server([self])
        await self._server.start("127.0.0.1", self.port)
        if not self.port:
            (sock,) = self._server._server.sockets  # type: ignore[union-attr]
            self.port = sock.getsockname()[1]

    async def stop(self) -> None:
        """Cut all connections and be gone."""
        if self._server is not None:
            self._server.close()
            for conversation in self.conversations:
                conversation.cut()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> XdsServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def conversation(self) -> Conversation:
        """The last stream."""
        return self.conversations[-1]

    async def until(self, condition: Callable[[], object], timeout: float = 25.0) -> None:
        """Wait until something that was asked, or a stream that came or went, has made this true."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            lines = "\n".join(asked.line() for asked in self.asked)
            raise AssertionError(f"did not come true within {timeout} s; asked was:\n{lines}") from None

    async def requests(self, number: int, timeout: float = 25.0) -> list[str]:
        """The lines of the first ``number`` requests, when they are there."""
        await self.until(lambda: len(self.asked) >= number, timeout)
        return [asked.line() for asked in self.asked[:number]]


def response(type_url: str, version: str, *resources: Any, nonce: str = "") -> DiscoveryResponse:
    """The state of the world."""
    made = DiscoveryResponse(type_url=type_url, version_info=version, nonce=nonce)
    made.resources.extend(packed(resource) for resource in resources)
    return made


def delta(
    type_url: str, version: str, changed: Mapping[str, Any], removed: Iterable[str] = (), nonce: str = ""
) -> DeltaDiscoveryResponse:
    """What has changed, all in one version."""
    made = DeltaDiscoveryResponse(type_url=type_url, system_version_info=version, nonce=nonce)
    for name, resource in changed.items():
        made.resources.append(Resource(name=name, version=version, resource=packed(resource)))
    made.removed_resources.extend(removed)
    return made


def packed(message: Any) -> Packed:
    """The message in an Any; an Any is given back as it is."""
    if isinstance(message, Packed):
        return message
    made = Packed()
    made.Pack(message, deterministic=True)
    return made
