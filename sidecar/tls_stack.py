"""The composition root's part for TLS, loaded when a configuration names it: contexts, secrets, and who uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Final, Protocol

from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.listener import FilterChain as FilterChainConfig
from sidecar.config.tls_secret_file import load_certificate_secret, load_validation_secret
from sidecar.config.tls_secrets import Secret
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.timer_wheel import Timed
from sidecar.core.tls_options import OFFERING_HTTP1, TransportSocketOptions
from sidecar.core.worker import Worker
from sidecar.listener.client_hello import parse_client_hello
from sidecar.listener.terminal import ConnectionFilter, SocketTerminal
from sidecar.telemetry import tags
from sidecar.telemetry.groups.listener import ListenerStats
from sidecar.telemetry.groups.tls import TlsStats
from sidecar.telemetry.store import StatsStore
from sidecar.transport.bridge import SocketBridge
from sidecar.transport.downstream import DownstreamTls
from sidecar.transport.handshake_limit import HandshakeLimit
from sidecar.transport.inventory import certificates_of, first_end
from sidecar.transport.rotation import Rotation, SecretsOf
from sidecar.transport.secrets import Secrets
from sidecar.transport.upstream import UpstreamTls
from sidecar.transport.watching import FileWatcher

_DAY: Final = 86400


class _Inner(Protocol):
    """The terminal behind TLS."""

    def drain(self) -> None: ...


class TlsTerminal:
    """The terminal of a filter chain with TLS around it."""

    __slots__ = ("inner", "tls")

    def __init__(self, inner: _Inner, tls: DownstreamTls) -> None:
        self.inner = inner
        self.tls = tls

    def accept(self, info: ConnectionInfo) -> Any:
        """The protocol for a new connection: TLS, with the inner terminal's protocol inside when it is open."""
        return self.tls.accept(info)

    def drain(self) -> None:
        """Let every connection finish what it does; handshakes go on, and meet a terminal that drains."""
        self.inner.drain()

    def __repr__(self) -> str:
        return f"<TlsTerminal {self.tls!r} around {self.inner!r}>"


