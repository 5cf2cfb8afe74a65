"""The real stack over memory: clients that send bytes, hosts that answer with bytes, and all that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest import mock

import orjson

import sidecar.stack
from sidecar.config.bootstrap import Bootstrap
from sidecar.core.address import Address
from sidecar.core.http_filter import HttpFilter
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.filters.context import FilterContext
from sidecar.server import load
from sidecar.stack import Stack
from sidecar.telemetry.stats import Kind
from sidecar.telemetry.store import StatsStore
from tests.sidecar.http.memory import MemoryDialer, MemoryLogFiles, MemoryLoop, MemoryTransport

TYPES = "type.googleapis.com/envoy.extensions."
LOG = "/log"
LOG_FORMAT = (
    "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"
)
EPOCH = 1_790_000_000.0

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def log_to(path: str, log_format: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An access log."""
    return {
        "name": "log",
        "typed_config": {
            "@type": TYPES + "access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": log_format,
        },
        **more,
    }


def http_filter(name: str, **config: Any) -> dict[str, Any]:
    """A built-in filter: ``http_filter("fault.v3.HTTPFault", ...)``."""
    return {"name": name.split(".")[0], "typed_config": {"@type": f"{TYPES}filters.http.{name}", **config}}


def user_filter(name: str, **config: Any) -> dict[str, Any]:
    """A filter of the test's own, by the name that ``Sidecar`` was given it under."""
    return {
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": f"type.googleapis.com/mizzen.filters.{name}",
            "value": config,
        },
    }


ROUTER = http_filter("router.v3.Router")
TO_UP = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}


