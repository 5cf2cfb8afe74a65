"""RING_HASH: ketama's ring as Envoy builds it, so that the same key finds the same host behind either proxy."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Generator
from math import ceil

from xxhash import xxh64_intdigest

from sidecar.cluster.context import ClusterStats
from sidecar.cluster.host import Host
from sidecar.cluster.load_balancers.hashing import HashTable, WeightedHosts, hash_key_of
from sidecar.cluster.load_balancers.murmur_hash import murmur_hash_2

_AT_ONCE = 64
_PLACE_BITS = 24


class Ring:
    """Points on a circle of 2**64, in order, each with the place of its host in `hosts`.

    `fewest` and `most` are how many points a host has.
    """

    __slots__ = ("points", "places", "hosts", "fewest", "most")

    def __init__(self, points: array[int], places: array[int], hosts: list[Host]) -> None:
        self.points = points
        self.places = places
        self.hosts = hosts
        self.fewest = self.most = 0

    def host(self, hash_key: int, attempt: int) -> Host | None:
        """The host of the first point at or behind the hash; `attempt` points further on after refusals."""
        size = len(self.points)
        if not size:
            return None
        return self.hosts[self.places[(bisect_left(self.points, hash_key) + attempt) % size]]

    def publish(self, stats: ClusterStats) -> None:
        """Envoy's gauges below `ring_hash_lb.`"""
        stats.ring_hash_size = len(self.points)
        stats.ring_hash_min_hashes_per_host = self.fewest
        stats.ring_hash_max_hashes_per_host = self.most


class RingHash:
    """The ring's options: sizes in points; `hash_function` is XX_HASH or MURMUR_HASH_2."""

    __slots__ = ("minimum_ring_size", "maximum_ring_size", "use_hostname", "_hash")

    def __init__(
        self,
        minimum_ring_size: int = 1024,
        maximum_ring_size: int = 8388608,
        hash_function: str = "XX_HASH",
        use_hostname: bool = False,
    ) -> None:
        self.minimum_ring_size = minimum_ring_size
        self.maximum_ring_size = maximum_ring_size
        self.use_hostname = use_hostname
        self._hash: Callable[[bytes], int] = murmur_hash_2 if hash_function == "MURMUR_HASH_2" else xxh64_intdigest

    def table(self, hosts: WeightedHosts) -> Generator[None, None, HashTable]:
        """A host gets points `key_0`, `key_1`, ... in proportion to its weight, and the lightest host a whole number.

        Points are collected by their leading bits, so that no single sort is long.
        """
        points, places = array("Q"), array("L")
        ring = Ring(points, places, [host for host, _ in hosts])
        if not hosts:
            return ring
        lightest = min(weight for _, weight in hosts)
        scale = min(ceil(lightest * self.minimum_ring_size) / lightest, float(self.maximum_ring_size))
        bits = max(0, ceil(scale).bit_length() - 11)
        buckets: list[list[int]] = [[] for _ in range(1 << bits)]
        shift, digest = 64 - bits, self._hash
        made, target = 0, 0.0
        numbers: list[int] = []
        for place, (host, weight) in enumerate(hosts):
            key = hash_key_of(host, self.use_hostname) + b"_%d"
            target += scale * weight
            number = 0
            while made < target:
                point = digest(key % number)
                buckets[point >> shift].append(point << _PLACE_BITS | place)
                number += 1
                made += 1
                if not made % _AT_ONCE:
                    yield
            numbers.append(number)
        ring.fewest, ring.most = min(numbers), max(numbers)
        for bucket in buckets:
            bucket.sort()
            points.extend(entry >> _PLACE_BITS for entry in bucket)
            places.extend(entry & (1 << _PLACE_BITS) - 1 for entry in bucket)
            bucket.clear()
            yield
        return ring
