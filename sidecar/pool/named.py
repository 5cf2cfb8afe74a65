"""Pools whose connections depend on the request: each name that TLS takes from requests has connections of its own.

Source: Envoy's `UpstreamHttpProtocolOptions` and how its cluster manager keys pools by `TransportSocketOptions`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from sidecar.core.head import RequestHead
from sidecar.core.tls_options import TransportSocketOptions
from sidecar.core.upstream import UpstreamSink, UpstreamStream

_MANY: Final = 32
"""Pools, after which a new one makes those go that nobody uses: names are the clients' to choose."""


class NamedPools:
    """The connections to one host. ``free`` tells the express lane that there is nothing for it here."""

    __slots__ = ("draining", "make", "names", "pools")

    free = ready = ()

    def __init__(
        self, names: Callable[[RequestHead], TransportSocketOptions], make: Callable[[TransportSocketOptions], Any]
    ) -> None:
        self.names = names
        self.make = make
        self.pools: dict[TransportSocketOptions, Any] = {}
        self.draining = False

    def acquire(self, sink: UpstreamSink, priority: int) -> UpstreamStream | None:
        """A stream that is ready now, or None: then ``sink`` hears of one, or of a failure."""
        options = self.names(sink.request)
        pool = self.pools.get(options)
        if pool is None:
            if len(self.pools) >= _MANY:
                self.pools = {known: pool for known, pool in self.pools.items() if pool.all or pool.pending}
            pool = self.pools[options] = self.make(options)
        found: UpstreamStream | None = pool.acquire(sink, priority)
        return found

    @property
    def pending(self) -> deque[Any]:
        """Who waits in any of them."""
        return deque(entry for pool in self.pools.values() for entry in pool.pending)

    @property
    def connecting(self) -> int:
        """How many connections are being made."""
        return sum(pool.connecting for pool in self.pools.values())

    def forget(self, sink: UpstreamSink) -> None:
        """``sink`` no longer waits."""
        for pool in self.pools.values():
            pool.forget(sink)

    def drain(self) -> None:
        """The host is gone or closing."""
        self.draining = True
        for pool in self.pools.values():
            pool.drain()

    def drain_connections(self) -> None:
        """The host fares badly: further requests get new connections."""
        for pool in self.pools.values():
            pool.drain_connections()

    def close(self) -> None:
        """End all connections now."""
        for pool in self.pools.values():
            pool.close()

    def __repr__(self) -> str:
        return f"<NamedPools {len(self.pools)} names>"