def bootstrap(
    *,
    manager: Mapping[str, Any] | None = None,
    routes: list[dict[str, Any]] | None = None,
    filters: list[dict[str, Any]] | None = None,
    virtual_host: Mapping[str, Any] | None = None,
    route_configuration: Mapping[str, Any] | None = None,
    clusters: Mapping[str, Mapping[str, Any]] | None = None,
    listener: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One listener with one connection manager, "in"; every cluster of ``clusters`` has two hosts, "up" has one."""

    def cluster(number: int, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        ports = range(7000 + 10 * number, 7000 + 10 * number + (1 if name == "up" else 2))
        hosts = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in ports
        ]
        return {
            "name": name,
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
            **config,
        }

    hosts = {"name": "all", "domains": ["*"], "routes": routes or [TO_UP], **(virtual_host or {})}
    http = {
        "@type": TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "access_log": [log_to(LOG, {"text_format_source": {"inline_string": LOG_FORMAT}})],
        "route_config": {"name": "routes", "virtual_hosts": [hosts], **(route_configuration or {})},
        "http_filters": [*(filters or ()), ROUTER],
        **(manager or {}),
    }
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8000}},
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": http}]}],
                    **(listener or {}),
                }
            ],
            "clusters": [cluster(*one) for one in _numbered(clusters or {"up": {}})],
        }
    }


def _numbered(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    for number, (name, config) in enumerate(clusters.items()):
        yield number, name, config


@lru_cache(256)
def _loaded(text: bytes) -> Bootstrap:
    return load(None, text.decode())[0]


class Client:
    """A downstream connection, seen from the client."""

    def __init__(self, sidecar: Sidecar, number: int, remote: str) -> None:
        self.sidecar = sidecar
        info = ConnectionInfo(number, Address("127.0.0.1", 8000), Address(remote, 50000 + number), sidecar.loop.now)
        protocol = sidecar.manager.accept(info)
        self.transport = MemoryTransport(sidecar.loop, protocol, ("127.0.0.1", 8000))
        self.seen = 0
        protocol.connection_made(self.transport)

    @property
    def protocol(self) -> Any:
        """What serves the connection now."""
        return self.transport.protocol

    def send(self, *pieces: bytes) -> Client:
        """Send the pieces, each in a read of its own, and let the sidecar come to rest after each."""
        for piece in pieces:
            self.transport.receive(piece)
            self.sidecar.loop.settle()
        return self

    def receive(self) -> bytes:
        """What has come since the last call."""
        self.sidecar.loop.settle()
        new = bytes(self.transport.written[self.seen :])
        self.seen = len(self.transport.written)
        return new

    def close(self) -> None:
        """Close: the sidecar reads a FIN."""
        if not self.transport.closing:
            self.transport.finish()
        self.sidecar.loop.settle()

    def reset(self) -> None:
        """Send an RST."""
        if not self.transport.closing:
            self.transport.break_off()
        self.sidecar.loop.settle()

    @property
    def closed(self) -> bool:
        """Whether the sidecar has ended its side: with a FIN, or altogether."""
        return self.transport.half_closed or self.transport.closing


class Host:
    """An upstream connection, seen from the host."""

    def __init__(self, sidecar: Sidecar, transport: MemoryTransport) -> None:
        self.sidecar = sidecar
        self.transport = transport
        self.seen = 0

    def receive(self) -> bytes:
        """What has come since the last call."""
        self.sidecar.loop.settle()
        new = bytes(self.transport.written[self.seen :])
        self.seen = len(self.transport.written)
        return new

    def send(self, *pieces: bytes) -> Host:
        """Answer, each piece in a read of its own."""
        for piece in pieces:
            self.transport.receive(piece)
            self.sidecar.loop.settle()
        return self

    def close(self) -> None:
        if not self.transport.closing:
            self.transport.finish()
        self.sidecar.loop.settle()

    def reset(self) -> None:
        if not self.transport.closing:
            self.transport.break_off()
        self.sidecar.loop.settle()

    @property
    def closed(self) -> bool:
        return self.transport.closing


class MemoryStack(Stack):
    """The real stack; only dialling, log files and the search for users' filters are replaced."""

    def __init__(self, config: Bootstrap, worker: Worker, filters: Mapping[str, Callable[[Any], HttpFilter]]) -> None:
        self.memory_dialer = MemoryDialer(worker.loop)  # type: ignore[arg-type]
        self.user_filters = filters
        with mock.patch.object(sidecar.stack, "LogFiles", MemoryLogFiles):
            super().__init__(config, worker, StatsStore())

    def dialer(self, cluster: Any, host: Any) -> Any:
        return self.memory_dialer

    def filter_context(self, stat_prefix: str) -> FilterContext:
        context = super().filter_context(stat_prefix)
        context.entry_point_filters = self.user_filters.__getitem__
        return context


class Sidecar:
    """A stack from ``config``, with a clock that only the test moves."""

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        user_filters: Mapping[str, Callable[[Any], HttpFilter]] | None = None,
        **more: Any,
    ) -> None:
        self.loop = MemoryLoop()
        self.worker = Worker(self.loop, self.loop.time, lambda: EPOCH, seed=1)  # type: ignore[arg-type]
        self.worker.join_below = 16384
        self.loop.at_rest = self.nothing_waits
        self.stack = MemoryStack(_loaded(orjson.dumps(config or bootstrap(**more))), self.worker, user_filters or {})
        self.stack.clusters.start(lambda: None)
        (self.manager,) = self.stack.managers
        self.dialer = self.stack.memory_dialer
        self.clients: list[Client] = []

    def client(self, remote: str = "127.0.0.1") -> Client:
        """Another connection from ``remote``."""
        client = Client(self, len(self.clients) + 1, remote)
        self.clients.append(client)
        return client

    @property
    def hosts(self) -> list[Host]:
        """The upstream connections, in the order in which they were made."""
        self.loop.settle()
        if not hasattr(self, "_hosts"):
            self._hosts: list[Host] = []
        for transport in self.dialer.made[len(self._hosts) :]:
            self._hosts.append(Host(self, transport))
        return self._hosts

    @property
    def host(self) -> Host:
        """The only upstream connection."""
        (host,) = self.hosts
        return host

    def asked(self) -> list[tuple[Host, bytes]]:
        """The upstream connections over which something has come since the last call, and what."""
        return [(host, data) for host in self.hosts if (data := host.receive())]

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.advance(seconds)

    @property
    def log(self) -> list[str]:
        """The lines of the usual access log."""
        return [line.decode(errors="replace") for line in self.stack.log_files.lines.get(LOG, [])]  # type: ignore[attr-defined]

    def stat(self, name: str) -> int:
        """A counter or gauge by its full name. Raises KeyError."""
        value: int = self.stats(Kind.COUNTER, Kind.GAUGE)[name]
        return value

    def stats(self, *kinds: Kind) -> dict[str, Any]:
        """All statistics of ``kinds`` by name."""
        return {name: value for group in self.stack.store for name, value in group.samples(*kinds)}

    def used_stats(self) -> dict[str, Any]:
        """Everything in the statistics that is not zero; histograms as what they have collected."""
        for group in self.stack.store:
            for attribute in group.HISTOGRAMS:
                getattr(group, attribute).latch()
        everything = self.stats(Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM, Kind.TEXT_READOUT)
        found = {name: getattr(value, "cumulative", value) for name, value in everything.items()}
        return {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in found.items()
            if value and not name.startswith("server.memory")
        }

    def pools(self) -> list[Any]:
        """The state of all breakers, hosts, pools and upstream connections."""
        found: list[Any] = []
        for cluster in self.stack.clusters.clusters.values():
            found.append((cluster.name, [_numbers(breaker) for breaker in cluster.breakers]))
            for host in cluster.hosts:
                found.append((host.address.text, _numbers(host)))
                pool = host.pool
                http1 = getattr(pool, "http1", pool)
                if http1 is not None:
                    found.append(
                        (len(http1.idle), len(http1.all), len(http1.pending), http1.connecting, http1.draining)
                    )
                    order = [connection.id for connection in http1.idle]
                    connections = sorted(http1.all, key=lambda connection: connection.id)
                    found.append((order, [_connection_state(connection) for connection in connections]))
                http2 = getattr(pool, "http2", None)
                if http2 is not None:
                    found.append((len(http2.all), len(http2.pending), http2.connecting, http2.draining))
                    order = [connection.id for connection in http2.ready]
                    connections = sorted(http2.all, key=lambda connection: connection.id)
                    found.append((order, [_http2_connection_state(connection) for connection in connections]))
        return found

    def under_way(self) -> dict[str, int]:
        """Everything that counts what is in flight and is not zero."""
        found: dict[str, int] = {
            name: value
            for name, value in self.stats(Kind.GAUGE).items()
            if value
            and name.endswith(("_active", "rq_open", "cx_open", "rq_pending_open", "rq_retry_open"))
            and not name.endswith("ejections_active")
        }
        for cluster in self.stack.clusters.clusters.values():
            for number, breaker in enumerate(cluster.breakers):
                for what in ("rq_active", "rq_pending", "retries_active", "cx_active"):
                    if value := getattr(breaker, what):
                        found[f"{cluster.name}.breaker{number}.{what}"] = value
            for host in cluster.hosts:
                for what in ("rq_active", "cx_active"):
                    if value := getattr(host, what):
                        found[f"{host.address.text}.{what}"] = value
                for pool in (getattr(host.pool, "http1", host.pool), getattr(host.pool, "http2", None)):
                    if pool is not None and (pool.pending or pool.connecting or pool.all):
                        found[f"{host.address.text}.pool"] = len(pool.pending) + pool.connecting
        return found

    def nothing_waits(self) -> None:
        """What is collected to be written has somebody who writes it, whoever collected it (`sidecar.core.cork`)."""
        assert not self.worker.cork.waiting, f"nobody flushes {self.worker.cork.waiting}"

    def end(self) -> None:
        """Everybody leaves; then nothing may be under way, every request may have left one line, nothing may fail."""
        self.dialer.go_on()
        for client in self.clients:
            client.close()
        for host in self.hosts:
            host.close()
        self.advance(5.0)  # delayed closes, and looks at peers that are not being read from
        for client in self.clients:
            assert client.transport.lost, client.protocol
        assert not (left := self.under_way()), left
        assert self.loop.problems == []
        assert not self.worker.cork.waiting
        assert len(self.log) == (self.stat("http.in.downstream_rq_total") if self.manager.access_logs else 0)
        for transport in (*self.dialer.made, *(client.transport for client in self.clients)):
            transport.socket.close()


