"""Pools whose connections depend on the request: by the name that TLS takes from requests, and by what they offer by ALPN.

Source: Envoy's `UpstreamHttpProtocolOptions` and how its cluster manager keys pools by `TransportSocketOptions`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final

from sidecar.core.head import RequestHead
from sidecar.core.tls_options import TransportSocketOptions
from sidecar.core.upstream import UpstreamSink, UpstreamStream

_MANY: Final = 32
"""Pools, from which on those go, now and then, that nobody uses: names are the clients' to choose."""


class _Pools:
    """The connections to one host, in pools by ``key``. ``free`` tells the express lane that there is nothing for it here."""

    __slots__ = ("_sweep_at", "draining", "make", "pools")

    free = ready = ()
    by_offer = False

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make
        self.pools: dict[Any, Any] = {}
        self.draining = False
        self._sweep_at = _MANY

    def key(self, sink: UpstreamSink) -> Hashable:
        """What tells the pool that serves a request."""
        raise NotImplementedError

    def acquire(self, sink: UpstreamSink, priority: int) -> UpstreamStream | None:
        """A stream that is ready now, or None: then ``sink`` hears of one, or of a failure."""
        key = self.key(sink)
        pool = self.pools.get(key)
        if pool is None:
            if len(self.pools) >= self._sweep_at:
                self._sweep()
            pool = self.pools[key] = self.make(key)
            if self.draining:
                pool.drain()
        found: UpstreamStream | None = pool.acquire(sink, priority)
        return found

    def _sweep(self) -> None:
        """Let the pools go that nobody uses. The next time is when there are twice as many as stay, so that a new pool does not
        cost more the more there are.
        """
        self.pools = {known: pool for known, pool in self.pools.items() if pool.all or pool.pending}
        self._sweep_at = max(_MANY, 2 * len(self.pools))

    @property
    def all(self) -> set[Any]:
        """Every connection."""
        return set().union(*(pool.all for pool in self.pools.values()))

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
        return f"<{type(self).__name__} {len(self.pools)}>"


class NamedPools(_Pools):
    """By the names that ``names`` takes from requests."""

    __slots__ = ("names",)

    def __init__(
        self, names: Callable[[RequestHead], TransportSocketOptions], make: Callable[[TransportSocketOptions], Any]
    ) -> None:
        super().__init__(make)
        self.names = names

    def key(self, sink: UpstreamSink) -> Hashable:
        return self.names(sink.request)


class PoolsByOffer(_Pools):
    """By what connections offer by ALPN; ``usual``, if there is one, is for requests that leave it to the configuration."""

    __slots__ = ()

    by_offer = True

    def __init__(self, make: Callable[[tuple[str, ...]], Any], usual: Any) -> None:
        super().__init__(make)
        if usual is not None:
            self.pools[()] = usual

    def key(self, sink: UpstreamSink) -> Hashable:
        return sink.offers
