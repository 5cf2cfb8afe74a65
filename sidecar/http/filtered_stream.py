"""A stream on its way through its filters: pausing, holding what arrives meanwhile, going on, and failing closed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Any

from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.http_filter import PAUSE, HttpFilter, RouteChanged
from sidecar.core.sendable import sendable_fields
from sidecar.core.stream_info import StreamInfo
from sidecar.core.timer_wheel import Callback
from sidecar.core.worker import Worker
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.filter_chain import FilterChain

log = logging.getLogger("sidecar.http")

RUNNING = -1  # where a direction stands when no filter holds it


class FilteredStream(StreamInfo):
    """What a stream knows of its filter chain; ``Stream`` adds what happens before and behind the filters."""

    __slots__ = (
        "chain",
        "filter_data",
        "held_request",
        "held_response",
        "local",
        "manager",
        "now",
        "over",
        "passing_data",
        "request_at",
        "request_ended",
        "response_at",
        "response_ended",
        "upstream",
        "worker",
    )  # fmt: skip

    request: RequestHead
    route: Any
    downstream: Any
    manager: ConnectionManager
    worker: Worker
    chain: FilterChain
    upstream: Any
    filter_data: dict[object, Any] | None
    local: bool
    held_request: list[bytes] | None
    held_response: list[bytes] | None
    now: float
    over: bool
    passing_data: bool
    request_ended: bool
    response_ended: bool
    request_at: int
    response_at: int

    def reset(self, details: str) -> None:
        """End the stream without a (further) response."""
        raise NotImplementedError

    def send_head(self, head: ResponseHead, end: bool) -> None:
        """Send the response's head: it has passed all filters."""
        raise NotImplementedError

    def response_sent(self) -> None:
        """The response has been sent whole."""
        raise NotImplementedError

    def on_response_head(self, head: ResponseHead, end: bool) -> None:
        """The response's head, from the router or from a local reply."""
        raise NotImplementedError

    def on_response_data(self, data: bytes, end: bool) -> None:
        """A piece of the response's body."""
        raise NotImplementedError

    # what filters may ask for

    @property
    def data(self) -> dict[object, Any]:
        """State of filters for this stream, keyed by the filter; made on first use."""
        data = self.filter_data
        if data is None:
            data = self.filter_data = {}
        return data

    @property
    def random(self) -> Random:
        return self.worker.random

    def reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        details: str,
        flags: int = 0,
        headers: Sequence[Field] = (),
        grpc_status: int | None = None,
        mutate: Callable[[Any], None] | None = None,
    ) -> bool:
        """Answer here. What went upstream is cancelled; if the response has begun, the stream is reset."""
        if self.over or (self.response_ended and self.response_at == RUNNING):
            return PAUSE
        self.response_ended = False
        if self.upstream is not None:
            upstream, self.upstream = self.upstream, None
            upstream.cancel()
        self.response_flags |= flags
        self.response_code_details = details
        if status == 400 and self.request.version != 20:  # as in Envoy: something is wrong with the client's messages
            self.downstream.close_after_response()
        if details == "request_payload_too_large":
            self.manager.stats.downstream_rq_too_large += 1
        if self.response is not None and self.response_at == RUNNING:
            self.reset(details)
            return PAUSE
        self.local = True
        if self.held_request:
            self._read_on()
        self.request_at = RUNNING
        self.response_at = RUNNING
        self.held_request = self.held_response = None
        head, body = self.manager.local_reply(self, status, body, headers, grpc_status)
        if mutate is not None:
            self.response = head
            mutate(self)
            sendable_fields(head)
        bodyless = self.request.method == b"HEAD" or not body
        self.on_response_head(head, bodyless)
        if not bodyless and not self.over:
            self.on_response_data(body, True)
        self.worker.cork.settle()  # whoever answers may do so from a task of its own
        return PAUSE

    def refuse(self, status: int, body: bytes, details: str) -> bool:
        """Answer, and close the connection after it."""
        self.downstream.close_after_response()
        return self.reply(status, body, details=details)

    def continue_request(self) -> None:
        """Tell a client that waits for it (``Expect: 100-continue``) to send the body."""
        if self.request.version != 10:
            self.downstream.send_informational(ResponseHead(100, []))
            self.worker.cork.settle()

    def clear_route_cache(self, filter: HttpFilter) -> None:
        """See ``FilterStream``."""
        at = self.request_at
        paused = None if at == RUNNING else self.chain.filters[at]
        if paused is None or (paused is not filter and getattr(paused, "inner", None) is not filter):
            raise RouteChanged
        self.find_route_again(at)

    def find_route_again(self, at: int) -> None:
        """Match the request once more, behind the filter at position ``at``."""
        from sidecar.http.rerouting import reroute  # only for those who ask

        try:
            reroute(self, at)
        except Exception:
            self.filter_failed()

    def resume_response(self) -> None:
        """Go on after the filter that paused the response."""
        at = self.response_at
        if at == RUNNING or self.over:
            return
        held, self.held_response = self.held_response, None
        head = self.response
        assert head is not None
        ended, self.response_ended = self.response_ended, False
        trailers = self.response_trailers if ended else None
        body = b"".join(held or ())
        try:
            for position, hook in self.chain.response:
                if position < at and hook(self, ended and not body and trailers is None):
                    self.response_at = position
                    if body or ended:
                        self._deliver(self.filter_response_data(body, ended, at), ended)
                    return
            for position, hook in self.chain.response_data:
                if position < at and (body or ended):
                    body = hook(self, body, ended)
        except Exception:
            self.filter_failed()
            return
        self.response_at = RUNNING
        sendable_fields(head)
        self.send_head(head, ended and not body and trailers is None)
        if not self.over:
            if body:
                self.bytes_sent += len(body)
                self.downstream.send_data(body, ended and trailers is None)
            if trailers is not None:
                self.end_with_trailers(trailers)
            elif body and ended:
                self.response_sent()
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    def _deliver(self, data: bytes | None, end: bool) -> None:
        """Send what has passed all filters, unless one of them has kept it."""
        if data is None or self.over or self.response_at != RUNNING:
            return
        trailers = self.response_trailers if end else None
        last = end and trailers is None
        if data or last:
            self.bytes_sent += len(data)
            self.downstream.send_data(data, last)
        if trailers is not None:
            self.end_with_trailers(trailers)
        elif end:
            self.response_sent()

    def call_in(self, delay: float, function: Callable[[], None]) -> Callback:
        """Call ``function`` in ``delay`` seconds, unless the stream is over by then."""

        def unless_over() -> None:
            if not self.over:
                self.now = self.worker.clock()
                function()
                if self.worker.cork.waiting:
                    self.worker.cork.pull()

        return self.worker.wheel.call_in(delay, unless_over)

    def resume_request(self) -> None:
        """Go on after the filter that paused the request."""
        at = self.request_at
        if at == RUNNING or self.over or self.response_ended:
            return
        self.now = self.worker.clock()
        chain = self.chain
        if self.held_request:
            self._read_on()
        held, self.held_request = self.held_request, None
        ended = self.request_ended
        passing = self.passing_data  # called from a data hook: what that returns follows, and the end with it
        has_body = passing or bool(held) or self.request_trailers is not None
        try:
            for position, hook in zip(chain.request_positions, chain.request, strict=True):
                if position > at and hook(self, ended and not has_body):
                    if not self.over and not self.response_ended:
                        self.request_at = position
                        self._hold(chain, b"".join(held or ()), at)
                    return
        except RouteChanged:
            self.request_at = position
            self._hold(chain, b"".join(held or ()), at)
            self.find_route_again(position)
            self.resume_request()
            return
        except Exception:
            self.filter_failed()
            return
        self.request_at = RUNNING
        self.manager.router.on_request(self, ended and not has_body)
        if held or (has_body and not passing):
            self.filter_request_data(b"".join(held or ()), ended and not passing, at + 1)
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    def go_elsewhere(self, hook: Any, end: bool) -> None:
        """A filter's hook has asked for the route to be found anew: go on behind it, on that route."""
        position = self.chain.filters.index(hook.__self__)
        self.find_route_again(position)
        if self.over or self.response_ended or self.local:
            return
        chain = self.chain
        try:
            for at, later in zip(chain.request_positions, chain.request, strict=True):
                if at > position and later(self, end):
                    self.paused_by(later)
                    return
        except RouteChanged:
            self.go_elsewhere(later, end)
            return
        except Exception:
            self.filter_failed()
            return
        self.manager.router.on_request(self, end)

    def _read_on(self) -> None:
        """What is held goes on, or nowhere: read the client again where there was too much of it."""
        if sum(map(len, self.held_request or ())) > self.manager.options.buffer_limit:
            self.downstream.resume_reading()

    def send_response_data(self, filter: HttpFilter, data: bytes, end: bool) -> None:
        """Go on with a piece of the response's body behind ``filter``, whose hook took it before and returned None."""
        if self.over:
            return
        after = self.chain.filters.index(filter)
        try:
            for position, hook in self.chain.response_data:
                if position < after:
                    passed = hook(self, data, end)
                    if passed is None or self.over:
                        return
                    data = passed
        except Exception:
            self.filter_failed()
            return
        self.bytes_sent += len(data)
        trailers = self.response_trailers
        if not end or trailers is None:
            self.downstream.send_data(data, end)
            if end:
                self.response_sent()
        else:
            if data:
                self.downstream.send_data(data, False)
            self.end_with_trailers(trailers)
        self.worker.cork.settle()

    def end_with_trailers(self, trailers: list[Field]) -> None:
        """The response's body has passed all filters: its trailers, as far as filters leave some of them."""
        try:
            for _, hook in self.chain.response_trailers:
                hook(self, trailers)
        except Exception:
            self.filter_failed()
            return
        if trailers:
            self.downstream.send_trailers(trailers)
        else:
            self.downstream.send_data(b"", True)
        self.response_sent()

    def paused_by(self, hook: Any) -> None:
        if self.over or self.response_ended:
            return
        chain = self.chain
        self.request_at = chain.request_positions[chain.request.index(hook)]
        if self.request_ended:
            self.held_request = []

    def _hold(self, chain: FilterChain, body: bytes, after: int) -> None:
        for position, hook in chain.request_data:
            if after < position <= self.request_at and body:
                body = hook(self, body, self.request_ended)
        self.held_request = [body] if body else []

    def filter_request_data(self, data: bytes, end: bool, first: int) -> None:
        chain = self.chain
        paused = self.request_at
        self.passing_data = paused != RUNNING
        try:
            for position, hook in chain.request_data:
                if position >= first and (paused == RUNNING or position <= paused):
                    data = hook(self, data, end)
                    if self.over or self.response_ended:
                        return
        except Exception:
            self.filter_failed()
            return
        self.passing_data = False
        if self.request_at != RUNNING:
            held = self.held_request
            if held is None:
                held = self.held_request = []
            if data:
                held.append(data)
            if sum(map(len, held)) > self.manager.options.buffer_limit:
                if chain.filters[self.request_at].back_pressure:
                    self.downstream.pause_reading()
                else:
                    self.reply(413, b"Payload Too Large", details="request_payload_too_large")
            return
        if paused != RUNNING:  # the hook resumed the request: what it returned follows what was held
            self.filter_request_data(data, end, paused + 1)
            return
        upstream = self.upstream
        if upstream is not None:
            if self.request_trailers is not None and end:
                if data:
                    upstream.on_request_data(data, False)
                upstream.on_request_trailers(self.request_trailers)
            elif data or end:
                upstream.on_request_data(data, end)

    def filter_response_data(self, data: bytes, end: bool, below: float = inf) -> bytes | None:
        """Take data through the filters below ``below``: what goes on, or None; where one pauses, it is kept here."""
        held_at = self.response_at
        for position, hook in self.chain.response_data:
            if position < below and (held_at == RUNNING or position >= held_at):
                passed = hook(self, data, end)
                if passed is None or self.over:
                    return None
                data = passed
        at = self.response_at
        if at != held_at:  # the hook resumed the response: what it returned follows what was held
            for position, hook in self.chain.response_data:
                if position < held_at and (at == RUNNING or position >= at):
                    passed = hook(self, data, end)
                    if passed is None or self.over:
                        return None
                    data = passed
        if at != RUNNING:
            held = self.held_response
            if held is None:
                held = self.held_response = []
            if data:
                held.append(data)
            if end:
                self.response_ended = True
            if sum(map(len, held)) > self.manager.options.buffer_limit:
                self.reply(500, b"", details="response_payload_too_large")
        return data

    def filter_failed(self) -> None:
        """A filter raised: fail closed, and say which."""
        failed = "what prepares a request"
        at = sys.exc_info()[2]
        while at is not None:
            hook = at.tb_frame.f_locals.get("hook")
            if hook is not None:
                failed = f"HTTP filter {hook.__self__.name}"
                break
            at = at.tb_next
        log.exception("%s failed; the request is answered with 500", failed)
        if self.over:
            return
        if self.downstream_first_tx:  # the response's head is on its way: what follows cannot be another
            self.response_code_details = "filter_failed"
            self.reset("filter_failed")
            return
        if self.response is not None and not self.response_ended:
            without_hooks = FilterChain(())
            without_hooks.complete = self.chain.complete
            self.chain = without_hooks
            self.response = None
        self.reply(500, b"", details="filter_failed")
