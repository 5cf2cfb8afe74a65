"""MAGLEV: Google's lookup table as Envoy fills it, so that the same key finds the same host behind either proxy.

Source: "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4, with Envoy's weighting.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator

from xxhash import xxh64_intdigest

from sidecar.cluster.context import ClusterStats
from sidecar.cluster.host import Host
from sidecar.cluster.load_balancers.hashing import HashTable, WeightedHosts, hash_key_of

_AT_ONCE = 256
_MASK = 0xFFFFFFFFFFFFFFFF


class Table:
    """For each remainder of a hash, the place of its host in `hosts`. `fewest` and `most` are how many a host has."""

    __slots__ = ("places", "hosts", "fewest", "most")

    def __init__(self, places: array[int], hosts: list[Host]) -> None:
        self.places = places
        self.hosts = hosts
        self.fewest = self.most = 0

    def host(self, hash_key: int, attempt: int) -> Host | None:
        """The host for the hash; after refusals for another one, far from it."""
        if not self.hosts:
            return None
        if attempt:
            hash_key ^= _MASK - attempt + 1
        return self.hosts[self.places[hash_key % len(self.places)]]

    def publish(self, stats: ClusterStats) -> None:
        """Envoy's gauges below `maglev_lb.`"""
        stats.maglev_min_entries_per_host = self.fewest
        stats.maglev_max_entries_per_host = self.most


class Maglev:
    """The table's options; `table_size` must be a prime."""

    __slots__ = ("table_size", "use_hostname")

    def __init__(self, table_size: int = 65537, use_hostname: bool = False) -> None:
        self.table_size = table_size
        self.use_hostname = use_hostname

    def table(self, hosts: WeightedHosts) -> Generator[None, None, HashTable]:
        """Hosts take turns in the order of their keys, lighter ones not every turn; each takes the next free place of
        its own permutation.
        """
        size = self.table_size
        keyed = [(hash_key_of(host, self.use_hostname), host, weight) for host, weight in hosts]
        keyed.sort(key=_key)
        table = Table(array("L" if len(hosts) > 0xFFFF else "H"), [host for _, host, _ in keyed])
        if not hosts:
            return table
        places = array(table.places.typecode, bytes(table.places.itemsize * size))
        taken = bytearray(size)
        heaviest = max(weight for _, _, weight in keyed)
        at = [xxh64_intdigest(key) % size for key, _, _ in keyed]
        skips = [xxh64_intdigest(key, 1) % (size - 1) + 1 for key, _, _ in keyed]
        targets = [0.0] * len(keyed)
        shares = [weight for _, _, weight in keyed]
        filled, turn, steps = 0, 0, 0
        while filled < size:
            turn += 1
            for place, share in enumerate(shares):
                if turn * share < targets[place]:
                    continue
                targets[place] += heaviest
                spot, skip = at[place], skips[place]
                while taken[spot]:
                    spot += skip
                    if spot >= size:
                        spot -= size
                    steps += 1
                taken[spot] = 1
                places[spot] = place
                spot += skip
                at[place] = spot - size if spot >= size else spot
                filled += 1
                if filled == size:
                    break
                steps += 1
                if steps >= _AT_ONCE:
                    steps = 0
                    yield
        table.places = places
        table.fewest, table.most = round(min(targets) / heaviest), round(max(targets) / heaviest)
        return table


def _key(entry: tuple[bytes, Host, float]) -> bytes:
    return entry[0]
