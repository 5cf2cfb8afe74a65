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
from sidecar.core.waiting import Start
from sidecar.core.worker import Worker
from sidecar.listener.client_hello import parse_client_hello
from sidecar.listener.terminal import ConnectionFilter, SocketTerminal
from sidecar.telemetry import tags
from sidecar.telemetry.groups.listener import ListenerStats
from sidecar.telemetry.groups.tls import SslSocketFactoryStats, TlsStats
from sidecar.telemetry.store import StatsStore
from sidecar.transport.admission import Accept, judged_by
from sidecar.transport.bridged_session import bridging
from sidecar.transport.downstream import DownstreamTls
from sidecar.transport.handshake_limit import HandshakeLimit
from sidecar.transport.inventory import Inventory
from sidecar.transport.secrets import Discover, Secrets
from sidecar.transport.terminal import TlsTerminal
from sidecar.transport.upstream import UpstreamTls
from sidecar.transport.watching import FileWatcher


class TlsStack:
    """Makes the TLS of filter chains and clusters. What it makes raises TlsContextError, with its place in front."""

    def __init__(self, worker: Worker, store: StatsStore, static: Iterable[Secret], discover: Discover) -> None:
        self.worker = worker
        self.store = store
        self.watcher = FileWatcher(worker.wheel)
        self.secrets = Secrets(
            self.watcher,
            {secret.name: secret.value for secret in static},
            load_certificate_secret,
            load_validation_secret,
            discover,
        )
        self.limit = HandshakeLimit()
        self.downstream: list[DownstreamTls] = []
        self.upstream: dict[
            int, tuple[ClusterConfig, dict[str, UpstreamTls]]
        ] = {}  # of a cluster, by the name of the match
        self._variants: dict[int, ClusterConfig] = {}
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
            self.store.shared(SslSocketFactoryStats, *naming.below("server_ssl_socket_factory.")),
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

    def add_cluster(
        self,
        config: ClusterConfig,
        options: TransportSocketOptions = OFFERING_HTTP1,
        variant_of: ClusterConfig | None = None,
    ) -> None:
        """The TLS to the endpoints of a cluster; ``options`` say what its pools speak that bring none of their own.

        Two versions of a cluster are told apart. ``variant_of`` is the configuration that this one is made of, and goes with.
        """
        if variant_of is not None:
            self._variants[id(variant_of)] = config
        made: dict[str, UpstreamTls] = {}
        self.upstream[id(config)] = config, made
        self._add(made, config, "", config.transport_socket, options)
        for match in config.transport_socket_matches:
            self._add(made, config, match.name, match.transport_socket, options)

    def _add(
        self,
        made: dict[str, UpstreamTls],
        config: ClusterConfig,
        match: str,
        context: UpstreamTlsContext | None,
        options: TransportSocketOptions,
    ) -> None:
        if context is None:
            return
        naming = tags.cluster(config.alt_stat_name)
        stats = self.store.shared(TlsStats, *naming.below("ssl."))
        factory = self.store.shared(SslSocketFactoryStats, *naming.below("client_ssl_socket_factory."))
        tls = made[match] = UpstreamTls(
            context, self.secrets, stats, factory, self.worker, self.limit, options,
            config.per_connection_buffer_limit_bytes,
        )  # fmt: skip
        self.inventory.add(tls.rotation)

    def needs_of(self, config: ClusterConfig) -> list[Start]:
        """The secrets of a cluster that are discovered, to be asked for when it starts."""
        _, made = self.upstream.get(id(config), (config, {}))
        return [source.start for tls in made.values() for source in tls.rotation.discovered]

    def remove_cluster(self, config: ClusterConfig) -> None:
        """The cluster is gone; connections that are open go on."""
        variant = self._variants.pop(id(config), None)
        if variant is not None:
            self.remove_cluster(variant)
        _, made = self.upstream.pop(id(config), (config, {}))
        for tls in made.values():
            self.inventory.remove(tls.rotation)
            tls.close()

    def remove_downstream(self, tls: DownstreamTls) -> None:
        """The filter chain is gone; connections that are open go on."""
        self.downstream.remove(tls)
        self.inventory.remove(tls.rotation)
        tls.close()

    def of(self, config: ClusterConfig, metadata: Metadata) -> UpstreamTls | None:
        """The TLS to an endpoint with this metadata; None if it is spoken to plainly."""
        found = self.upstream.get(id(config))
        if found is None:
            return None
        match = match_for(config.transport_socket_matches, metadata)
        return found[1].get("" if match is None else match.name)

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
        for _, made in self.upstream.values():
            for upstream in made.values():
                upstream.close()
        self.watcher.close()
