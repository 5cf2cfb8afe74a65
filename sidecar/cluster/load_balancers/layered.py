"""Priorities, panic and localities above the flat policies ROUND_ROBIN, LEAST_REQUEST and RANDOM.

The usual case, one priority that takes everything, costs nothing: the flat policy's own function is the cluster's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol

from sidecar.cluster.context import Choose, ClusterStats, LoadBalancerContext, Pick
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import Hosts, HostSet, HostSets, LocalityHosts
from sidecar.cluster.load_balancers.edf import edf
from sidecar.cluster.load_balancers.flat import FlatPolicy
from sidecar.cluster.load_balancers.priority_load import priority_load
from sidecar.cluster.load_balancers.refining import AcceptsOverride, refiner, usable

if TYPE_CHECKING:
    from sidecar.cluster.load_balancers.zone_aware import Routing, ZoneAware

Build = Generator[None, None, Pick]
"""Work that yields often, so that whoever drives it can stop before the loop is held too long."""


class Balancer(Protocol):
    """A load balancing policy with its options: compiles host sets into a function."""

    def build(self, host_sets: HostSets) -> Build:
        """Compile; run to its end for the function that picks."""
        ...


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What all policies of a cluster share (`common_lb_config`). `healthy_panic_threshold` is in percent; without a
    local cluster nothing is `zone_aware`.
    """

    random: Random
    stats: ClusterStats
    healthy_panic_threshold: float = 50.0
    fail_traffic_on_panic: bool = False
    locality_weighted: bool = False
    accepts_override: AcceptsOverride = usable
    zone_aware: ZoneAware | None = None


class LayeredBalancer:
    """Chooses priority, then locality if they are weighted or near, then lets the flat policy choose the host."""

    __slots__ = ("policy", "options")

    def __init__(self, policy: FlatPolicy, options: CommonOptions) -> None:
        self.policy = policy
        self.options = options

    def build(self, host_sets: HostSets) -> Build:
        return self._compiled(host_sets)
        yield

    def _compiled(self, host_sets: HostSets) -> Pick:
        options = self.options
        self.policy.begin(host_sets)
        load = priority_load(host_sets, options.healthy_panic_threshold)
        refine = refiner(host_sets, options.accepts_override)
        routing = None if options.zone_aware is None else options.zone_aware.routing(host_sets[0])
        only = load.only_priority
        if only is not None:
            choose_locality = self._locality_chooser(host_sets[only], False, routing)
            if choose_locality is None:
                return self.policy.picker(host_sets[only].healthy, refine)
            choose = choose_locality
        else:
            sources = [
                (self._panic_chooser(host_set),) * 2
                if load.panic[priority]
                else (self._chooser(host_set, False, routing), self._chooser(host_set, True, routing))
                for priority, host_set in enumerate(host_sets)
            ]
            random = options.random.random
            shares = [sources[priority][degraded] for priority, degraded in map(load.choose, range(100))]

            def choose() -> Host | None:
                return shares[int(random() * 100)]()

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

    def _chooser(self, host_set: HostSet, degraded: bool, routing: Routing | None) -> Choose:
        chooser = self._locality_chooser(host_set, degraded, routing)
        return chooser or self.policy.chooser(_eligible(host_set, degraded))

    def _locality_chooser(self, host_set: HostSet, degraded: bool, routing: Routing | None) -> Choose | None:
        """A function that chooses a locality first; None where localities count for nothing. `routing` is that of the
        first priority: as in Envoy, others go by no zones.
        """
        weights = locality_weights(host_set, degraded) if self.options.locality_weighted else {}
        zone_aware = self.options.zone_aware
        by_zones = zone_aware is not None and routing is not None and not host_set.priority
        if not weights and not by_zones:
            return None
        choosers = [self.policy.chooser(_eligible(part, degraded)) for part in host_set.localities]
        if weights:
            entries = [(weight, choosers[at]) for at, weight in weights.items()]
            next_entry: Callable[[], tuple[float, Choose]] = edf(entries, _first, self.options.random)
            return lambda: next_entry()[1]()
        assert zone_aware is not None and routing is not None
        return zone_aware.chooser(routing, choosers, self.policy.chooser(_eligible(host_set, degraded)))


def _eligible(hosts: HostSet | LocalityHosts, degraded: bool) -> Hosts:
    return hosts.degraded if degraded else hosts.healthy


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
