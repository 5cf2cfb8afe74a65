"""The network filter `ratelimit`: asks a service whether a connection may come, which waits for the answer, unread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from sidecar.config.core_types import Fraction
from sidecar.config.network_rate_limit import NetworkRateLimit
from sidecar.core.client import Exchange
from sidecar.core.connection_filter import ASKING, Decide
from sidecar.core.rate_limit_service import ERROR, OVER_LIMIT, Decision, RateLimitService
from sidecar.core.rate_limits import Descriptor
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker

METADATA: Final = "envoy.filters.network.ratelimit"

CompileFormat = Callable[[str], Callable[[Any], bytes]]


class RateLimitServiceStats(Protocol):
    """`ratelimit.<stat_prefix>.`"""

    cx_closed: int
    error: int
    failure_mode_allowed: int
    ok: int
    over_limit: int
    total: int
    active: int


class _Question:
    """What is asked of one connection; it hears the decision, and can be cancelled until then."""

    __slots__ = ("_decide", "_exchange", "_filter", "_info")

    def __init__(self, filter: RateLimit, info: ConnectionInfo, decide: Decide) -> None:
        self._filter = filter
        self._info = info
        self._decide = decide
        self._exchange: Exchange | None = None

    def ask(self, service: RateLimitService, domain: str, descriptors: tuple[Descriptor, ...]) -> None:
        self._filter.stats.active += 1
        self._exchange = service.ask(domain, descriptors, 0, self)

    def on_decision(self, decision: Decision) -> None:
        self._filter.stats.active -= 1
        self._decide(self._filter.judge(self._info, decision))

    def cancel(self) -> None:
        """The connection is gone."""
        if self._exchange is not None:
            self._filter.stats.active -= 1
            self._exchange.cancel()


class RateLimit:
    """Asks once for each connection, before a byte of it is read."""

    __slots__ = ("_descriptors", "_service", "_worker", "config", "stats")

    def __init__(
        self,
        config: NetworkRateLimit,
        stats: RateLimitServiceStats,
        service: RateLimitService,
        compile_format: CompileFormat,
        worker: Worker,
    ) -> None:
        self.config = config
        self.stats = stats
        self._service = service
        self._worker = worker
        self._descriptors = tuple(
            tuple((key.encode(), compile_format(value)) for key, value in entries) for entries in config.descriptors
        )

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        return ASKING if self._among(self.config.enabled) else None

    def ask(self, info: ConnectionInfo, decide: Decide) -> _Question:
        """Ask the service; ``decide`` may be called before this returns."""
        self.stats.total += 1
        record = StreamInfo(info, None, self._worker.epoch + info.start, info.start)
        descriptors = tuple(
            Descriptor(tuple((key, render(record)) for key, render in entries)) for entries in self._descriptors
        )
        question = _Question(self, info, decide)
        question.ask(self._service, self.config.domain, descriptors)
        return question

    def judge(self, info: ConnectionInfo, decision: Decision) -> float | None:
        """None to let the connection pass, else in how many seconds to close it."""
        stats, outcome = self.stats, decision.outcome
        if decision.dynamic_metadata:
            info.metadata = {**(info.metadata or {}), METADATA: decision.dynamic_metadata}
        if outcome == OVER_LIMIT:
            stats.over_limit += 1
            if not self._among(self.config.enforced):
                return None
        elif outcome == ERROR:
            stats.error += 1
            if not self.config.failure_mode_deny:
                stats.failure_mode_allowed += 1
                return None
        else:
            stats.ok += 1
            return None
        stats.cx_closed += 1
        return 0.0

    def on_close(self, info: ConnectionInfo) -> None:
        """Nothing is kept."""

    def _among(self, share: Fraction) -> bool:
        return share[0] >= share[1] or self._worker.random.random() * share[1] < share[0]

    def __repr__(self) -> str:
        return f"<RateLimit {self.config.stat_prefix} {self._service!r}>"