class TlsStack:
    """Makes the TLS of filter chains and clusters. What it makes raises TlsContextError, with its place in front."""

    def __init__(self, worker: Worker, store: StatsStore, static: Iterable[Secret]) -> None:
        self.worker = worker
        self.store = store
        self.watcher = FileWatcher(worker.wheel)
        self.secrets = Secrets(
            self.watcher,
            {secret.name: secret.value for secret in static},
            load_certificate_secret,
            load_validation_secret,
        )
        self.limit = HandshakeLimit()
        self.downstream: list[DownstreamTls] = []
        self.upstream: dict[str, UpstreamTls] = {}
        self._ends: dict[Rotation[Any], tuple[SecretsOf, float | None]] = {}

    def terminal(
        self,
        chain: FilterChainConfig,
        terminal: Any,
        judges: Sequence[ConnectionFilter],
        naming: tags.Naming,
        stats: ListenerStats,
        buffer_limit: int,
    ) -> TlsTerminal:
        """TLS around the terminal of a filter chain whose listener is called ``naming`` and counts in ``stats``.

        ``judges`` are the filters that decide on a connection when its handshake is done.
        """
        config = chain.transport_socket
        assert config is not None

        def timed_out() -> None:
            stats.downstream_cx_transport_socket_connect_timeout += 1

        accept: Callable[[ConnectionInfo], Any]
        if isinstance(terminal, SocketTerminal):
            accept = _bridging(terminal, self.worker, buffer_limit)
        else:
            accept = terminal.accept
        if judges:
            accept = _judging(accept, judges, self.worker)
        tls = DownstreamTls(
            config,
            self.secrets,
            self.store.shared(TlsStats, *naming.below("ssl.")),
            self.worker,
            self.limit,
            parse_client_hello,
            accept,
            chain.transport_socket_connect_timeout,
            timed_out,
        )
        self.downstream.append(tls)
        return TlsTerminal(terminal, tls)

    def add_cluster(self, config: ClusterConfig, options: TransportSocketOptions = OFFERING_HTTP1) -> None:
        """The TLS to the endpoints of a cluster; ``options`` say what its pools speak that bring none of their own."""
        context = config.transport_socket
        assert context is not None
        stats = self.store.shared(TlsStats, *tags.cluster(config.alt_stat_name).below("ssl."))
        self.upstream[config.name] = UpstreamTls(
            context, self.secrets, stats, self.worker, self.limit, options, config.per_connection_buffer_limit_bytes
        )

    def certificates(self, now: float) -> list[Any]:
        """What /certs shows, ``now`` being in seconds since the epoch."""
        return [certificates_of(rotation.secrets, now) for rotation in self._rotations()]

    def days_until_first_end(self, now: float) -> int | None:
        """The days until the first certificate ends; None without any."""
        first: float | None = None
        for rotation in self._rotations():
            known = self._ends.get(rotation)
            if known is None or known[0] is not rotation.secrets:  # read once for each version
                known = self._ends[rotation] = (rotation.secrets, first_end(rotation.secrets))
            end = known[1]
            if end is not None and (first is None or end < first):
                first = end
        return None if first is None else max(0, int((first - now) // _DAY))

    def _rotations(self) -> list[Rotation[Any]]:
        downstream: list[Rotation[Any]] = [one.rotation for one in self.downstream]
        return downstream + [one.rotation for one in self.upstream.values()]

    def close(self) -> None:
        """Watch files no more."""
        for downstream in self.downstream:
            downstream.close()
        for upstream in self.upstream.values():
            upstream.close()
        self.watcher.close()


class RefusedConnection(asyncio.Protocol, Timed):
    """A connection that a filter refused after its handshake, and that is closed ``delay`` seconds later."""

    __slots__ = ("delay", "transport", "worker")

    def __init__(self, worker: Worker, delay: float) -> None:
        self.due = inf
        self.worker = worker
        self.delay = delay
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.delay:
            self.worker.wheel.arm(self, self.worker.clock() + self.delay)
        else:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.worker.wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        self.transport.close()


def _judging(
    accept: Callable[[ConnectionInfo], Any], judges: Sequence[ConnectionFilter], worker: Worker
) -> Callable[[ConnectionInfo], Any]:
    """Asks the filters, then the terminal."""

    def judged(info: ConnectionInfo) -> Any:
        for judge in judges:
            delay = judge.on_new_connection(info)
            if delay is not None:
                return RefusedConnection(worker, delay)
        return accept(info)

    return judged


class BridgedSession:
    """A session on one end of a pair of sockets, whose other end is joined to TLS."""

    __slots__ = ("ended", "record", "session")

    def __init__(self) -> None:
        self.session: Any = None
        self.record: StreamInfo | None = None
        self.ended: Callable[[StreamInfo], None] | None = None

    def on_end(self, record: StreamInfo) -> None:
        """The session has closed its end."""
        self.record = record
        self.session = None
        if self.ended is not None:
            self.ended(record)

    def when_ended(self, ended: Callable[[StreamInfo], None]) -> None:
        """Call ``ended`` with the session's record, now if it has ended."""
        if self.record is not None:
            ended(self.record)
        else:
            self.ended = ended

    def abort(self) -> None:
        """End it at once."""
        if self.session is not None:
            self.session.abort()

    def __repr__(self) -> str:
        return f"<BridgedSession {self.session!r}>"


def _bridging(terminal: Any, worker: Worker, buffer_limit: int) -> Callable[[ConnectionInfo], SocketBridge]:
    """For a terminal that works on bare sockets: it gets one end of a pair."""

    def accept(info: ConnectionInfo) -> SocketBridge:
        bridge = SocketBridge(worker.loop, buffer_limit)
        bridged = info.session = BridgedSession()
        session = terminal.accept_socket(info, bridge.far, bridged.on_end)
        if bridged.record is None:
            bridged.session = session
        return bridge

    return accept
