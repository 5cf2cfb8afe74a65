"""A stream that records what filters do to it, with a clock that the test turns: the contract of ``FilterStream``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.http_filter import PAUSE, HttpFilter
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.filters.context import FilterContext
from sidecar.http.filter_chain import FilterChain
from sidecar.router.header_mutation import compile_header_mutations
from sidecar.telemetry.filter_stats import filter_stats
from sidecar.telemetry.formatter import compile_header_value
from sidecar.telemetry.store import StatsStore


class FixedRandom(Random):
    """Always the same number in [0, 1)."""

    def __init__(self, value: float = 0.5) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


class FakeWorker:
    """A clock at 1000 s that stands still unless it is advanced; then what is due is called."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.random = FixedRandom()
        self.timers: list[FakeTimer] = []
        self.wheel = self
        self.cork = self

    def call_in(self, delay: float, function: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(self.now + delay, function))
        return self.timers[-1]

    def cancel(self, timer: FakeTimer) -> None:
        if timer in self.timers:
            self.timers.remove(timer)

    def random_for(self, purpose: str) -> Random:
        return self.random

    def settle(self) -> None:
        """Nothing is collected here."""

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        """One turn of the loop: call what was due before it."""
        due = [timer for timer in self.timers if timer.due <= self.now]
        for timer in due:
            self.timers.remove(timer)
            timer.function()

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := sorted((timer for timer in self.timers if timer.due <= until), key=lambda timer: timer.due):
            timer = due[0]
            self.timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.function()
        self.now = until


class FakeTimer:
    def __init__(self, due: float, function: Callable[[], None]) -> None:
        self.due = due
        self.function = function


class FakeStream(StreamInfo):
    """One exchange through ``filters``; what leaves towards the upstream and the client is in ``sent`` and ``got``."""

    def __init__(self, worker: FakeWorker, filters: Sequence[HttpFilter] = (), request: RequestHead | None = None,
                 connection: ConnectionInfo | None = None) -> None:  # fmt: skip
        connection = connection or ConnectionInfo(1, Address("127.0.0.1", 80), Address("127.0.0.1", 4000), 0.0)
        super().__init__(connection, request or RequestHead(b"GET", b"/", b"a.test", []), 0.0, worker.now)
        self.worker = worker
        self.chain = FilterChain(filters)
        self.data: dict[object, Any] = {}
        self.request_at = self.response_at = -1
        self.over = False
        self.response_ended = False
        self.reset_with = ""
        self.replied: tuple[int, bytes, str] | None = None
        self.grpc_status: int | None = None
        self.forwarded = False
        self.ended = False
        self.sent = bytearray()
        self.got = bytearray()
        self.pieces: list[tuple[float, bytes, bool]] = []
        self.reading = True
        self.closes = False

    @property
    def now(self) -> float:
        return self.worker.now

    @now.setter
    def now(self, now: float) -> None:
        """A filter that was called from elsewhere says so; the clock is the worker's."""
        assert now == self.worker.now

    @property
    def random(self) -> Random:
        return self.worker.random

    def ask(self, body: bytes | Sequence[bytes] = b"") -> FakeStream:
        """Take the request, with its body in one or more pieces, through the filters."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        if pieces == [b""]:
            pieces = []
        self.request_from(-1, not pieces)
        for number, piece in enumerate(pieces):
            self.push(piece, number == len(pieces) - 1)
        return self

    def push(self, data: bytes, end: bool) -> None:
        """More of the request's body."""
        if self.over:
            return
        for at, hook in self.chain.request_data:
            if self.request_at < 0 or at <= self.request_at:
                data = hook(self, data, end)
        self.sent += data
        self.ended = end

    def request_from(self, after: int, end: bool) -> None:
        for at, hook in zip(self.chain.request_positions, self.chain.request, strict=True):
            if at > after and hook(self, end):
                if not self.over:
                    self.request_at = at
                return
        self.request_at = -1
        self.forwarded = True

    def answer(
        self, status: int = 200, fields: Sequence[Field] = (), body: bytes | Sequence[bytes] = b""
    ) -> FakeStream:
        """Take an upstream's response back through the filters."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        if pieces == [b""]:
            pieces = []
        self._respond(ResponseHead(status, list(fields)), pieces)
        return self

    def _respond(self, head: ResponseHead, pieces: Sequence[bytes]) -> None:
        self.response = head
        self.response_code = head.status
        for at, hook in self.chain.response:
            if hook(self, not pieces):
                self.response_at = at
                return
        for number, piece in enumerate(pieces):
            self.receive(piece, number == len(pieces) - 1)
        if not pieces:
            self.response_ended = True
            self.complete()

    def receive(self, data: bytes | None, end: bool) -> None:
        """More of the response's body."""
        for _, hook in self.chain.response_data:
            data = hook(self, data, end)
            if data is None:
                return
        self._deliver(data or b"", end)

    def send_response_data(self, filter: HttpFilter, data: bytes, end: bool) -> None:
        position = self.chain.filters.index(filter)
        for at, hook in self.chain.response_data:
            if at < position:
                data = hook(self, data, end)
        self._deliver(data, end)

    def _deliver(self, data: bytes, end: bool) -> None:
        self.got += data
        self.pieces.append((self.now, data, end))
        if end:
            self.response_ended = True
            self.complete()

    def complete(self) -> None:
        """The end of the stream, once."""
        if not self.over:
            self.over = True
            for hook in self.chain.complete:
                hook(self)

    def reply(self, status: int, body: bytes = b"", *, details: str, flags: int = 0, headers: Sequence[Field] = (),
              grpc_status: int | None = None) -> bool:  # fmt: skip
        self.response_flags |= flags
        self.response_code_details = details
        self.replied = (status, body, details)
        self.grpc_status = grpc_status
        self.request_at = self.response_at = -1
        fields = (
            [*headers, (b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")] if body else headers
        )
        self._respond(ResponseHead(status, list(fields)), [body] if body else [])
        return PAUSE

    def refuse(self, status: int, body: bytes, details: str) -> bool:
        self.closes = True
        return self.reply(status, body, details=details)

    def resume_request(self) -> None:
        if self.request_at >= 0 and not self.over:
            self.request_from(self.request_at, True)

    def resume_response(self) -> None:
        self.response_at = -1

    def call_in(self, delay: float, function: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.worker.now + delay, lambda: None if self.over else function())
        self.worker.timers.append(timer)
        return timer

    def reset(self, details: str) -> None:
        self.reset_with = details
        self.complete()

    def on_downstream_full(self) -> None:
        self.reading = False

    def on_downstream_writable(self) -> None:
        self.reading = True


def make_context(worker: FakeWorker | None = None, **given: Any) -> FilterContext:
    """A context with real statistics, mutations and formats; what else other stages know is in ``given``."""
    defaults: dict[str, Any] = {
        "stats": filter_stats(StatsStore(), "ingress"),
        "compile_header_mutations": compile_header_mutations,
        "compile_format": compile_header_value,
        "cluster_health": lambda name: None,
        "health_check_failed": lambda: False,
        "entry_point_filters": lambda name: HttpFilter,
        "node_cluster": "mine",
    }
    return FilterContext(worker or FakeWorker(), **{**defaults, **given})  # type: ignore[arg-type]


def get(path: bytes = b"/", *fields: Field, method: bytes = b"GET") -> RequestHead:
    """A request head."""
    return RequestHead(method, path, b"a.test", list(fields))
