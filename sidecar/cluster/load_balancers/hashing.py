"""What RING_HASH and MAGLEV share: a table for each priority, and the way from a hash to a host."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from sidecar.cluster.context import ClusterStats, LoadBalancerContext, Pick
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import Hosts, HostSet, HostSets
from sidecar.cluster.load_balancers.layered import Build, CommonOptions
from sidecar.cluster.load_balancers.priority_load import priority_load
from sidecar.cluster.load_balancers.refining import override_finder
from sidecar.config.core_types import NO_METADATA

WeightedHosts = list[tuple[Host, float]]
"""Hosts with their share of the traffic; the shares add up to 1."""


class HashTable(Protocol):
    """Maps every 64-bit hash to a host. `attempt` counts the choices that were refused before for the same hash.

    `publish` sets the gauges that say how large it is, and how evenly the hosts share it.
    """

    def host(self, hash_key: int, attempt: int) -> Host | None: ...
    def publish(self, stats: ClusterStats) -> None: ...


class HashPolicy(Protocol):
    """Builds the table of one priority, yielding at least once in half a millisecond."""

    def table(self, hosts: WeightedHosts) -> Generator[None, None, HashTable]: ...


class HashBalancer:
    """Picks by the hash of the request (by a random one if it has none), the priority by the same hash."""

    __slots__ = ("policy", "options")

    def __init__(self, policy: HashPolicy, options: CommonOptions) -> None:
        self.policy = policy
        self.options = options

    def build(self, host_sets: HostSets) -> Build:
        options = self.options
        load = priority_load(host_sets, options.healthy_panic_threshold)
        tables: list[HashTable] = []
        for priority, host_set in enumerate(host_sets):
            weighted = weighted_hosts(host_set, load.panic[priority], options.locality_weighted)
            table = yield from self.policy.table(weighted)
            table.publish(options.stats)
            tables.append(table)
        find = override_finder(host_sets, options.accepts_override)
        getrandbits, stats, panic = options.random.getrandbits, options.stats, load.panic
        priorities = [priority for priority, _ in map(load.choose, range(100))]
        only = tables[0] if load.only_priority == 0 else None

        def pick(context: LoadBalancerContext) -> Host | None:
            wanted = context.override_host
            if wanted is not None:
                host = find(wanted.address)
                if host is not None or wanted.strict:
                    return host
            key = context.hash_key
            if key is None:
                key = getrandbits(64)
            if only is not None:
                chosen = only
            else:
                priority = priorities[key % 100]
                chosen = tables[priority]
                if panic[priority]:
                    stats.lb_healthy_panic += 1
            host = chosen.host(key, 0)
            tried = context.tried
            if tried:
                for attempt in range(1, context.host_selection_retry_max_attempts + 1):
                    if host is None or host not in tried:
                        break
                    host = chosen.host(key, attempt)
            return host

        result: Pick = pick
        return result


def hash_key_of(host: Host, use_hostname: bool) -> bytes:
    """What a host is hashed by: `hash_key` in its `envoy.lb` metadata, else its name if wanted, else its address."""
    configured = host.metadata.get("envoy.lb", NO_METADATA).get("hash_key")
    if isinstance(configured, str) and configured:
        return configured.encode()
    return (host.hostname if use_hostname else host.address.text).encode()


def weighted_hosts(host_set: HostSet, panic: bool, locality_weighted: bool) -> WeightedHosts:
    """The hosts of a priority that take traffic, with their shares; by locality first if localities are weighted."""
    total = sum(part.weight for part in host_set.localities) if locality_weighted else 0
    if not total:
        return _shares(host_set.hosts if panic else host_set.healthy, 1.0)
    weighted: WeightedHosts = []
    for part in host_set.localities:
        if part.weight:
            weighted += _shares(part.hosts if panic else part.healthy, part.weight / total)
    return weighted


def _shares(hosts: Hosts, share: float) -> WeightedHosts:
    total = sum(host.weight for host in hosts)
    return [(host, host.weight * share / total) for host in hosts]
