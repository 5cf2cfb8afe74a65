"""Which endpoints are near: priorities and weights of localities, as one proxy sees them.

Source: https://istio.io/latest/docs/tasks/traffic-management/locality-load-balancing/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.model.proxy import Locality, Proxy
from controlplane.model.service import Endpoint


@dataclass(slots=True)
class Group:
    """Endpoints of one locality and priority, with the weight of all of them together."""

    locality: Locality
    endpoints: list[Endpoint]
    priority: int = 0
    weight: int = 0


def arrange(endpoints: Sequence[Endpoint], proxy: Proxy, settings: Any, *, failover: bool) -> list[Group]:
    """Endpoints by locality, in a stable order. ``settings`` is Istio's LocalityLoadBalancerSetting or None.

    With `distribute` for the proxy's locality weights are shares. Otherwise, where outlier detection can tell that
    endpoints fail (``failover``), what is farther has a lower priority.
    """
    by_locality: dict[Locality, Group] = {}
    for endpoint in endpoints:
        group = by_locality.get(endpoint.locality)
        if group is None:
            group = by_locality[endpoint.locality] = Group(endpoint.locality, [])
        group.endpoints.append(endpoint)
    groups = sorted(by_locality.values(), key=lambda g: (g.locality.region, g.locality.zone, g.locality.sub_zone))
    for group in groups:
        group.weight = total_weight(group.endpoints)
    if settings is None or not (proxy.locality.region or settings.failover_priority):
        return groups
    for rule in settings.distribute:
        if covers(rule.from_, proxy.locality):
            return _distributed(groups, rule.to)
    if settings.distribute or not failover:  # the two exclude each other
        return groups
    if settings.failover_priority:
        groups = _by_labels(groups, proxy, settings.failover_priority)
    return _by_distance(groups, proxy.locality, settings.failover, apart=bool(settings.failover_priority))


def total_weight(endpoints: Sequence[Endpoint]) -> int:
    """The weights of endpoints together; an endpoint without one weighs 1."""
    return sum(endpoint.weight or 1 for endpoint in endpoints)


def covers(pattern: str, locality: Locality) -> bool:
    """Whether `region/zone/subzone`, of which the last part may be `*` or parts may be left out, covers a locality."""
    parts = [part for part in pattern.split("/") if part != "*"]
    return parts == [locality.region, locality.zone, locality.sub_zone][: len(parts)]


def _distributed(groups: list[Group], to: Mapping[str, int]) -> list[Group]:
    """Each entry's share goes to the localities that it covers, by their weights; what none covers gets nothing."""
    kept: list[Group] = []
    for pattern, share in sorted(to.items(), key=lambda item: -item[0].count("/")):
        covered = [group for group in groups if covers(pattern, group.locality) and group not in kept]
        whole = sum(group.weight for group in covered)
        for group in covered:
            group.weight = max(1, round(share * group.weight / whole))
        kept += covered
    return [group for group in groups if group in kept]


def _by_labels(groups: list[Group], proxy: Proxy, priority: Sequence[str]) -> list[Group]:
    """By how many of the labels in order an endpoint has as the proxy has them: `key`, or `key=value` for a wanted value."""
    split: dict[tuple[int, int], Group] = {}
    for index, group in enumerate(groups):
        for endpoint in group.endpoints:
            rank = len(priority)
            for label in priority:
                name, given, value = label.partition("=")
                wanted = value if given else proxy.labels.get(name)
                if wanted is None or endpoint.labels.get(name) != wanted:
                    break
                rank -= 1
            found = split.get((rank, index))
            if found is None:
                found = split[rank, index] = Group(group.locality, [], rank)
            found.endpoints.append(endpoint)
    for group in split.values():
        group.weight = total_weight(group.endpoints)
    return [split[key] for key in sorted(split)]


def _by_distance(groups: list[Group], here: Locality, failover: Sequence[Any], *, apart: bool) -> list[Group]:
    """Same sub-zone, same zone, same region, the region that `failover` names, everything else.

    ``apart`` keeps priorities that are there already, and takes distance (by region and failover alone) within them.
    """
    targets = [rule.to for rule in failover if rule.from_ == here.region]
    for group in groups:
        there = group.locality
        if there == here:
            distance = 0
        elif (there.region, there.zone) == (here.region, here.zone):
            distance = 1
        elif there.region == here.region:
            distance = 2
        elif targets and there.region not in targets:
            distance = 4
        else:
            distance = 3
        group.priority = group.priority * 5 + (distance if not apart or failover else 0)
    order = {priority: rank for rank, priority in enumerate(sorted({group.priority for group in groups}))}
    for group in groups:
        group.priority = order[group.priority]  # Envoy wants priorities without gaps
    return groups