def _numbers(of: Any) -> dict[str, Any]:
    """Every slot that holds a plain value."""
    values = {name: getattr(of, name, None) for name in type(of).__slots__}
    return {name: value for name, value in values.items() if isinstance(value, (int, float, str, bool))}


def _connection_state(connection: Any) -> Any:
    reader = connection.reader
    return (
        connection.id, connection.requests, connection.closed, connection.paused, connection.full,
        connection.sink is None, connection.request_open, connection.idle_since, connection.opened,
        reader.state, reader.partial, reader.held, reader.keep_alive, bytes(connection.transport.written),
    )  # fmt: skip


def _http2_connection_state(connection: Any) -> Any:
    codec = connection.codec
    exchanges = [
        (one.stream_id, one.answered, one.complete, one.full, one.paused, one.request_ended, one.unconsumed)
        for one in connection.exchanges.values()
    ]
    return (
        connection.id, connection.requests, connection.closed, connection.full, connection.idle_since, connection.opened,
        exchanges, http2_codec_state(codec), codec.next_id,
    )  # fmt: skip


def http2_codec_state(codec: Any) -> Any:
    """What an HTTP/2 connection knows of its streams and windows."""
    streams = [
        (one.id, one.state, one.credit_in, one.credit_out, one.unreturned, one.expected,
         None if one.queue is None else (one.queued, one.ending, one.waiting, one.full, one.trailers))
        for one in codec.streams.values()
    ]  # fmt: skip
    return (
        streams, codec.window_in, codec.window_out, codec.unreturned, codec.state, codec.draining, codec.goaway_received,
        codec.opened_streams, codec.resets, len(codec.waiting), codec.paused,
    )  # fmt: skip


@contextmanager
def running(*arguments: Any, **more: Any) -> Iterator[Sidecar]:
    """A sidecar that must be at rest in the end."""
    one = Sidecar(*arguments, **more)
    yield one
    one.end()
