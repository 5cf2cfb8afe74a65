"""The gRPC statistics filter: calls and their messages, counted by service and method below the cluster's statistics.

Source: Envoy's ``extensions.filters.http.grpc_stats.v3.FilterConfig``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sidecar.codec.grpc import MessageCounter
from sidecar.config.filters.grpc_stats import GrpcStats
from sidecar.core.grpc import is_grpc, is_grpc_response
from sidecar.core.head import Field
from sidecar.core.http_filter import FilterStream
from sidecar.core.matching import path_only
from sidecar.filters.context import FilterContext, NamedFilter

STATE = "envoy.filters.http.grpc_stats"
_MOST_METHODS = 10_000


class CallCounts(Protocol):
    """What is counted of one method's calls: ``counts`` by leaf name, and times in milliseconds."""

    counts: dict[str, int]
    upstream_rq_time: Any


Names = Callable[[str, str], tuple[str, str]]
"""From the service and the method that a path names to those in the statistics' names; both empty for no names."""


def service_and_method(path: bytes) -> tuple[str, str] | None:
    """What ``/service/method`` names, None for a path of another form."""
    parts = [part for part in path_only(path).decode("latin-1").split("/") if part]
    return (parts[0], parts[1]) if len(parts) == 2 else None


class CallStats:
    """Finds the statistics of a call. ``protocol`` is ``grpc`` or ``grpc-web``.

    Clients choose paths, so the names are bounded: those beyond the limit count without service and method.
    """

    __slots__ = ("_context", "_known", "_names", "_protocol")

    def __init__(self, context: FilterContext, protocol: str, names: Names) -> None:
        self._context = context
        self._protocol = protocol
        self._names = names
        self._known: dict[tuple[str, bytes], CallCounts | None] = {}

    def of(self, stream: Any) -> CallCounts | None:
        """The statistics of the call, None when it goes to no cluster or its path names no method."""
        cluster = stream.cluster_name or (stream.route.cluster_name if stream.route is not None else "")
        key = (cluster, path_only(stream.request.path))
        try:
            return self._known[key]
        except KeyError:
            return self._find(*key)

    def _find(self, cluster: str, path: bytes) -> CallCounts | None:
        named = service_and_method(path)
        name = self._context.cluster_stat_name(cluster)
        if named is None or name is None:
            return None
        full = len(self._known) >= _MOST_METHODS
        words = ("", "") if full else self._names(*named)
        found: CallCounts = self._context.stats("grpc", name, self._protocol, *words)
        if not full:
            self._known[cluster, path] = found
        return found


def charge(stats: CallCounts, status: bytes | None) -> None:
    """Count the end of a call: ``status`` is the ``grpc-status`` of a head or of trailers, None when there is none."""
    if status is not None:
        counts = stats.counts
        counts[status.decode("latin-1")] += 1
        counts["success" if status == b"0" else "failure"] += 1
        counts["total"] += 1


def charge_trailers(stats: CallCounts, trailers: list[Field]) -> None:
    """As ``charge``, for trailers."""
    charge(stats, dict(trailers).get(b"grpc-status"))


class _Call:
    """What the filter keeps of a call: ``stats`` is None where it does not count it."""

    __slots__ = ("bodyless", "grpc_response", "received", "sent", "stats")

    def __init__(self, stats: CallCounts | None) -> None:
        self.stats = stats
        self.received = MessageCounter()
        self.sent = MessageCounter()
        self.grpc_response = False
        self.bodyless = True


class CallState(dict[str, str]):
    """The numbers of messages as Envoy's ``FilterObject`` is written in JSON: strings, and nothing for 0.

    ``plain`` is for ``%FILTER_STATE(envoy.filters.http.grpc_stats:PLAIN)%``.
    """

    __slots__ = ("plain",)

    def __init__(self, received: int, sent: int) -> None:
        self.plain = f"{received},{sent}"
        if received:
            self["request_message_count"] = str(received)
        if sent:
            self["response_message_count"] = str(sent)


class GrpcStatsFilter(NamedFilter):
    """Counts; changes nothing."""

    __slots__ = ("_emit", "_stats", "_upstream")

    lets_pass = True

    def __init__(self, name: str, config: GrpcStats, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        self._stats = CallStats(context, "grpc", _names(config))
        self._emit = config.emit_filter_state
        self._upstream = config.upstream_stats

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Find the statistics of the call."""
        if is_grpc(stream.request):
            stream.data[self] = _Call(self._stats.of(stream))
        return None

    def on_request_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Count the client's messages."""
        call: _Call | None = stream.data.get(self)
        if call is not None:
            begun = call.received.feed(data)
            if begun:
                self._count(stream, call, "request_message_count", begun)
        return data

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Count the status of a trailers-only response."""
        call: _Call | None = stream.data.get(self)
        response = stream.response
        if response is None:
            return None
        grpc_response = is_grpc_response(response, end)
        if call is None and grpc_response and self._emit:
            call = stream.data[self] = _Call(None)  # the state tells of messages whatever the request was
        if call is not None:
            call.grpc_response = grpc_response
            if call.stats is not None:
                charge(call.stats, response.index.get(b"grpc-status"))
                if end:
                    self._measure(stream, call.stats)
        return None

    def on_response_data(self, stream: FilterStream, data: bytes, end: bool) -> bytes:
        """Count the server's messages."""
        call: _Call | None = stream.data.get(self)
        if call is None:
            return data
        if data:
            call.bodyless = False
            begun = call.sent.feed(data) if call.grpc_response else 0
            if begun:
                self._count(stream, call, "response_message_count", begun)
        if end and call.stats is not None:
            if stream.response_trailers is not None:
                charge_trailers(call.stats, stream.response_trailers)
                self._measure(stream, call.stats)
            elif call.bodyless:
                self._measure(stream, call.stats)  # Envoy sees such a response end with its head
        return data

    def _count(self, stream: FilterStream, call: _Call, name: str, messages: int) -> None:
        if call.stats is not None:
            call.stats.counts[name] += messages
        if self._emit:
            if stream.filter_state is None:
                stream.filter_state = {}
            stream.filter_state[STATE] = CallState(call.received.count, call.sent.count)

    def _measure(self, stream: Any, stats: CallCounts) -> None:
        """How long the host took, from the last of the request to the last of the response."""
        sent, received = stream.upstream_last_tx, stream.upstream_last_rx
        if self._upstream and sent and received:
            stats.upstream_rq_time.record(max(0, int((received - sent) * 1000)))


def _names(config: GrpcStats) -> Names:
    methods, replace_dots, every = config.methods, config.replace_dots, config.all_methods

    def names(service: str, method: str) -> tuple[str, str]:
        if not every and method not in methods.get(service, ()):
            return "", ""
        return service.replace(".", "_") if replace_dots else service, method

    return names
