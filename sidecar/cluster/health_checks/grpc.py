"""Checks by gRPC: a call of ``grpc.health.v1.Health/Check``, which must end with OK and say SERVING.

Source: the gRPC health checking protocol, and Envoy's gRPC health checker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sidecar.cluster.health_checks.results import ACTIVE, Outcome
from sidecar.cluster.health_checks.streams import CheckStream, Connections
from sidecar.core.grpc import is_grpc_response, parse_grpc_status
from sidecar.core.head import Field, RequestHead, ResponseHead

PATH = b"/grpc.health.v1.Health/Check"
_SERVING = 1


class Messages(Protocol):
    """Cuts a body into messages."""

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """The messages that ``data`` completes, each with whether it is compressed."""
        ...


class GrpcCheck:
    """What all gRPC checks of a cluster have in common.

    ``make_request`` makes the head for a host; ``payload`` is the request in its frame, ``messages`` makes what reads the
    answer, and raises ``malformed``.
    """

    __slots__ = ("make_request", "malformed", "messages", "payload")

    def __init__(
        self,
        make_request: Callable[[Any], RequestHead],
        payload: bytes,
        messages: Callable[[], Messages],
        malformed: type[Exception],
    ) -> None:
        self.make_request = make_request
        self.payload = payload
        self.messages = messages
        self.malformed = malformed


def request_message(service_name: str) -> bytes:
    """A `HealthCheckRequest`: one string in its first field, as `StringValue` has it."""
    message: bytes = StringValue(value=service_name).SerializeToString()
    return message


class GrpcProbe(CheckStream):
    """Asks one host by gRPC."""

    __slots__ = ("check", "messages", "status")

    def __init__(self, check: GrpcCheck, outcome: Outcome, connections: Connections) -> None:
        CheckStream.__init__(self, outcome, connections)
        self.check = check
        self.messages: Messages | None = None
        self.status: int | None = None  # of the service, as it was said

    def start(self) -> None:
        self.messages = self.check.messages()
        self.status = None
        self.ask(self.check.make_request(self.outcome.host), self.check.payload)

    def timed_out(self) -> None:
        self.end_check()

    def on_head(self, head: ResponseHead, end: bool) -> None:
        if head.status < 200:
            return
        if head.status != 200 or not is_grpc_response(head, end):
            self._fail(head.status, not end)
        elif end:
            self._complete(head.index.get(b"grpc-status"))

    def on_message(self, head: ResponseHead, body: bytes) -> None:
        self._fail(head.status, False)  # one of HTTP/1, and without trailers

    def on_data(self, data: bytes, end: bool) -> None:
        if not self.asking or self.messages is None:
            return
        try:
            messages = self.messages.feed(data)
            for compressed, message in messages:
                if message:
                    if compressed or self.status is not None:
                        raise ValueError("compressed, or a second one")
                    # a HealthCheckResponse: an enum in its first field, as Int32Value has a number
                    self.status = Int32Value.FromString(message).value
        except (self.check.malformed, ValueError, DecodeError):
            self._fail(0, not end)
            return
        if end:
            self._fail(0, False)

    def on_trailers(self, trailers: list[Field]) -> None:
        self._complete(dict(trailers).get(b"grpc-status"))

    def _complete(self, grpc_status: bytes | None) -> None:
        if not self.asking:
            return
        self.asked()
        if grpc_status is not None and parse_grpc_status(grpc_status) == 0 and self.status == _SERVING:
            self.outcome.succeeded()
        else:
            self.outcome.failed(ACTIVE)

    def _fail(self, status: int, unfinished: bool) -> None:
        """What came is not an answer; ``unfinished``: more of it may come, and is not wanted."""
        if not self.asking:
            return
        if unfinished:
            self.end_check()
        else:
            self.asked()
        self.outcome.failed(ACTIVE)
