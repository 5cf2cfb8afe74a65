"""A stream without a downstream, which the router takes as it takes any other: a request of our own.

The router brings balancing, circuit breakers, retries, timeouts, outlier detection and statistics; the composition root
hands it in. As in Envoy's ``AsyncClient``, what is sent says that it comes from inside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from sidecar.core import response_flags as flag
from sidecar.core.client import ClientOptions, RequestFailed
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.stream_info import ConnectionInfo, NamedRoute, StreamInfo
from sidecar.core.timer_wheel import Callback
from sidecar.core.worker import Worker

log = logging.getLogger("sidecar.client")


class Terminal(Protocol):
    """The router."""

    def on_request(self, stream: Any, end: bool) -> None: ...


class Active(set["ClientStream"]):
    """Requests under way."""

    __slots__ = ()

    def close(self) -> None:
        """Fail them: what they would need goes away."""
        for stream in list(self):
            stream.now = stream.client.worker.clock()
            stream.fail(503, b"", "shutdown", flag.LOCAL_RESET)
            stream.client.worker.cork.settle()


class Client(Protocol):
    """What all requests to one cluster have in common. ``forwarded_for`` is what X-Forwarded-For ends with, empty for
    nothing, None if requests do not say that they come from inside; ``connection`` stands where a downstream's would.
    ``whole_route`` is for requests that are sent at once, and so can be repeated at little cost; ``active`` are those that
    are under way."""

    worker: Worker
    router: Terminal
    route: NamedRoute
    whole_route: NamedRoute
    cluster_name: str
    options: ClientOptions
    connection: ConnectionInfo
    cluster_of: Callable[[str], Any]
    forwarded_for: bytes | None
    active: Active


class ClientStream(StreamInfo):
    """One request of our own and its response; the router sees it as a stream and as that stream's downstream."""

    __slots__ = (
        "client",
        "duration_deadline",
        "full",
        "last_activity",
        "now",
        "over",
        "paused",
        "request_ended",
        "sink",
        "timer",
        "upstream",
    )  # fmt: skip

    request: RequestHead
    upgrade = b""
    tunnel = None

    def __init__(self, client: Client, request: RequestHead, sink: Any) -> None:
        worker = client.worker
        now = worker.clock()
        StreamInfo.__init__(self, client.connection, request, now + worker.epoch, now)
        self.client = client
        self.sink = sink  # None when it is over: sinks hold their exchange
        self.route = client.route
        self.now = self.last_activity = now
        self.upstream: Any = None
        self.timer: Callback | None = None
        self.duration_deadline = inf
        self.over = False
        self.full = False  # the sink was told to send no more
        self.paused = False  # the sink wants no more
        self.request_ended = False

    def begin(self, end: bool) -> None:
        """To the router, and on its way."""
        client = self.client
        request = self.request
        if request.method == b"CONNECT" or b"upgrade" in request.index:
            raise ValueError(f"the client opens no tunnels: {request!r}")
        client.active.add(self)
        here = client.forwarded_for
        if here is not None:
            request.set(b"x-envoy-internal", b"true")
            if here:
                forwarded = request.get(b"x-forwarded-for")
                request.set(b"x-forwarded-for", here if forwarded is None else forwarded + b"," + here)
        if end:
            self.request_ended = True
            self.request_complete = self.now
        if client.options.max_duration:
            self.duration_deadline = self.now + client.options.max_duration
            self.wake_by(self.duration_deadline)
        client.router.on_request(self, end)
        self.settle()

    # what sinks may ask for

    @property
    def info(self) -> StreamInfo:
        return self

    def cancel(self) -> None:
        if self.over:
            return
        self.now = self.client.worker.clock()
        self.response_code_details = "cancelled"
        self._give_up()
        self.settle()

    def send_data(self, data: bytes, end: bool) -> None:
        upstream = self.upstream
        if upstream is None:
            return
        assert not self.request_ended, "sent after its end"
        self.now = self.last_activity = self.client.worker.clock()
        self.bytes_received += len(data)
        if end:
            self.request_ended = True
            self.request_complete = self.now
        upstream.on_request_data(data, end)
        self.settle()

    def send_trailers(self, trailers: list[Field]) -> None:
        upstream = self.upstream
        if upstream is None:
            return
        assert not self.request_ended, "sent after its end"
        self.now = self.last_activity = self.request_complete = self.client.worker.clock()
        self.request_ended = True
        self.request_trailers = trailers
        upstream.on_request_trailers(trailers)
        self.settle()

    def pause_response(self) -> None:
        if not self.paused and not self.over:
            self.paused = True
            if self.upstream is not None:
                self.upstream.pause_response()

    def resume_response(self) -> None:
        if self.paused and not self.over:
            self.paused = False
            if self.upstream is not None:
                self.upstream.resume_response()
            self.settle()

    # the router's side: what it asks of a stream

    def on_informational(self, head: ResponseHead) -> None:
        """A 1xx response: nobody here waits for one."""

    def on_response_head(self, head: ResponseHead, end: bool) -> None:
        raise NotImplementedError

    def on_response(self, head: ResponseHead, body: bytes) -> None:
        raise NotImplementedError

    def on_response_data(self, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def on_response_trailers(self, trailers: list[Field]) -> None:
        raise NotImplementedError

    def on_upstream_failure(
        self,
        status: int,
        body: bytes,
        details: str,
        flags: int,
        headers: Sequence[Field] = (),
        mutate: Callable[[Any], None] | None = None,
    ) -> None:
        """The router gave up; the arguments are the answer that a downstream would have had."""
        self.response_flags |= flags
        self.response_code_details = details
        if self.response is None:
            self.response_code = status
        self.broke(RequestFailed(status, body.decode("latin-1"), details, self.response_flags))

    def broke(self, failure: RequestFailed) -> None:
        """The end: there is no response, or no more of it."""
        sink = self.finish()
        try:
            sink.on_failure(failure)
        except Exception:
            self.sink_failed()

    def reply(self, status: int, body: bytes = b"", *, details: str, flags: int = 0, **_: Any) -> bool:
        """The router answers in the upstream's stead."""
        self.on_upstream_failure(status, body, details, flags)
        return True

    def call_in(self, delay: float, function: Callable[[], None]) -> Callback:
        """Call ``function`` in ``delay`` seconds, unless it is over by then."""

        def unless_over() -> None:
            if not self.over:
                self.now = self.client.worker.clock()
                function()
                self.settle()

        return self.client.worker.wheel.call_in(delay, unless_over)

    # the router's side: what it asks of a downstream

    def pass_through(self, upstream: Any) -> None:
        """Nothing: what is sent comes from here."""

    @property
    def downstream(self) -> ClientStream:
        return self

    def wake_by(self, due: float) -> None:
        if self.over:
            return
        timer = self.timer
        if timer is None:
            timer = self.timer = Callback(self._on_timer)
        if due < timer.due:
            self.client.worker.wheel.arm(timer, due)

    def pause_reading(self) -> None:
        """The way to the upstream is full."""

    def resume_reading(self) -> None:
        """The way to the upstream has room."""

    # within

    def fail(self, status: int, message: bytes, details: str, flags: int) -> None:
        """Give it up for a reason of our own."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.cancel()
        self.on_upstream_failure(status, message, details, flags)

    def _on_timer(self) -> None:
        now = self.now = self.client.worker.clock()
        if now >= self.duration_deadline:
            route: Any = self.route
            cluster = self.client.cluster_of(route.cluster_name)
            if cluster is not None:
                cluster.stats.upstream_rq_max_duration_reached += 1
            self.fail(
                408,
                b"upstream max stream duration reached",
                "upstream_max_stream_duration_reached",
                flag.UPSTREAM_MAX_STREAM_DURATION_REACHED,
            )
        else:
            upstream = self.upstream
            due = self.duration_deadline if upstream is None else min(self.duration_deadline, upstream.on_timer(now))
            if due != inf:
                self.wake_by(due)
        self.settle()

    def _give_up(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.cancel()
        self.finish()

    def finish(self) -> Any:
        """It is over; the sink, for the last that it hears."""
        self.over = True
        self.end = self.now
        self.client.active.discard(self)
        self.stop()
        sink, self.sink = self.sink, None
        return sink

    def stop(self) -> None:
        """The upstream has no more to say, and no deadline counts."""
        self.upstream = None
        timer, self.timer = self.timer, None
        if timer is not None:
            self.client.worker.wheel.cancel(timer)

    def sink_failed(self) -> None:
        """Called where an exception of the sink was caught."""
        log.exception("%r: its sink failed", self)
        if not self.over:
            self._give_up()

    def settle(self) -> None:
        """See to it that what this call produced leaves at the end of the loop's turn."""
        cork = self.client.worker.cork
        if cork.waiting:
            cork.settle()

    def __repr__(self) -> str:
        request = self.request
        where = self.response_code or ("over" if self.over else "pending")
        return f"<{type(self).__name__} {request.method!r} {request.path!r} to {self.client.cluster_name}: {where}>"


class PacedStream(ClientStream):
    """A request whose body is sent in pieces, no faster than the upstream takes them."""

    __slots__ = ()

    def pause_reading(self) -> None:
        if not self.full and not self.over:
            self.full = True
            try:
                self.sink.on_full()
            except Exception:
                self.sink_failed()

    def resume_reading(self) -> None:
        if self.full and not self.over:
            self.full = False
            try:
                self.sink.on_writable()
            except Exception:
                self.sink_failed()
