"""The rate limit filter: asks a service whether a request may pass, and holds it until there is an answer.

Source: Envoy's ``extensions.filters.http.ratelimit.v3.RateLimit``; the ``x-ratelimit-*`` headers are those of its
DRAFT_VERSION_03.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from sidecar.config.filters.ratelimit import HttpRateLimit, HttpRateLimitPerRoute
from sidecar.config.rate_limit import RateLimit
from sidecar.core import response_flags as flag
from sidecar.core.client import Exchange
from sidecar.core.explanation import OPEN, Step
from sidecar.core.head import Field, ResponseHead
from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.core.rate_limit_service import ERROR, OVER_LIMIT, Decision, RateLimitService, Status
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.fraction import compile_fraction
from sidecar.filters.rate_limit_actions import (
    Populate,
    cluster_of,
    compile_rate_limits,
    limits_of_route,
    no_descriptors,
)

DETAILS: Final = "request_rate_limited"
ERROR_DETAILS: Final = "rate_limiter_error"
METADATA: Final = "envoy.filters.http.ratelimit"
HITS_ADDEND: Final = "envoy.ratelimit.hits_addend"
"""The key of the filter state in which another filter says how many times a request counts."""

_RESOURCE_EXHAUSTED: Final = 8
_MOST_CLUSTERS: Final = 1000  # clients may name clusters where a header chooses them


class RateLimitStats(Protocol):
    """What is counted at the cluster that a request goes to: ``counts`` by leaf name."""

    counts: dict[str, int]


class _Call:
    """What the filter does to one stream; it is the sink of the service's decision."""

    __slots__ = ("answered", "asking", "exchange", "filter", "headers", "later", "stream")

    def __init__(self, filter: RateLimitFilter, later: Populate) -> None:
        self.filter = filter
        self.later = later
        self.stream: FilterStream | None = None  # while the service is asked
        self.exchange: Exchange | None = None
        self.asking = False  # the question is being sent
        self.answered = False  # by the filter
        self.headers: Sequence[Field] = ()  # for the response

    def on_decision(self, decision: Decision) -> None:
        stream, self.stream, self.exchange = self.stream, None, None
        assert stream is not None
        self.filter.on_decision(self, stream, decision)


class _Unheard:
    """The sink of calls whose answer nobody waits for."""

    __slots__ = ()

    def on_decision(self, decision: Decision) -> None:
        """The request is over."""


_UNHEARD: Final = _Unheard()


