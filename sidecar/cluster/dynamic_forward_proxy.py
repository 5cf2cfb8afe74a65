"""Dynamic forward proxies: the host is the one that the request names, as a cache of names knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.cluster.context import LoadBalancerContext, Pick
from sidecar.cluster.dns_cache import DnsCache, Entry
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, HostSets
from sidecar.cluster.load_balancers.layered import Build

if TYPE_CHECKING:
    from sidecar.cluster.cluster import Cluster


class DynamicForwardProxy:
    """Balancer and discovery of such a cluster in one. The filter of the same cache has the names looked up; what it does not
    know has no host. `default_port` stands behind names without one.
    """

    __slots__ = ("cache", "cluster", "default_port", "_clock", "_hosts")

    def __init__(self, cache: DnsCache, default_port: int, clock: Callable[[], float]) -> None:
        self.cache = cache
        self.cluster: Cluster | None = None
        self.default_port = default_port
        self._clock = clock
        self._hosts: dict[Entry, Host] = {}

    def start(self) -> None:
        """Take the names that are known already: another cluster's, or an older version's."""
        for entry in self.cache.watch(self):
            self._admit(entry)
        self.cache.start()
        self._publish()
        if self.cluster is not None:
            self.cluster.hosts_known()

    def close(self) -> None:
        """Forget the hosts, and leave the cache to others."""
        if self.cluster is not None:
            self.cluster = None
            self._hosts.clear()
            self.cache.unwatch(self)
            self.cache.release()

    def build(self, host_sets: HostSets) -> Build:
        """The same function, whatever hosts there are."""
        pick: Pick = self.pick
        return pick
        yield

    def pick(self, context: LoadBalancerContext) -> Host | None:
        """The host that the request names, if it was looked up and is healthy."""
        request = context.request
        entry = None if request is None else self.cache.known(request.authority, self.default_port)
        host = None if entry is None else self._hosts.get(entry)
        if entry is None or host is None or not host.usable:
            return None
        entry.used = self._clock()
        return host

    def on_address(self, entry: Entry) -> None:
        """A new host; or an old one's new connections go elsewhere, as those of LOGICAL_DNS."""
        host = self._hosts.get(entry)
        if host is None:
            self._admit(entry)
            self._publish()
        elif entry.address is not None:
            host.address = entry.address

    def on_gone(self, entry: Entry) -> None:
        """Nobody has asked for it for long."""
        if self._hosts.pop(entry, None) is not None:
            self._publish()

    def _admit(self, entry: Entry) -> None:
        if entry.address is not None:
            self._hosts[entry] = Host(entry.address, entry.key)

    def _publish(self) -> None:
        if self.cluster is not None:
            self.cluster.update((HostSet(0, tuple(self._hosts.values())),))

    def __repr__(self) -> str:
        return f"<DynamicForwardProxy {len(self._hosts)} hosts by {self.cache!r}>"
