"""The admission control filter: while many requests fail, a share of them is refused before it gets to the upstream.

Source: Envoy's ``extensions.filters.http.admission_control.v3.AdmissionControl``.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from sidecar.config.filters.admission_control import AdmissionControl
from sidecar.core.grpc import is_grpc_response, parse_grpc_status
from sidecar.core.head import Field
from sidecar.core.http_filter import FilterStream
from sidecar.filters.context import FilterContext, NamedFilter

DETAILS = "denied_by_admission_control"
_GRANULARITY = 1.0
_IN_TRAILERS = "in trailers"
_REFUSED = "refused"


class AdmissionControlStats(Protocol):
    """Statistics below `http.<stat_prefix>.admission_control.`, under Envoy's names."""

    rq_rejected: int
    rq_success: int
    rq_failure: int


class Window:
    """How many requests there were in the last seconds, and how many of them succeeded; kept second by second."""

    __slots__ = ("requests", "successes", "_parts", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._parts: deque[list[float]] = deque()  # since when, requests, successes
        self.requests = 0
        self.successes = 0

    def add(self, success: bool, now: float) -> None:
        """Count one that has ended."""
        self.update(now)
        newest = self._parts[-1]
        newest[1] += 1
        newest[2] += success
        self.requests += 1
        self.successes += success

    def update(self, now: float) -> None:
        """Forget what is too old."""
        parts = self._parts
        while parts and now - parts[0][0] >= self._seconds:
            _, requests, successes = parts.popleft()
            self.requests -= int(requests)
            self.successes -= int(successes)
        if not parts or now - parts[-1][0] >= _GRANULARITY:
            parts.append([now, 0, 0])

    def average_rps(self, now: float) -> int:
        """Requests a second, as Envoy has it: of whole seconds, and rounded down."""
        if not self._parts or not self.requests:
            return 0
        return self.requests // max(1, int(now - self._parts[0][0]))

    def __repr__(self) -> str:
        return f"<Window {self.successes} of {self.requests} successful>"


class AdmissionControlFilter(NamedFilter):
    """Judges responses, and refuses requests by what came of earlier ones."""

    __slots__ = ("stats", "window", "_clock", "_config", "_http", "_random")

    def __init__(self, name: str, config: AdmissionControl, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        worker = context.worker
        self._clock = worker.clock
        self._random = worker.random
        self._config = config
        self._http = frozenset(status for start, end in config.http_successes for status in range(start, end))
        self.stats: AdmissionControlStats = context.stats("admission_control")
        self.window = Window(config.sampling_window)

    def rejection_probability(self, now: float) -> float:
        """The share of the requests that is to be refused now."""
        config, window = self._config, self.window
        window.update(now)
        requests = window.requests
        threshold = config.sr_threshold
        accepted = window.successes / threshold if threshold else float(requests)
        share = max(0.0, (requests - accepted) / (requests + 1))
        if config.aggression != 1.0:
            share **= 1.0 / config.aggression
        return min(share, config.max_rejection_probability)

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Refuse the request, or let it through."""
        now = self._clock()
        if self.window.average_rps(now) < self._config.rps_threshold:
            return None
        if self._random.random() < self.rejection_probability(now):
            self.stats.rq_rejected += 1
            stream.data[self] = _REFUSED
            return stream.reply(503, details=DETAILS)
        return None

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Judge the response by its head, if that tells."""
        if stream.data.get(self) is _REFUSED:
            return None
        response = stream.response
        assert response is not None
        if is_grpc_response(response, end):
            status = response.index.get(b"grpc-status")
            if status is None:
                stream.data[self] = _IN_TRAILERS
            else:
                self._judged(parse_grpc_status(status) in self._config.grpc_successes)
        else:
            self._judged(response.status in self._http)
        return None

    def on_response_trailers(self, stream: FilterStream, trailers: list[Field]) -> None:
        """Judge a call by its trailers."""
        if stream.data.get(self) is _IN_TRAILERS:
            status = dict(trailers).get(b"grpc-status")
            self._judged(status is not None and parse_grpc_status(status) in self._config.grpc_successes)

    def _judged(self, success: bool) -> None:
        if success:
            self.stats.rq_success += 1
        else:
            self.stats.rq_failure += 1
        self.window.add(success, self._clock())
