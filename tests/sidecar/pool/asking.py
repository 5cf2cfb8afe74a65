"""Sinks that write down what they hear, and our own client in front of the memory stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sidecar.client_stack import ClientStack
from sidecar.core.client import GrpcError, GrpcReply, RequestFailed
from sidecar.core.head import Field, RequestHead, ResponseHead
from tests.sidecar.http.running import Sidecar, running

Script = dict[str, Callable[[], object]]
"""What a sink does when it hears something, by the name of the event."""


class Sink:
    """Every callback of every kind of sink: ``events`` has their names, and what they said."""

    def __init__(self, script: Script | None = None) -> None:
        self.events: list[Any] = []
        self.script = script or {}

    def _happened(self, name: str, *what: Any) -> None:
        self.events.append((name, *what) if what else name)
        if name in self.script:
            self.script[name]()

    def on_response(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> None:
        self.head = head
        self._happened("response", head.status, body, trailers)

    def on_head(self, head: ResponseHead, end: bool) -> None:
        self.head = head
        self._happened("head", head.status, end)

    def on_data(self, data: bytes, end: bool) -> None:
        self._happened("data", data, end)

    def on_trailers(self, trailers: list[Field]) -> None:
        self._happened("trailers", trailers)

    def on_failure(self, failure: RequestFailed) -> None:
        self.failure = failure
        self._happened("failure", failure.status, failure.details)

    def on_full(self) -> None:
        self._happened("full")

    def on_writable(self) -> None:
        self._happened("writable")

    def on_reply(self, reply: GrpcReply) -> None:
        self.reply = reply
        self._happened("reply", reply.message)

    def on_error(self, error: GrpcError) -> None:
        self.error = error
        self._happened("error", error.status, error.message)

    def on_initial_metadata(self, fields: list[Field]) -> None:
        self.fields = fields
        self._happened("metadata")

    def on_message(self, message: bytes) -> None:
        self._happened("message", message)

    def on_close(self, error: GrpcError | None, trailers: Sequence[Field]) -> None:
        self.error = error  # type: ignore[assignment]
        self.trailers = trailers
        self._happened("close", 0 if error is None else error.status)

    @property
    def last(self) -> Any:
        return self.events[-1]


@contextmanager
def asking(**cluster: Any) -> Iterator[tuple[Sidecar, ClientStack]]:
    """A stack in memory whose cluster "up" is configured so, and its clients; all must be at rest in the end."""
    with running(clusters={"up": cluster, "two": cluster}) as sidecar:
        yield sidecar, clients_of(sidecar)


def clients_of(sidecar: Sidecar) -> ClientStack:
    """The clients of the stack."""
    stack = sidecar.stack
    return ClientStack(stack.worker, stack.clusters.get, stack.pool_of, stack.async_client_stats, "10.1.2.3")


def get(path: bytes = b"/") -> RequestHead:
    return RequestHead(b"GET", path, b"a", [])


def post(*fields: Field) -> RequestHead:
    return RequestHead(b"POST", b"/", b"a", list(fields))


def over_http2(cluster: dict[str, Any], **how: Any) -> dict[str, Any]:
    """The cluster, with HTTP/2 to its endpoints, or what else ``how`` says."""
    how = how or {"explicit_http_config": {"http2_protocol_options": {}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster["typed_extension_protocol_options"] = {options: {"@type": "type.googleapis.com/" + options, **how}}
    return cluster
