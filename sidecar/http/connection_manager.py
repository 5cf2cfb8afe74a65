"""The HTTP connection manager: one per network filter in a filter chain, shared by its connections; compiled options.

Source: Envoy's ``extensions.filters.network.http_connection_manager.v3.HttpConnectionManager``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2_keepalive import NO_KEEPALIVE
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.wire import FieldLines
from sidecar.core.deadlines import Deadlines
from sidecar.core.head import RequestHead
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker
from sidecar.http.filter_chain import FilterChain

if TYPE_CHECKING:
    from sidecar.http.stream import Stream


_AGREED = ("h2", "http/1.1", "http/1.0")
"""What ALPN may settle."""


class Options:
    """What the hot path reads of the configuration; times in seconds, ``inf`` for none."""

    __slots__ = (
        "accept_http_10",
        "allow_absolute_url",
        "buffer_limit",
        "codec_type",
        "delayed_close_timeout",
        "drain_timeout",
        "forward_continue",
        "head_patience",
        "header_case",
        "http2",
        "idle_timeout",
        "keepalive",
        "max_connection_duration",
        "max_request_fields",
        "max_request_head_bytes",
        "max_requests",
        "max_stream_duration",
        "request_headers_timeout",
        "request_timeout",
        "stream_idle_timeout",
        "tells_overload",
        "trailers",
        "upgrades",
    )  # fmt: skip

    def __init__(self) -> None:
        self.idle_timeout = 3600.0
        self.stream_idle_timeout = 300.0
        self.request_timeout = inf
        self.request_headers_timeout = inf
        self.max_connection_duration = inf
        self.max_stream_duration = inf
        self.drain_timeout = 5.0
        self.delayed_close_timeout = 1.0
        self.max_requests = 0
        self.max_request_head_bytes = 60 * 1024
        self.max_request_fields = 100
        self.buffer_limit = 1 << 20
        self.trailers = False
        self.accept_http_10 = True
        self.allow_absolute_url = True
        self.upgrades: frozenset[bytes] = frozenset()
        self.header_case = "lower"
        self.codec_type = "AUTO"
        self.http2 = Http2Options()
        self.keepalive = NO_KEEPALIVE  # of HTTP/2 connections
        self.forward_continue = False  # interim responses go to the client
        self.tells_overload = False  # a client that is refused for load hears that it is ours
        self.head_patience = inf  # the shortest of the timeouts that run from a head's first byte


class Routes(Protocol):
    """The route table, as the stream uses it."""

    def match(self, request: Any, stream: Any) -> Any: ...


class Terminal(Protocol):
    """The router: what stands at the end of the filter chain."""

    def on_request(self, stream: Any, end: bool) -> None: ...


class Connection(Protocol):
    """A downstream connection. ``version`` is 11 or 20, or 0 while it is not known which protocol it speaks."""

    version: int
    info: ConnectionInfo

    def streams(self) -> int:
        """How many requests are under way."""
        ...

    def drain(self) -> None: ...


_EMPTY = FilterChain(())


def _no_chain(route: Any) -> FilterChain:
    """Of a connection manager that has ended."""
    return _EMPTY


def _no_filters(route: Any, places: Sequence[int]) -> list[Any]:
    return []


class ConnectionManager:
    """What the connections and streams of one HTTP connection manager share."""

    __slots__ = (
        "access_logs",
        "connections",
        "default_chain",
        "draining",
        "filters_at",
        "finish_response",
        "http2_stats",
        "judge",
        "judge_http2",
        "lane",
        "lines_seen",
        "listener_codes",
        "local_reply",
        "make_chain",
        "make_http1",
        "options",
        "prepare",
        "prepare_again",
        "router",
        "routes",
        "stats",
        "texts",
        "unused",
        "upgrade_chains",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        options: Options,
        stats: Any,
        listener_codes: Any,
        routes: Routes,
        default_chain: FilterChain,
        router: Terminal,
        prepare: Callable[[Stream], bool],
        finish_response: Callable[[Stream], None],
        access_logs: tuple[Callable[[StreamInfo], None], ...],
        local_reply: Callable[..., Any],
        lines_seen: FieldLines,
    ) -> None:
        self.worker = worker
        self.options = options
        self.stats = stats
        self.listener_codes = listener_codes
        self.routes = routes
        self.default_chain = default_chain
        self.router = router
        self.prepare = prepare
        self.prepare_again = prepare  # a request that has been prepared, and was sent elsewhere then
        self.finish_response = finish_response
        self.access_logs = access_logs
        self.local_reply = local_reply
        self.lines_seen = lines_seen
        self.texts = Texts()
        self.http2_stats: Any = None
        self.connections: set[Connection] = set()
        self.unused = Deadlines(worker, options.idle_timeout)  # of HTTP/1 connections that had no request yet
        self.upgrade_chains: dict[bytes, FilterChain] = {}
        self.judge: Callable[[RequestHead], None] | None = None  # of every request's head, as the codec has read it
        self.judge_http2: Callable[[RequestHead], None] | None = None
        self.make_chain: Callable[[Any], FilterChain] = lambda route: default_chain
        self.filters_at: Callable[[Any, Sequence[int]], list[Any]] = lambda route, places: []
        self.make_http1: Callable[[ConnectionManager, ConnectionInfo], Any] | None = None  # once there is one
        self.draining = False
        self.lane: Any = None  # the express lane, where the configuration has nothing that it could not take

    def accept(self, info: ConnectionInfo) -> Any:
        """The protocol for a new downstream connection: as configured, as agreed on by ALPN, or as its first bytes say."""
        codec_type = self.options.codec_type
        if codec_type == "AUTO":
            agreed = "" if info.tls is None else info.tls.application_protocol
            if agreed not in _AGREED:
                from sidecar.http.detection import UndecidedConnection

                return UndecidedConnection(self, info)
            return self.speaking(agreed == "h2", info)
        return self.speaking(codec_type == "HTTP2", info)

    def speaking(self, http2: bool, info: ConnectionInfo) -> Any:
        """The protocol for a connection that speaks HTTP/2, or HTTP/1."""
        if http2:
            from sidecar.http.http2_connection import Http2Connection

            return Http2Connection(self, info)
        if self.make_http1 is None:
            from sidecar.http.http1_connection import Http1Connection

            self.make_http1 = Http1Connection
        return self.make_http1(self, info)

    def chain_for(self, route: Any) -> FilterChain:
        """The chain of a route that says something to a filter, made when a request first takes that route."""
        chain = route.request_chain = self.make_chain(route)
        return chain

    def replace_lane(self, lane: Any) -> None:
        """Nothing holds any more that the express lane has learnt. Connections of HTTP/2 that are open go on without one."""
        if self.lane is not None:
            self.lane.end()
        self.lane = lane
        for connection in self.connections:
            if connection.version == 11:
                connection.kind = None if lane is None else lane.kind_of(connection.info)  # type: ignore[attr-defined]

    def end(self) -> None:
        """The last connection is gone, and no other one comes: let go of everything."""
        self.replace_lane(None)
        self.upgrade_chains.clear()
        self.make_chain = _no_chain
        self.filters_at = _no_filters

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)
        stats = self.stats
        if connection.version == 20:
            stats.downstream_cx_http2_total += 1
            stats.downstream_cx_http2_active += 1
        elif connection.version:
            stats.downstream_cx_http1_total += 1
            stats.downstream_cx_http1_active += 1
        stats.downstream_cx_total += 1
        stats.downstream_cx_active += 1
        if connection.info.tls is not None:
            stats.downstream_cx_ssl_total += 1
            stats.downstream_cx_ssl_active += 1

    def gave_way(self, connection: Connection) -> None:
        """It is known now what the connection speaks: the one that takes its place counts, and this does not."""
        self.connections.discard(connection)
        stats = self.stats
        stats.downstream_cx_total -= 1
        stats.downstream_cx_active -= 1
        if connection.info.tls is not None:
            stats.downstream_cx_ssl_total -= 1
            stats.downstream_cx_ssl_active -= 1

    def closed(self, connection: Connection, remote: bool, active: bool) -> None:
        self.connections.discard(connection)
        stats = self.stats
        stats.downstream_cx_active -= 1
        if connection.version == 20:
            stats.downstream_cx_http2_active -= 1
        elif connection.version:
            stats.downstream_cx_http1_active -= 1
        if connection.info.tls is not None:
            stats.downstream_cx_ssl_active -= 1
        stats.downstream_cx_destroy += 1
        stats.downstream_cx_length_ms.record(int((self.worker.clock() - connection.info.start) * 1000))
        if active:
            stats.downstream_cx_destroy_active_rq += 1
        if remote:
            stats.downstream_cx_destroy_remote += 1
            if active:
                stats.downstream_cx_destroy_remote_active_rq += 1
        else:
            stats.downstream_cx_destroy_local += 1
            if active:
                stats.downstream_cx_destroy_local_active_rq += 1

    def drain(self) -> None:
        """Let every connection finish what it does and close."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def __repr__(self) -> str:
        return f"<ConnectionManager {len(self.connections)} connections>"
