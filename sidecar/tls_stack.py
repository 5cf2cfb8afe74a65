"""The composition root's part for TLS, loaded when a configuration names it: contexts, secrets, and who uses them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.core_types import Metadata
from sidecar.config.listener import FilterChain as FilterChainConfig
from sidecar.config.tls import UpstreamTlsContext
from sidecar.config.tls_matches import match_for
from sidecar.config.tls_secret_file import load_certificate_secret, load_validation_secret
from sidecar.config.tls_secrets import Secret
from sidecar.core.tls_options import OFFERING_HTTP1, TransportSocketOptions
from sidecar.core.worker import Worker
from sidecar.listener.client_hello import parse_client_hello
from sidecar.listener.terminal import ConnectionFilter, SocketTerminal
from sidecar.telemetry import tags
from sidecar.telemetry.groups.listener import ListenerStats
from sidecar.telemetry.groups.tls import TlsStats
from sidecar.telemetry.store import StatsStore
from sidecar.transport.admission import Accept, judged_by
from sidecar.transport.bridged_session import bridging
from sidecar.transport.downstream import DownstreamTls
from sidecar.transport.handshake_limit import HandshakeLimit
from sidecar.transport.inventory import Inventory
from sidecar.transport.secrets import Secrets
from sidecar.transport.terminal import TlsTerminal
from sidecar.transport.upstream import UpstreamTls
from sidecar.transport.watching import FileWatcher


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
        self.upstream: dict[tuple[str, str], UpstreamTls] = {}  # by the names of the cluster and of the match
        self.inventory = Inventory()

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

        accept: Accept
        if isinstance(terminal, SocketTerminal):
            accept = bridging(terminal, self.worker, buffer_limit)
        else:
            accept = terminal.accept
        if judges:
            accept = judged_by(judges, accept, self.worker)
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
        self.inventory.add(tls.rotation)
        return TlsTerminal(terminal, tls)

    def add_cluster(self, config: ClusterConfig, options: TransportSocketOptions = OFFERING_HTTP1) -> None:
        """The TLS to the endpoints of a cluster; ``options`` say what its pools speak that bring none of their own."""
        self._add(config, "", config.transport_socket, options)
        for match in config.transport_socket_matches:
            self._add(config, match.name, match.transport_socket, options)

    def _add(
        self, config: ClusterConfig, match: str, context: UpstreamTlsContext | None, options: TransportSocketOptions
    ) -> None:
        if context is None:
            return
        stats = self.store.shared(TlsStats, *tags.cluster(config.alt_stat_name).below("ssl."))
        tls = self.upstream[config.name, match] = UpstreamTls(
            context, self.secrets, stats, self.worker, self.limit, options, config.per_connection_buffer_limit_bytes
        )
        self.inventory.add(tls.rotation)

    def of(self, config: ClusterConfig, metadata: Metadata) -> UpstreamTls | None:
        """The TLS to an endpoint with this metadata; None if it is spoken to plainly."""
        match = match_for(config.transport_socket_matches, metadata)
        return self.upstream.get((config.name, "" if match is None else match.name))

    def certificates(self, now: float) -> list[Any]:
        """What /certs shows, ``now`` being in seconds since the epoch."""
        return self.inventory.certificates(now)

    def days_until_first_end(self, now: float) -> int | None:
        """The days until the first certificate ends; None without any."""
        return self.inventory.days_until_first_end(now)

    def close(self) -> None:
        """Watch files no more."""
        for downstream in self.downstream:
            downstream.close()
        for upstream in self.upstream.values():
            upstream.close()
        self.watcher.close()
