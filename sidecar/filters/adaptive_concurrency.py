"""The adaptive concurrency filter: requests above a limit that follows the upstream's latency are refused.

Source: Envoy's ``extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency``.
"""

from __future__ import annotations

from sidecar.config.filters.adaptive_concurrency import AdaptiveConcurrency
from sidecar.core.http_filter import FilterStream
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.gradient_controller import GradientController

BODY = b"reached concurrency limit"
DETAILS = "reached_concurrency_limit"


class AdaptiveConcurrencyFilter(NamedFilter):
    """Lets requests through as the controller says, and tells it how long they took."""

    __slots__ = ("controller", "_clock", "_status")

    def __init__(self, name: str, config: AdaptiveConcurrency, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        worker = context.worker
        self._clock = worker.clock
        self._status = config.concurrency_limit_exceeded_status
        self.controller = GradientController(
            config.gradient_controller_config,
            context.stats("adaptive_concurrency"),
            worker.random_for("adaptive concurrency"),
            worker.clock(),
        )

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Let the request through, or refuse it."""
        now = self._clock()
        if not self.controller.admit(now):
            return stream.reply(self._status, BODY, details=DETAILS)
        stream.data[self] = now
        return None

    def on_complete(self, stream: FilterStream) -> None:
        """The request is no longer under way; how long it took counts if it got its whole response."""
        started: float | None = stream.data.pop(self, None)
        if started is None:
            return
        if stream.response_ended:
            self.controller.record(started, self._clock())
        else:
            self.controller.cancel()
