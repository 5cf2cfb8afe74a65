"""The contract between a stream and its HTTP filters: the base class that built-in and users' filters share.

One filter object serves every stream of a filter chain (and of a route, where the route has a configuration of its
own for it), so it keeps no state of a request in itself: ``stream.data`` is a dict for that, keyed by the filter.
The chain calls only the hooks that a class overrides; what is not overridden costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from sidecar.core.address import Address
from sidecar.core.explanation import OPEN, Step
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.stream_info import ConnectionInfo, NamedRoute
from sidecar.core.timer_wheel import Callback

PAUSE = True
"""What a hook returns to stop the chain: the filter has answered, or will resume the stream later."""


class RouteChanged(Exception):
    """How ``clear_route_cache`` leaves a hook that has not paused the request: whoever called the hook goes on elsewhere."""


class FilterStream(Protocol):
    """What a filter sees of the stream (``sidecar.http.stream.Stream``): all of ``StreamInfo``, and these."""

    connection: ConnectionInfo
    request: RequestHead
    response: ResponseHead | None
    response_trailers: list[Field] | None
    """Known by the last call of ``on_response_data``, which may turn them into data and empty the list."""
    response_ended: bool
    """Whether the whole response has been sent."""
    remote_address: Address
    route: NamedRoute | None
    response_code: int
    response_flags: int
    response_code_details: str
    dynamic_metadata: dict[str, dict[str, Any]] | None
    filter_state: dict[str, Any] | None
    over: bool
    """Whether the exchange has ended, in whatever way."""
    now: float
    """The worker's monotonic time of the read that is being handled, in seconds."""
    data: dict[object, Any]
    """Per-stream state of filters, keyed by the filter object."""
    random: Random

    def reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        details: str,
        flags: int = 0,
        headers: Sequence[Field] = (),
        grpc_status: int | None = None,
    ) -> bool:
        """Answer the request here (a local reply). Returns PAUSE, so that a hook may ``return stream.reply(...)``."""
        ...

    def resume_request(self) -> None:
        """Go on with the filter after the one that paused the request."""
        ...

    def resume_response(self) -> None:
        """Go on with the filter after the one that paused the response."""
        ...

    def clear_route_cache(self, filter: HttpFilter) -> None:
        """Look for the route anew, by the request as it is now: filters behind ``filter``, which asks for it, are those of
        that route. A filter that has paused the request resumes it afterwards; in ``on_request`` this is the last that
        a filter does, for it does not return (the request goes on behind the filter).
        """
        ...

    def call_in(self, delay: float, function: Callable[[], None]) -> Callback:
        """Call ``function`` in ``delay`` seconds unless the stream ends before."""
        ...

    def reset(self, details: str) -> None:
        """End the stream at once without a reply; the connection closes where the protocol needs that."""
        ...


class HttpFilter:
    """Base of all HTTP filters. Override what you need; a hook that raises ends the request with 500.

    Request hooks run in the order of the configuration, response hooks in reverse. A hook for a head returns None to go
    on or ``PAUSE`` to stop here. Hooks for data return the bytes that go on (``b""`` holds them back; what was held must
    be returned by the call with ``end`` true). While a filter pauses the head, data that arrives is kept by the stream
    (up to the buffer limit; then see ``back_pressure``, and 500 for responses), after passing through this filter's own
    data hook. That hook may resume the
    stream: what was held goes on then, followed by what the hook returns.
    """

    __slots__ = ()

    name = ""
    """The filter's name in the configuration, for logs and messages."""

    back_pressure = False
    """What happens to a request that this filter pauses when more of its body arrives than may be held: the client is read
    no further until the filter resumes it (True, for filters that do not wait for the body), or it gets 413."""

    keeps_streams = True
    """Whether the filter may look at a stream after its hooks have returned; if no filter does, streams serve again."""

    lets_pass = False
    """Whether every request passes this filter, whatever else the filter does; for explaining."""

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """The request's head is complete in ``stream.request``; ``end``: no body follows."""
        return None

    def on_request_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """A piece of the request's body."""
        return data

    def on_request_trailers(self, stream: FilterStream, trailers: list[Field]) -> None:
        """The request's trailers; they may be changed in place."""

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """The response's head is in ``stream.response`` (local replies pass here, too)."""
        return None

    def on_response_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """A piece of the response's body."""
        return data

    def on_response_trailers(self, stream: FilterStream, trailers: list[Field]) -> None:
        """The response's trailers; they may be changed in place."""

    def on_complete(self, stream: FilterStream) -> None:
        """The stream has ended, in whatever way; called once for every stream whose ``on_request`` was called."""

    def rehearse(self, stream: FilterStream) -> Step | None:
        """What would become of the request of a stream that goes nowhere (``sidecar.http.rehearsal``). Nothing is counted,
        asked or waited for; what the filter would leave for those after it (metadata, header fields) it leaves. None for a
        filter that lets all requests pass as they are.
        """
        if self.lets_pass or type(self).on_request is HttpFilter.on_request:
            return None
        text = f"http filter {self.name}: it may change, delay or answer the request: that is not told beforehand"
        return Step("http filter", self.name, OPEN, text)

    def close(self) -> None:
        """No new request comes here: end what goes on in the background. Requests under way may still need the filter."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
