"""Letting a response's body pass slowly: a slice for each sixteenth of a second.

Source: Envoy's StreamRateLimiter, as its fault filter shows it.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.core.http_filter import FilterStream, HttpFilter
from sidecar.core.timer_wheel import Callback
from sidecar.core.token_bucket import TokenBucket

SLICES_PER_SECOND = 16
_FULL = 256 * 1024
"""Bytes that may wait here before no more are read from the upstream."""


class PacedStream(FilterStream, Protocol):
    """A stream of which a filter may give the response's body later than it came."""

    def send_response_data(self, filter: HttpFilter, data: bytes, end: bool) -> None:
        """Go on with ``data`` behind ``filter``, which took it before; with ``end``, trailers that came follow."""
        ...

    def on_downstream_full(self) -> None:
        """Read no more of the response for now."""
        ...

    def on_downstream_writable(self) -> None:
        """Go on reading the response."""
        ...


class Pacer:
    """The body of one response on its way. ``kbps`` are KiB per second."""

    __slots__ = ("_bucket", "_ended", "_filter", "_held", "_slice", "_stopped", "_timer")

    def __init__(self, filter: HttpFilter, kbps: int) -> None:
        self._filter = filter
        self._slice = kbps * 1024 // SLICES_PER_SECOND
        self._held = bytearray()
        self._ended = False
        self._stopped = False
        self._bucket: TokenBucket | None = None
        self._timer: Callback | None = None

    def take(self, stream: PacedStream, data: bytes, end: bool) -> bytes | None:
        """What of the body may pass now; None when that has been sent and more follows, the end too."""
        self._held += data
        self._ended = end
        if self._timer is not None:
            return None
        piece = self._next(stream)
        if not end:
            return piece
        if self._timer is None:
            return piece
        if piece:
            stream.send_response_data(self._filter, piece, False)
        return None

    def close(self) -> Callback | None:
        """Keep nothing more; the timer that is to be cancelled."""
        self._held.clear()
        return self._timer

    def _next(self, stream: PacedStream) -> bytes:
        """The bytes for which there are tokens; a timer for the others."""
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = TokenBucket(SLICES_PER_SECOND, SLICES_PER_SECOND, stream.now)
            bucket.tokens = 1.0  # the first slice at once, and no burst behind it
        held = self._held
        tokens = min(int(bucket.available(stream.now)), -(-len(held) // self._slice))
        if tokens:
            bucket.take(stream.now, tokens)
        piece = bytes(held[: tokens * self._slice])
        del held[: len(piece)]
        if held:
            self._timer = stream.call_in(max(bucket.seconds_until(1.0, stream.now), 0.001), lambda: self._go_on(stream))
        self._watch_size(stream)
        return piece

    def _go_on(self, stream: PacedStream) -> None:
        self._timer = None
        piece = self._next(stream)
        end = self._ended and self._timer is None
        if piece or end:
            stream.send_response_data(self._filter, piece, end)

    def _watch_size(self, stream: PacedStream) -> None:
        size = len(self._held)
        if size > _FULL and not self._ended:
            self._stopped = True
            stream.on_downstream_full()
        elif self._stopped and size <= _FULL // 2:
            self._stopped = False
            stream.on_downstream_writable()