class RateLimitFilter(NamedFilter):
    """Asks for the requests that have descriptors; the others pass at once."""

    __slots__ = ("_add_response_headers", "_by_route", "_context", "_deny", "_domain", "_enabled", "_enforced", "_limits",
                 "_stats", "_vh_rate_limits", "config", "service")  # fmt: skip

    back_pressure = True

    def __init__(
        self,
        name: str,
        config: HttpRateLimit,
        context: FilterContext,
        service: RateLimitService,
        route: HttpRateLimitPerRoute | None = None,
    ) -> None:
        NamedFilter.__init__(self, name)
        route = route or HttpRateLimitPerRoute()
        self.config = config
        self.service = service
        self._context = context
        self._domain = route.domain or config.domain
        self._limits = route.rate_limits or config.rate_limits
        self._vh_rate_limits = route.vh_rate_limits
        self._enabled = compile_fraction(config.filter_enabled)
        self._enforced = compile_fraction(config.filter_enforced)
        self._deny = compile_fraction(config.failure_mode_deny)
        self._add_response_headers = context.header_mutation(config.response_headers_to_add)
        self._by_route: WeakKeyDictionary[Any, tuple[Populate, Populate]] = WeakKeyDictionary()
        self._stats: dict[str, RateLimitStats] = {}

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``: the service is not asked."""
        text = f"http filter {self.name}: asks {self.service!r} about requests that have descriptors"
        return Step("http filter", self.name, OPEN, text)

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Ask the service, and hold the request until it has decided."""
        if not self._enabled(stream.random):
            return None
        cluster = cluster_of(stream)
        if not cluster or self._context.cluster_stat_name(cluster) is None:
            return None
        now, later = self._by_route.get(stream.route) or self._compile(stream.route)
        descriptors = now(stream) if self._is_of_type(stream) else ()
        if not descriptors and later is no_descriptors:
            return None
        call = stream.data[self] = _Call(self, later)
        if not descriptors:
            return None
        call.stream = stream
        call.asking = True
        exchange = self.service.ask(self._domain, descriptors, _hits_addend(stream), call)
        call.asking = False
        if call.stream is None:  # decided already: nobody could be asked
            return PAUSE if call.answered else None
        call.exchange = exchange
        return PAUSE

    def on_decision(self, call: _Call, stream: FilterStream, decision: Decision) -> None:
        """Let the request go on, or refuse it."""
        config, outcome = self.config, decision.outcome
        stream.now = self._context.worker.clock()
        cluster = cluster_of(stream)
        counts = self._stats_of(cluster).counts
        counts[outcome] += 1
        if decision.dynamic_metadata:
            metadata = stream.dynamic_metadata or {}
            own = {**metadata.get(METADATA, {}), **decision.dynamic_metadata}
            stream.dynamic_metadata = {**metadata, METADATA: own}
        headers = list(decision.response_headers)
        if outcome == OVER_LIMIT:
            self._context.count_response(cluster, config.rate_limited_status)
            if not config.disable_x_envoy_ratelimited_header:
                headers.append((b"x-envoy-ratelimited", b"true"))
        if config.enable_x_ratelimit_headers:
            headers += _announcement(decision.statuses)
        if outcome == OVER_LIMIT and self._enforced(stream.random):
            self._refuse(call, stream, decision, headers)
        elif outcome == ERROR and self._deny(stream.random):
            call.headers = headers
            call.answered = True
            stream.reply(config.status_on_error, details=ERROR_DETAILS, flags=flag.RATE_LIMIT_SERVICE_ERROR)
        else:
            if outcome == ERROR:
                counts["failure_mode_allowed"] += 1
            call.headers = headers
            for name, value in decision.request_headers:
                stream.request.add(name, value)
            if not call.asking:
                stream.resume_request()
        if not call.asking:
            self._context.worker.cork.settle()

    def _refuse(self, call: _Call, stream: FilterStream, decision: Decision, headers: list[Field]) -> None:
        config = self.config
        call.answered = True
        if self._add_response_headers is not None:
            self._add_response_headers(ResponseHead(config.rate_limited_status, headers), stream)
        stream.reply(
            config.rate_limited_status,
            decision.body,
            details=DETAILS,
            flags=flag.RATE_LIMITED,
            headers=headers,
            grpc_status=_RESOURCE_EXHAUSTED if config.rate_limited_as_resource_exhausted else None,
        )

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Add what the service has sent for the client."""
        call: _Call | None = stream.data.get(self)
        if call is not None and stream.response is not None:
            headers, call.headers = call.headers, ()
            for name, value in headers:
                stream.response.add(name, value)
        return None

    def on_complete(self, stream: FilterStream) -> None:
        """Ask no longer; what counts once a request is over, counts now."""
        call: _Call | None = stream.data.pop(self, None)
        if call is None:
            return
        if call.stream is not None:
            call.stream = None
            if call.exchange is not None:
                call.exchange.cancel()
                call.exchange = None
            return
        descriptors = call.later(stream)
        if descriptors:
            self.service.ask(self._domain, descriptors, _hits_addend(stream), _UNHEARD)

    def _is_of_type(self, stream: FilterStream) -> bool:
        kind = self.config.request_type
        return kind == "both" or (stream.request.get(b"x-envoy-internal") == b"true") == (kind == "internal")

    def _compile(self, route: Any) -> tuple[Populate, Populate]:
        """What counts when a request of the route comes, and when it is over."""
        limits: Sequence[RateLimit] = self._limits
        if not limits:
            limits = limits_of_route(route, self.config.stage, self._vh_rate_limits)
        context = self._context
        now, later = (
            compile_rate_limits(
                [limit for limit in limits if limit.apply_on_stream_done is over],
                context.node_cluster,
                context.compile_format,
            )
            for over in (False, True)
        )
        self._by_route[route] = now, later
        return now, later

    def _stats_of(self, cluster: str) -> RateLimitStats:
        found = self._stats.get(cluster)
        if found is None:
            name = self._context.cluster_stat_name(cluster) or cluster
            found = self._context.stats("ratelimit", name, self.config.stat_prefix)
            if len(self._stats) < _MOST_CLUSTERS:
                self._stats[cluster] = found
        return found


def _hits_addend(stream: FilterStream) -> int:
    state = stream.filter_state
    hits = 0 if state is None else state.get(HITS_ADDEND, 0)
    return hits if isinstance(hits, int) and 0 <= hits < 1 << 32 else 0


def _announcement(statuses: Sequence[Status]) -> list[Field]:
    """The limit that is nearest, with the policy of all of them."""
    if not statuses:
        return []
    nearest = min(statuses, key=lambda status: status.limit_remaining)
    policy = "".join(
        f", {status.requests_per_unit};w={status.window}" + (f';name="{status.name}"' if status.name else "")
        for status in statuses
        if status.window
    )
    return [
        (b"x-ratelimit-limit", f"{nearest.requests_per_unit}{policy}".encode()),
        (b"x-ratelimit-remaining", b"%d" % nearest.limit_remaining),
        (b"x-ratelimit-reset", b"%d" % nearest.seconds_until_reset),
    ]


def make_rate_limit(config: HttpRateLimit, name: str, context: FilterContext) -> NamedFilter:
    """The chain's filter, with a client of its own."""
    return RateLimitFilter(
        name, config, context, RateLimitService(context.clients(), config.rate_limit_service, config.timeout)
    )


def make_route_rate_limit(
    base: RateLimitFilter, config: HttpRateLimitPerRoute, context: FilterContext
) -> RateLimitFilter:
    """The same for a route that has settings of its own; it asks the same service."""
    return RateLimitFilter(base.name, base.config, context, base.service, config)
