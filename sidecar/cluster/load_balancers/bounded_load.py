"""Bounded loads for RING_HASH and MAGLEV: a host that is far above its share passes requests on to another.

Source: Envoy's `consistent_hashing_lb_config.hash_balance_factor`; "Consistent Hashing with Bounded Loads".
"""

from __future__ import annotations

from collections.abc import Generator
from math import ceil
from random import Random

from sidecar.cluster.context import ClusterStats
from sidecar.cluster.host import Host
from sidecar.cluster.load_balancers.hashing import HashPolicy, HashTable, WeightedHosts


class BoundedTable:
    """A table whose hosts take at most `balance_factor` percent of their share of the active requests."""

    __slots__ = ("table", "hosts", "shares", "balance_factor")

    def __init__(self, table: HashTable, hosts: WeightedHosts, balance_factor: int) -> None:
        self.table = table
        self.hosts = hosts
        self.shares = dict(hosts)
        self.balance_factor = balance_factor

    def host(self, hash_key: int, attempt: int) -> Host | None:
        """The table's host, or the first below its bound in an order that the hash determines, or the least loaded."""
        chosen = self.table.host(hash_key, attempt)
        if chosen is None:
            return None
        slots = ((sum(host.rq_active for host in self.shares) + 1) * self.balance_factor + 99) // 100
        least = _load(chosen, slots, self.shares[chosen])
        if least <= 1.0:
            return chosen
        order = list(self.hosts)
        Random(hash_key).shuffle(order)
        for host, share in order:
            load = _load(host, slots, share)
            if load <= 1.0:
                return host
            if load < least:
                chosen, least = host, load
        return chosen

    def publish(self, stats: ClusterStats) -> None:
        """The table's own gauges."""
        self.table.publish(stats)


class BoundedLoad:
    """Puts the bound around another policy's tables."""

    __slots__ = ("policy", "balance_factor")

    def __init__(self, policy: HashPolicy, balance_factor: int) -> None:
        self.policy = policy
        self.balance_factor = balance_factor

    def table(self, hosts: WeightedHosts) -> Generator[None, None, HashTable]:
        """The other policy's table, bounded."""
        table = yield from self.policy.table(hosts)
        return BoundedTable(table, hosts, self.balance_factor)


def _load(host: Host, slots: int, share: float) -> float:
    return host.rq_active / max(1, ceil(slots * share))
