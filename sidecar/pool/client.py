"""The sidecar's own HTTP client: whole requests, and requests whose two directions pass in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sidecar.core.client import ClientOptions, RequestFailed, Response, ResponseSink, StreamSink
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.stream_info import ConnectionInfo, NamedRoute
from sidecar.core.worker import Worker
from sidecar.pool.client_stream import Active, Client, ClientStream, PacedStream, Terminal


class WholeExchange(ClientStream):
    """A request that is sent at once and whose response is collected."""

    __slots__ = ("pieces",)

    def __init__(self, client: Client, request: RequestHead, sink: Any) -> None:
        ClientStream.__init__(self, client, request, sink)
        self.route = client.whole_route
        self.pieces: list[bytes] = []

    def on_response_head(self, head: ResponseHead, end: bool) -> None:
        self.response = head
        self.response_code = head.status
        if end:
            self.deliver(head, b"", None)

    def on_response(self, head: ResponseHead, body: bytes) -> None:
        self.response = head
        self.response_code = head.status
        self.on_response_data(body, True)

    def on_response_data(self, data: bytes, end: bool) -> None:
        self.bytes_sent += len(data)
        if self.bytes_sent > self.client.options.max_response_bytes:
            self.fail(502, b"response payload too large", "response_payload_too_large", 0)
            return
        pieces = self.pieces
        pieces.append(data)
        if end:
            assert self.response is not None
            self.deliver(self.response, data if len(pieces) == 1 else b"".join(pieces), None)

    def on_response_trailers(self, trailers: list[Field]) -> None:
        self.response_trailers = trailers
        assert self.response is not None
        self.deliver(self.response, b"".join(self.pieces), trailers)

    def deliver(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> None:
        """The end: the whole response."""
        sink = self.finish()
        try:
            sink.on_response(head, body, trailers)
        except Exception:
            self.sink_failed()


class PiecewiseExchange(PacedStream):
    """A request whose response is delivered as it comes."""

    __slots__ = ()

    def on_response_head(self, head: ResponseHead, end: bool) -> None:
        self.response = head
        self.response_code = head.status
        if self.paused and not end:
            self.upstream.pause_response()  # what was paused before, if anything, was another attempt's connection
        sink = self.finish() if end else self.sink
        try:
            sink.on_head(head, end)
        except Exception:
            self.sink_failed()

    def on_response(self, head: ResponseHead, body: bytes) -> None:
        self.on_response_head(head, False)
        if not self.over:
            self.on_response_data(body, True)

    def on_response_data(self, data: bytes, end: bool) -> None:
        self.bytes_sent += len(data)
        sink = self.finish() if end else self.sink
        try:
            sink.on_data(data, end)
        except Exception:
            self.sink_failed()

    def on_response_trailers(self, trailers: list[Field]) -> None:
        self.response_trailers = trailers
        sink = self.finish()
        try:
            sink.on_trailers(trailers)
        except Exception:
            self.sink_failed()


class RoutedHttpClient:
    """The ``HttpClient`` of one cluster. ``route`` and ``whole_route`` say to the router what ``options`` say here.

    ``forwarded_for`` is what X-Forwarded-For ends with, and what makes a request one from inside; None is for those
    that say nothing of us.
    """

    __slots__ = (
        "active",
        "cluster_name",
        "cluster_of",
        "connection",
        "forwarded_for",
        "options",
        "route",
        "router",
        "whole_route",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        router: Terminal,
        route: NamedRoute,
        whole_route: NamedRoute,
        options: ClientOptions,
        connection: ConnectionInfo,
        cluster_of: Callable[[str], Any],
        forwarded_for: bytes | None,
        active: Active,
    ) -> None:
        self.worker = worker
        self.router = router
        self.route = route
        self.whole_route = whole_route
        self.cluster_name = route.cluster_name
        self.options = options
        self.connection = connection
        self.cluster_of = cluster_of
        self.forwarded_for = forwarded_for
        self.active = active

    def request(self, head: RequestHead, body: bytes, sink: ResponseSink) -> WholeExchange:
        if body:
            head.set(b"content-length", b"%d" % len(body))
        return self.send(head, body, sink)

    def send(self, head: RequestHead, body: bytes, sink: ResponseSink) -> WholeExchange:
        """As ``request``, with no ``content-length`` but the caller's."""
        exchange = WholeExchange(self, head, sink)
        exchange.begin(not body)
        if body:
            exchange.send_data(body, True)
        return exchange

    def stream(self, head: RequestHead, sink: StreamSink, end: bool = False) -> PiecewiseExchange:
        exchange = PiecewiseExchange(self, head, sink)
        exchange.begin(end)
        return exchange

    async def fetch(self, head: RequestHead, body: bytes = b"") -> Response:
        future: asyncio.Future[Response] = self.worker.loop.create_future()
        exchange = self.request(head, body, _Waiting(future))
        try:
            return await future
        finally:
            exchange.cancel()

    def __repr__(self) -> str:
        return f"<RoutedHttpClient to {self.cluster_name}>"


class _Waiting:
    """The sink of ``fetch``."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Response]) -> None:
        self.future = future

    def on_response(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> None:
        if not self.future.done():
            self.future.set_result(Response(head, body, trailers))

    def on_failure(self, failure: RequestFailed) -> None:
        if not self.future.done():
            self.future.set_exception(failure)
