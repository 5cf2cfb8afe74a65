"""How traffic is shared between priorities, by their health: Envoy's priority levels, overprovisioning and panic.

Source: Envoy's documentation, "Priority levels", "Degraded endpoints" and "Panic threshold".
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, HostSets


class PriorityLoad:
    """Percent of the traffic for each priority's healthy and degraded hosts (100 together), and which of them panic."""

    __slots__ = ("healthy", "degraded", "panic")

    def __init__(self, healthy: list[int], degraded: list[int], panic: list[bool]) -> None:
        self.healthy = healthy
        self.degraded = degraded
        self.panic = panic

    @property
    def only_priority(self) -> int | None:
        """The priority whose healthy hosts take all traffic, if there is one and it does not panic."""
        if 100 not in self.healthy:
            return None
        priority = self.healthy.index(100)
        return None if self.panic[priority] else priority

    def choose(self, hash_key: int) -> tuple[int, bool]:
        """The priority for this hash or random number, and whether its degraded hosts are meant."""
        point = hash_key % 100 + 1
        reached = 0
        for degraded, loads in enumerate((self.healthy, self.degraded)):
            for priority, load in enumerate(loads):
                reached += load
                if point <= reached:
                    return priority, bool(degraded)
        raise AssertionError("the loads of all priorities add up to less than 100")

    def __repr__(self) -> str:
        return f"<PriorityLoad healthy {self.healthy} degraded {self.degraded} panic {self.panic}>"


def priority_load(host_sets: HostSets, panic_threshold: float) -> PriorityLoad:
    """The load of each priority; `panic_threshold` in percent, 0 switches panic off."""
    availability = [_availability(host_set) for host_set in host_sets]
    healthy_availability = [healthy for healthy, _ in availability]
    degraded_availability = [degraded for _, degraded in availability]
    total = min(100, sum(healthy_availability) + sum(degraded_availability))
    count = len(host_sets)
    panic = [False] * count
    if total == 0:
        healthy, degraded = [0] * count, [0] * count
        if panic_threshold == 0:
            healthy[0] = 100
            return PriorityLoad(healthy, degraded, panic)
    else:
        healthy, degraded = _distribute(healthy_availability, degraded_availability, total)
    if total < 100:
        panic = [in_panic(host_set, panic_threshold) for host_set in host_sets]
        if all(panic):
            return PriorityLoad(_load_in_total_panic(host_sets), [0] * count, panic)
    return PriorityLoad(healthy, degraded, panic)


def _availability(host_set: HostSet) -> tuple[int, int]:
    """The health of a priority and how much its degraded hosts could take: percent, overprovisioned, at most 100."""
    total = len(host_set.hosts) - host_set.excluded
    if not total:
        return 0, 0
    healthy, degraded = len(host_set.healthy), len(host_set.degraded)
    if host_set.weighted_priority_health:
        total = _weight(host for host in host_set.hosts if not host.excluded)
        healthy, degraded = _weight(host_set.healthy), _weight(host_set.degraded)
    factor = host_set.overprovisioning_factor
    return min(100, factor * healthy // total), min(100, factor * degraded // total)


def _weight(hosts: Iterable[Host]) -> int:
    return sum(host.weight for host in hosts)


def _distribute(
    healthy_availability: list[int], degraded_availability: list[int], total: int
) -> tuple[list[int], list[int]]:
    left = 100
    loads: list[list[int]] = []
    for availabilities in (healthy_availability, degraded_availability):
        shares = []
        for availability in availabilities:
            share = min(left, availability * 100 // total)
            shares.append(share)
            left -= share
        loads.append(shares)
    healthy, degraded = loads
    if left:  # rounding: the first priority that is available takes it
        first = next((i for i, availability in enumerate(healthy_availability) if availability), None)
        if first is not None:
            healthy[first] += left
        else:
            degraded[next(i for i, availability in enumerate(degraded_availability) if availability)] += left
    return healthy, degraded


def in_panic(host_set: HostSet, panic_threshold: float) -> bool:
    """Whether fewer than so many percent of the hosts that count can be used."""
    count = len(host_set.hosts) - host_set.excluded
    usable = len(host_set.healthy) + len(host_set.degraded)
    return (100.0 * usable / count if count else 0.0) < panic_threshold


def _load_in_total_panic(host_sets: HostSets) -> list[int]:
    """Load by the number of hosts, healthy or not."""
    counts = [len(host_set.hosts) for host_set in host_sets]
    total = sum(counts)
    if not total:
        return [100] + [0] * (len(counts) - 1)
    loads = [100 * count // total for count in counts]
    loads[next(i for i, count in enumerate(counts) if count)] += 100 - sum(loads)
    return loads
