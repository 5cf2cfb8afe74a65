"""Priorities, panic and locality weights above the flat policies ROUND_ROBIN, LEAST_REQUEST and RANDOM.

The usual case, one priority that takes everything, costs nothing: the flat policy's own function is the cluster's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Protocol

from sidecar.cluster.context import Choose, ClusterStats, LoadBalancerContext, Pick
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, HostSets
from sidecar.cluster.load_balancers.edf import edf
from sidecar.cluster.load_balancers.flat import FlatPolicy
from sidecar.cluster.load_balancers.priority_load import priority_load
from sidecar.cluster.load_balancers.refining import AcceptsOverride, refiner, usable

Build = Generator[None, None, Pick]
"""Work that yields often, so that whoever drives it can stop before the loop is held too long."""


class Balancer(Protocol):
    """A load balancing policy with its options: compiles host sets into a function."""

    def build(self, host_sets: HostSets) -> Build:
        """Compile; run to its end for the function that picks."""
        ...


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What all policies of a cluster share (`common_lb_config`). `healthy_panic_threshold` is in percent."""

    random: Random
    stats: ClusterStats
    healthy_panic_threshold: float = 50.0
    fail_traffic_on_panic: bool = False
    locality_weighted: bool = False
    accepts_override: AcceptsOverride = usable


class LayeredBalancer:
    """Chooses priority, then locality if they are weighted, then lets the flat policy choose the host."""

    __slots__ = ("policy", "options")

    def __init__(self, policy: FlatPolicy, options: CommonOptions) -> None:
        self.policy = policy
        self.options = options

    def build(self, host_sets: HostSets) -> Build:
        return self._compiled(host_sets)
        yield

    def _compiled(self, host_sets: HostSets) -> Pick:
        options = self.options
        load = priority_load(host_sets, options.healthy_panic_threshold)
        refine = refiner(host_sets, options.accepts_override)
        only = load.only_priority
        if only is not None:
            if not options.locality_weighted or not host_sets[only].localities:
                return self.policy.picker(host_sets[only].healthy, refine)
            choose = self._chooser(host_sets[only], False)
        else:
            sources = [
                (self._panic_chooser(host_set),) * 2
                if load.panic[priority]
                else (self._chooser(host_set, False), self._chooser(host_set, True))
                for priority, host_set in enumerate(host_sets)
            ]
            random, choose_priority = options.random.random, load.choose

            def choose() -> Host | None:
                priority, degraded = choose_priority(int(random() * 100))
                return sources[priority][degraded]()

        def pick(context: LoadBalancerContext) -> Host | None:
            if context.tried or context.override_host is not None:
                return refine(context, choose)
            return choose()

        return pick

    def _panic_chooser(self, host_set: HostSet) -> Choose:
        stats = self.options.stats
        inner = None if self.options.fail_traffic_on_panic else self.policy.chooser(host_set.hosts)

        def choose() -> Host | None:
            stats.lb_healthy_panic += 1
            return None if inner is None else inner()

        return choose

    def _chooser(self, host_set: HostSet, degraded: bool) -> Choose:
        if self.options.locality_weighted:
            weights = locality_weights(host_set, degraded)
            if weights:
                return self._locality_chooser(host_set, degraded, weights)
        return self.policy.chooser(host_set.degraded if degraded else host_set.healthy)

    def _locality_chooser(self, host_set: HostSet, degraded: bool, weights: dict[int, float]) -> Choose:
        entries: list[tuple[float, Choose]] = []
        for at, weight in weights.items():
            part = host_set.localities[at]
            entries.append((weight, self.policy.chooser(part.degraded if degraded else part.healthy)))
        next_entry: Callable[[], tuple[float, Choose]] = edf(entries, _first, self.options.random)
        return lambda: next_entry()[1]()


def _first(entry: tuple[float, Choose]) -> float:
    return entry[0]


def locality_weights(host_set: HostSet, degraded: bool = False) -> dict[int, float]:
    """The weight of each locality that gets traffic, by its place: less where too few of its hosts can take it.

    Source: Envoy's documentation, "Locality weighted load balancing".
    """
    weights: dict[int, float] = {}
    for at, part in enumerate(host_set.localities):
        eligible = part.degraded if degraded else part.healthy
        if part.weight and eligible:
            availability = host_set.overprovisioning_factor / 100.0 * len(eligible) / len(part.hosts)
            weights[at] = part.weight * min(1.0, availability)
    return weights
