"""Where requests of the administration interface end: it stands in the router's place behind a connection manager."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from math import inf
from typing import Any, Protocol

from sidecar.admin.page import ERROR, Page
from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.config.route import RouteConfiguration
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.worker import Worker

log = logging.getLogger("sidecar.admin")

_FIELDS: tuple[Field, ...] = (
    (b"cache-control", b"no-cache, max-age=0"),
    (b"x-content-type-options", b"nosniff"),
)


class AdminStream(Protocol):
    """What an answer needs of the stream."""

    request: RequestHead
    downstream: Any
    upstream: Any
    now: float
    last_activity: float
    response_code_details: str

    def on_response_head(self, head: ResponseHead, end: bool) -> None: ...
    def on_response_data(self, data: bytes, end: bool) -> None: ...
    def reset(self, details: str) -> None: ...


class Answers(Protocol):
    """What makes the pages, at once or when others have been asked."""

    def answer(self, method: bytes, target: bytes) -> Page | asyncio.Future[Page]: ...


class AdminTerminal:
    """The end of the admin's filter chain, and its routes as well: there are none to match."""

    __slots__ = ("admin", "worker")

    def __init__(self, admin: Answers, worker: Worker) -> None:
        self.admin = admin
        self.worker = worker

    def match(self, request: RequestHead, stream: object) -> None:
        """No route is needed to get here."""

    def on_request(self, stream: AdminStream, end: bool) -> None:
        """Answer the request once it is complete; its body is not looked at."""
        answer = Answer(self, stream)
        stream.upstream = answer
        if end:
            answer.begin()

    def __repr__(self) -> str:
        return f"<AdminTerminal {self.admin!r}>"


class Answer:
    """One answer on its way: to the stream it is what is upstream of it. Writes a chunk in each turn of the loop."""

    __slots__ = ("after", "chunks", "stream", "terminal", "waiting")

    def __init__(self, terminal: AdminTerminal, stream: AdminStream) -> None:
        self.terminal = terminal
        self.stream: AdminStream | None = stream
        self.chunks: Iterator[bytes] | None = None
        self.after: Any = None
        self.waiting = False  # for its turn of the loop

    def begin(self) -> None:
        """Make the page, send its head, and its body if that is short."""
        stream = self.stream
        if stream is None:
            return
        request = stream.request
        try:
            page = self.terminal.admin.answer(request.method, request.path)
        except Exception:
            log.exception("cannot answer %r", request)
            page = Page(500, ERROR, b"Internal Server Error")
        if isinstance(page, Page):
            self._send(page)
        else:
            page.add_done_callback(self._came)

    def _came(self, coming: asyncio.Future[Page]) -> None:
        """The page that others had to be asked for."""
        if coming.cancelled() or (error := coming.exception()) is None:
            page = Page(503, ERROR, b"Service Unavailable") if coming.cancelled() else coming.result()
        else:
            log.error("cannot answer", exc_info=error)
            page = Page(500, ERROR, b"Internal Server Error")
        self._send(page)
        worker = self.terminal.worker
        if worker.cork.waiting:
            worker.cork.pull()

    def _send(self, page: Page) -> None:
        stream = self.stream
        if stream is None:
            return
        stream.now = stream.last_activity = self.terminal.worker.clock()
        request = stream.request
        stream.response_code_details = "admin_filter_response"
        self.after = page.after
        head = ResponseHead(page.status, [(b"content-type", page.content_type.encode()), *_FIELDS, *page.fields])
        if request.method == b"HEAD" or not page.body:
            stream.on_response_head(head, True)
            self._sent()
            return
        stream.on_response_head(head, False)
        if isinstance(page.body, bytes):
            stream.on_response_data(page.body, True)
            self._sent()
            return
        self.chunks = page.body
        self._wait()

    def _wait(self) -> None:
        if not self.waiting:
            self.waiting = True
            self.terminal.worker.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.waiting = False
        stream, chunks = self.stream, self.chunks
        if stream is None or chunks is None or stream.downstream.full:
            return
        worker = self.terminal.worker
        stream.now = stream.last_activity = worker.clock()
        try:
            chunk = next(chunks, None)
        except Exception:
            log.exception("the answer to %r breaks off", stream.request)
            stream.reset("admin_response_failed")
        else:
            if chunk is None:
                stream.on_response_data(b"", True)
                self._sent()
            else:
                if chunk:
                    stream.on_response_data(chunk, False)
                self._wait()
        if worker.cork.waiting:
            worker.cork.pull()

    def _sent(self) -> None:
        self.stream = self.chunks = None
        after, self.after = self.after, None
        if after is not None:
            self.terminal.worker.loop.call_soon(after)

    def on_request_data(self, data: bytes, end: bool) -> None:
        """A piece of the request's body, which nobody reads."""
        if end:
            self.begin()

    def on_request_trailers(self, trailers: list[Field]) -> None:
        """The request's end."""
        self.begin()

    def pause_response(self) -> None:
        """The client reads slower than we write: the next turn sees that, and is the last until there is room."""

    def resume_response(self) -> None:
        """There is room again."""
        if self.chunks is not None:
            self._wait()

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self.stream = self.chunks = self.after = None

    def on_timer(self, now: float) -> float:
        """An answer has no deadlines of its own."""
        return inf

    def __repr__(self) -> str:
        return f"<Answer to {self.stream.request!r}>" if self.stream is not None else "<Answer, over>"


def connection_manager_config() -> HttpConnectionManager:
    """How the admin listener's connection manager is configured, as Envoy's is: the path is normalised, the client's
    address is the connection's, and nothing is taken from X-Forwarded-For.
    """
    return HttpConnectionManager(
        stat_prefix="admin",
        route_config=RouteConfiguration(name="local_route", virtual_hosts=()),
        normalize_path=True,
        merge_slashes=True,
        use_remote_address=True,
        generate_request_id=False,
    )
