"""One stream to a management server that is made again whenever it ends. Source: Envoy's ``Config::GrpcStream``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from sidecar.core.client import GrpcClient, GrpcError, GrpcStream
from sidecar.core.head import Field
from sidecar.core.timer_wheel import Callback
from sidecar.core.token_bucket import TokenBucket
from sidecar.core.worker import Worker
from sidecar.xds.backoff import BackOff

log = logging.getLogger("sidecar.xds")


class ControlPlaneCounters(Protocol):
    """`control_plane.`: of the stream to a server."""

    connected_state: int
    pending_requests: int
    rate_limit_enforced: int
    identifier: str


class Conversation(Protocol):
    """Who speaks over the stream."""

    def on_open(self) -> None:
        """A new stream: say everything from the beginning."""
        ...

    def on_response(self, response: Any) -> None: ...

    def on_closed(self) -> None:
        """The stream has ended, or there was none; another is on its way."""
        ...

    def on_ready(self) -> None:
        """There may be room for requests again."""
        ...


class DiscoveryStream:
    """Keeps a stream to a server open. ``response_class`` is what the server sends.

    The number ``generation`` tells one stream from the next. Requests may be sent as long as ``take`` says so; when it
    does not, ``on_ready`` follows.
    """

    def __init__(
        self,
        worker: Worker,
        client: GrpcClient,
        path: bytes,
        response_class: Any,
        conversation: Conversation,
        backoff: BackOff,
        limit: TokenBucket | None,
        stats: ControlPlaneCounters,
    ) -> None:
        self.worker = worker
        self.client = client
        self.path = path
        self.response_class = response_class
        self.conversation = conversation
        self.backoff = backoff
        self.limit = limit
        self.stats = stats
        self.generation = 0
        self.started = False
        self.failed = False
        """Whether the server is away: the last attempt came to an end, or nothing was heard, and no answer came since."""
        self._call: GrpcStream | None = None
        self._retry: Callback | None = None
        self._refill: Callback | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a stream."""
        return self._call is not None

    def start(self) -> None:
        """Open the stream for the first time; after that nothing."""
        if not self.started:
            self.started = True
            self._open()

    def take(self) -> bool:
        """Whether a request may be sent now; it counts as sent."""
        call = self._call
        if call is None or call.full:
            return False
        if self.limit is None or self.limit.take(self.worker.clock()):
            return True
        self.stats.rate_limit_enforced += 1
        if self._refill is None:
            wait = self.limit.seconds_until(1.0, self.worker.clock())
            self._refill = self.worker.wheel.call_in(wait, self._refilled)
        return False

    def send(self, request: Any) -> None:
        """Send what ``take`` has allowed."""
        if self._call is not None:
            self._call.send(request.SerializeToString())

    def pause(self) -> None:
        """Read no more responses until ``resume``."""
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        """Read on."""
        if self._call is not None:
            self._call.resume()

    def restart(self) -> None:
        """Begin another stream, at once."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
            self.stats.connected_state = 0
            self.conversation.on_closed()
            self._open()

    def close(self) -> None:
        """End it, and make no other."""
        call, self._call = self._call, None
        self.generation += 1
        self.stats.connected_state = 0
        if call is not None:
            call.cancel()
        for timer in (self._retry, self._refill):
            if timer is not None:
                self.worker.wheel.cancel(timer)
        self._retry = self._refill = None

    def _open(self) -> None:
        self._retry = None
        self.generation += 1
        attempt = _Attempt(self, self.generation)
        call = self.client.stream(self.path, attempt)
        if attempt.generation != self.generation or attempt.over:
            return
        self._call = call
        self.stats.connected_state = 1
        self.conversation.on_open()

    def _refilled(self) -> None:
        self._refill = None
        self.conversation.on_ready()

    def ended(self, error: GrpcError | None) -> None:
        """The server, or the way to it, has ended the stream."""
        self._call = None
        self.failed = True
        self.stats.connected_state = 0
        wait = self.backoff.next()
        status, reason = (0, "") if error is None else (error.status, error.message)
        log.warning(
            "%s: stream closed: %d, %s; next attempt in %.2f s",
            self.path.decode().rpartition("/")[2],
            status,
            reason,
            wait,
        )
        self._retry = self.worker.wheel.call_in(wait, self._open)
        self.conversation.on_closed()

    def received(self, message: bytes) -> None:
        """A message from the server."""
        self.backoff.reset()
        response = self.response_class()
        try:
            response.ParseFromString(message)
        except DecodeError:
            log.warning("%s: the server sent %d bytes that are no response", self.path.decode(), len(message))
            call, self._call = self._call, None
            if call is not None:
                call.cancel()
            self.ended(GrpcError(13, "what the server sent is no response"))
            return
        self.failed = False
        self.conversation.on_response(response)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed" if self.started else "not started"
        return f"<DiscoveryStream {self.path.decode()} {state}>"


class _Attempt:
    """The sink of one stream."""

    __slots__ = ("generation", "over", "stream")

    def __init__(self, stream: DiscoveryStream, generation: int) -> None:
        self.stream = stream
        self.generation = generation
        self.over = False

    def on_initial_metadata(self, fields: list[Field]) -> None:
        """Nothing of interest."""

    def on_message(self, message: bytes) -> None:
        if self.generation == self.stream.generation:
            self.stream.received(message)

    def on_close(self, error: GrpcError | None, trailers: Sequence[Field]) -> None:
        self.over = True
        if self.generation == self.stream.generation:
            self.stream.ended(error)

    def on_full(self) -> None:
        """``take`` asks the stream itself."""

    def on_writable(self) -> None:
        if self.generation == self.stream.generation:
            self.stream.conversation.on_ready()
