"""The fault filter: delays, aborts and slow responses on purpose, by configuration or by the request's headers.

Source: Envoy's ``extensions.filters.http.fault.v3.HTTPFault`` and "Fault Injection".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sidecar.config.core_types import Fraction
from sidecar.config.filters.fault import FaultAbort, FaultDelay, FaultRateLimit, FaultsOfCluster, HTTPFault
from sidecar.core import response_flags as flag
from sidecar.core.explanation import OPEN, PASSES, Step
from sidecar.core.head import RequestHead
from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.core.matching import compile_headers, parse_unsigned
from sidecar.core.timer_wheel import Callback
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.fraction import compile_fraction
from sidecar.filters.pacing import Pacer

BODY = b"fault filter abort"
DETAILS = "fault_filter_abort"
METADATA = "envoy.filters.http.fault"

_MOST_CLUSTERS = 1000  # named by clients: there is no telling what they send


class FaultStats(Protocol):
    """What the filter counts; the chain's instance and the routes' share one group."""

    aborts_injected: int
    delays_injected: int
    faults_overflow: int
    response_rl_injected: int
    active_faults: int


class FaultClusterStats(Protocol):
    """What it counts for each downstream cluster that names itself: ``counts`` by leaf name."""

    counts: dict[str, int]


class _State:
    """What the filter does to one stream."""

    __slots__ = ("active", "cluster", "pacer", "timer")

    def __init__(self) -> None:
        self.active = False
        self.cluster = b""
        self.pacer: Pacer | None = None
        self.timer: Callback | None = None


Roll = Callable[[FilterStream], bool]


def _compile_roll(percentage: Fraction, header: bytes, by_header: bool) -> Roll:
    """Whether a request is among ``percentage``, which ``header`` may lower where faults are asked for by header."""
    share = compile_fraction(percentage)
    if not by_header:
        return lambda stream: share(stream.random)
    numerator, denominator = percentage

    def roll(stream: FilterStream) -> bool:
        values = stream.request.get_all(header)
        asked = parse_unsigned(values[0]) if values else None
        if asked is None or asked >= 1 << 32:
            return share(stream.random)
        return stream.random.random() * denominator < min(asked, numerator)

    return roll


def _number(request: RequestHead, header: bytes) -> int | None:
    values = request.get_all(header)
    return parse_unsigned(values[0]) if values else None


def _compile_delay(config: FaultDelay | None) -> Callable[[FilterStream], float] | None:
    """The seconds to wait, 0.0 for none; None when there never is a delay."""
    if config is None or config.percentage[0] == 0 or config.fixed_delay == 0.0:
        return None
    fixed = config.fixed_delay
    may_lower = fixed is None and not config.percentage_is_fixed
    roll = _compile_roll(config.percentage, b"x-envoy-fault-delay-request-percentage", may_lower)
    if fixed is not None:
        return lambda stream: fixed if roll(stream) else 0.0
    instead = config.header_delay

    def delay(stream: FilterStream) -> float:
        asked = _number(stream.request, b"x-envoy-fault-delay-request") if roll(stream) else None
        return 0.0 if asked is None else asked / 1000 if instead is None else instead

    return delay


Abort = tuple[int, int | None]
"""HTTP status, and gRPC status if that is what was asked for."""


def _compile_abort(config: FaultAbort | None) -> Callable[[FilterStream], Abort | None] | None:
    """How to abort a request, None for not at all; None when nothing is ever aborted."""
    if config is None or config.percentage[0] == 0:
        return None
    by_header = config.http_status is None and config.grpc_status is None
    may_lower = by_header and not config.percentage_is_fixed
    roll = _compile_roll(config.percentage, b"x-envoy-fault-abort-request-percentage", may_lower)
    if by_header:
        return lambda stream: _abort_by_header(stream.request, config) if roll(stream) else None
    fixed = (200, config.grpc_status) if config.http_status is None else (config.http_status, None)
    return lambda stream: fixed if roll(stream) else None


def _abort_by_header(request: RequestHead, config: FaultAbort) -> Abort | None:
    status = _number(request, b"x-envoy-fault-abort-request")
    if status is not None and 200 <= status < 600:
        return config.header_http_status or status, None
    grpc_status = _number(request, b"x-envoy-fault-abort-grpc-request")
    if grpc_status is None:
        return None
    return 200, grpc_status if config.header_grpc_status is None else config.header_grpc_status


def _compile_limit(config: FaultRateLimit | None) -> Callable[[FilterStream], int] | None:
    """The KiB per second for a response, 0 for no limit; None when there never is one."""
    if config is None or config.percentage[0] == 0:
        return None
    fixed = config.limit_kbps
    may_lower = fixed is None and not config.percentage_is_fixed
    roll = _compile_roll(config.percentage, b"x-envoy-fault-throughput-response-percentage", may_lower)

    def limit(stream: FilterStream) -> int:
        if not roll(stream):
            return 0
        return fixed if fixed is not None else _number(stream.request, b"x-envoy-fault-throughput-response") or 0

    return limit


FindAbort = Callable[[FilterStream], Abort | None]

_Faults = tuple[Callable[[FilterStream], float] | None, FindAbort | None]
"""How long to wait, and how to abort."""


def _compile_faults(config: HTTPFault | FaultsOfCluster) -> _Faults:
    return _compile_delay(config.delay), _compile_abort(config.abort)


class FaultFilter(NamedFilter):
    """Delays and aborts. At most ``max_active_faults`` of the filter's faults are under way at one time."""

    __slots__ = ("_by_cluster", "_cluster", "_cluster_stats", "_faults", "_limit", "_metadata", "_most", "_nodes",
                 "_of_clusters", "_targets", "_wheel", "stats")  # fmt: skip

    back_pressure = True

    def __init__(self, name: str, config: HTTPFault, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        self.stats: FaultStats = context.stats("fault")
        self._wheel = context.worker.wheel
        self._cluster = config.upstream_cluster
        self._nodes = config.downstream_nodes
        self._targets = compile_headers(config.headers)
        self._most = config.max_active_faults
        self._faults = _compile_faults(config)
        self._of_clusters = {name: _compile_faults(one) for name, one in config.by_downstream_cluster.items()}
        self._metadata = config.filter_metadata
        self._limit = _compile_limit(config.response_rate_limit)
        self._cluster_stats = None if config.disable_downstream_cluster_stats else context.stats
        self._by_cluster: dict[bytes, FaultClusterStats] = {}

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``: a request that may be delayed or aborted leaves that to chance."""
        title = f"http filter {self.name}"
        if self._limit is None and not self._of_clusters and not any(self._faults):
            return None
        if not self._concerns(stream):
            return Step(
                "http filter", self.name, PASSES, f"{title}: passes: the request is none of those that it is for"
            )
        text = f"{title}: may delay the request, slow the response, or answer itself, by its percentages"
        return Step("http filter", self.name, OPEN, text)

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Delay or abort the request, and prepare a slow response, if the request is one of those that are meant."""
        return self._inject(stream) if self._concerns(stream) else None

    def _concerns(self, stream: FilterStream) -> bool:
        if self._targets is not None and not self._targets(stream.request):
            return False
        if self._cluster and getattr(stream.route, "cluster_name", None) != self._cluster:
            return False
        return not self._nodes or stream.request.get(b"x-envoy-downstream-service-node") in self._nodes

    def _inject(self, stream: FilterStream) -> bool | None:
        state = _State()
        state.cluster = stream.request.get(b"x-envoy-downstream-service-cluster") or b""
        if self._limit is not None:
            kbps = self._limit(stream)
            if kbps > 0 and self._activate(stream, state):
                self.stats.response_rl_injected += 1
                state.pacer = Pacer(self, kbps)
        find_delay, find_abort = self._faults if not self._of_clusters else self._faults_of(state)
        if find_delay is not None:
            delay = find_delay(stream)
            if delay > 0.0 and self._activate(stream, state):
                self.stats.delays_injected += 1
                self._publish(stream)
                self._count_for_cluster(state, delay=True)
                stream.response_flags |= flag.DELAY_INJECTED
                state.timer = stream.call_in(delay, lambda: self._delay_over(stream))
                return PAUSE
        return None if find_abort is None else self._maybe_abort(stream, state, find_abort)

    def _delay_over(self, stream: FilterStream) -> None:
        state: _State = stream.data[self]
        _, find_abort = self._faults_of(state)
        if find_abort is None or not self._maybe_abort(stream, state, find_abort):
            stream.resume_request()

    def _maybe_abort(self, stream: FilterStream, state: _State, find_abort: FindAbort) -> bool | None:
        abort = find_abort(stream)
        if abort is None or not self._activate(stream, state):
            return None
        status, grpc_status = abort
        self.stats.aborts_injected += 1
        self._publish(stream)
        self._count_for_cluster(state, delay=False)
        return stream.reply(status, BODY, details=DETAILS, flags=flag.FAULT_INJECTED, grpc_status=grpc_status)

    def _faults_of(self, state: _State) -> _Faults:
        of_clusters = self._of_clusters
        if not of_clusters or not state.cluster:
            return self._faults
        return of_clusters.get(state.cluster) or of_clusters[b""]

    def _publish(self, stream: FilterStream) -> None:
        metadata = stream.dynamic_metadata or {}
        stream.dynamic_metadata = {**metadata, METADATA: {**metadata.get(METADATA, {}), **self._metadata}}

    def _activate(self, stream: FilterStream, state: _State) -> bool:
        """Count the stream's faults as one that is under way; False when there are as many as there may be."""
        if not state.active:
            if self._most is not None and self.stats.active_faults >= self._most:
                self.stats.faults_overflow += 1
                return False
            self.stats.active_faults += 1
            state.active = True
            stream.data[self] = state
        return True

    def _count_for_cluster(self, state: _State, delay: bool) -> None:
        if not state.cluster or self._cluster_stats is None:
            return
        stats = self._by_cluster.get(state.cluster)
        if stats is None:
            if len(self._by_cluster) >= _MOST_CLUSTERS:
                return
            name = state.cluster.decode("utf-8", "backslashreplace")
            stats = self._by_cluster[state.cluster] = self._cluster_stats("fault_downstream_cluster", name)
        stats.counts["delays_injected" if delay else "aborts_injected"] += 1

    def on_complete(self, stream: FilterStream) -> None:
        """The stream's faults are over."""
        if self.stats.active_faults:
            state: _State | None = stream.data.pop(self, None)
            if state is not None:
                self.stats.active_faults -= 1
                for timer in (state.timer, None if state.pacer is None else state.pacer.close()):
                    if timer is not None:
                        self._wheel.cancel(timer)


class PacingFaultFilter(FaultFilter):
    """With a limit for responses: their bodies pass in slices."""

    __slots__ = ()

    def on_response_data(self, stream: Any, data: bytes, end: bool) -> Any:
        """Hold the body back where the response is to be slow."""
        pacer = self._pacer(stream)
        return data if pacer is None else pacer.take(stream, data, end)

    def _pacer(self, stream: FilterStream) -> Pacer | None:
        if not self.stats.active_faults:
            return None
        state: _State | None = stream.data.get(self)
        return None if state is None else state.pacer


def make_fault(config: HTTPFault, name: str, context: FilterContext) -> NamedFilter:
    """The smallest class that does what the configuration asks; what is at 0 percent stays there."""
    limit = config.response_rate_limit
    if limit is not None and limit.percentage[0] > 0:
        return PacingFaultFilter(name, config, context)
    faults = [_compile_faults(config), *map(_compile_faults, config.by_downstream_cluster.values())]
    return (
        FaultFilter(name, config, context)
        if any(faults_of != (None, None) for faults_of in faults)
        else NamedFilter(name)
    )
