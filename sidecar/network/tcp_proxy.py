"""The terminal `tcp_proxy`: chooses a cluster and a host for each connection, and relays bytes between the two.

Source: `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, Protocol

from sidecar.config.network_filters import TcpProxy as TcpProxyConfig
from sidecar.core.address import Address
from sidecar.core.matching import canonical
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker
from sidecar.network.relay import MakeFlow
from sidecar.network.tcp_session import TcpSession

AccessLogger = Callable[[StreamInfo], None]

Subset = tuple[tuple[str, str], ...]
"""What the metadata of a host must hold: keys in order, values in canonical form."""


class TcpProxyStats(Protocol):
    """`tcp.<stat_prefix>.`"""

    downstream_cx_no_route: int
    downstream_cx_rx_bytes_total: int
    downstream_cx_total: int
    downstream_cx_tx_bytes_total: int
    downstream_flow_control_paused_reading_total: int
    downstream_flow_control_resumed_reading_total: int
    idle_timeout: int
    max_downstream_connection_duration: int


class SocketDialer(Protocol):
    """Connects to the hosts of one cluster."""

    def dial_socket(
        self,
        address: Address,
        timeout: float,
        connected: Callable[[socket.socket | None, str, bool, Address | None], None],
        hostname: str = "",
        proxied: tuple[Address, Address] | None = None,
    ) -> Any:
        """Connect, then call ``connected`` with the socket or None, the failure, whether the time was over, and this
        end's address. ``proxied`` are the ends of the connection that it is for.
        """
        ...


class TcpProxy:
    """One proxy of one filter chain. ``cluster_of`` finds a cluster by name, ``dialer_of`` what dials its hosts.

    ``by_sni`` makes the TLS server name, where there is one, the name of the cluster (`sni_cluster`).
    """

    __slots__ = ("access_loggers", "buffer_limit", "by_sni", "choices", "cluster_of", "config", "dialer_of",
                 "make_flow", "sessions", "stats", "subset", "worker", "_thresholds")  # fmt: skip

    def __init__(
        self,
        config: TcpProxyConfig,
        worker: Worker,
        cluster_of: Callable[[str], Any],
        dialer_of: Callable[[Any, Any], SocketDialer],
        stats: TcpProxyStats,
        make_flow: MakeFlow,
        access_loggers: tuple[AccessLogger, ...] = (),
        buffer_limit: int = 1 << 20,
        by_sni: bool = False,
    ) -> None:
        self.config = config
        self.worker = worker
        self.cluster_of = cluster_of
        self.dialer_of = dialer_of
        self.stats = stats
        self.make_flow = make_flow
        self.access_loggers = access_loggers
        self.buffer_limit = buffer_limit
        self.by_sni = by_sni
        self.sessions: set[TcpSession] = set()
        self.subset = _subset(config.metadata_match)
        self.choices = [(choice.name, _subset(choice.metadata_match)) for choice in config.weighted_clusters]
        self._thresholds = list(accumulate(choice.weight for choice in config.weighted_clusters))

    def accept_socket(
        self, info: ConnectionInfo, sock: socket.socket, ended: Callable[[StreamInfo], None]
    ) -> TcpSession:
        """Serve a connection: a session that connects upstream, and relays until both sides have ended."""
        session = TcpSession(self, info, sock, ended)
        self.sessions.add(session)
        session.begin()
        return session

    def choose(self, info: ConnectionInfo) -> tuple[str, Subset | None]:
        """The name of the cluster for a connection, and which of its hosts may serve."""
        if self.by_sni and info.requested_server_name:
            return info.requested_server_name, self.subset
        if not self.choices:
            return self.config.cluster, self.subset
        point = self.worker.random.randrange(self._thresholds[-1])
        return self.choices[bisect_right(self._thresholds, point)]

    def drain(self) -> None:
        """Sessions go on: nothing can be said to a peer in the middle of bytes that are not understood."""

    def __repr__(self) -> str:
        return f"<TcpProxy {self.config.stat_prefix} {len(self.sessions)} sessions>"


def _subset(metadata: Mapping[str, Any]) -> Subset | None:
    return tuple((key, canonical(metadata[key])) for key in sorted(metadata)) or None
