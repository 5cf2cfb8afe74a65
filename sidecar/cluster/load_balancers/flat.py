"""ROUND_ROBIN, LEAST_REQUEST and RANDOM over one flat set of hosts: the last step, below priority and locality."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from random import Random
from typing import TYPE_CHECKING

from sidecar.cluster.context import Choose, LoadBalancerContext, Pick
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import Hosts, HostSets
from sidecar.cluster.load_balancers.edf import edf

if TYPE_CHECKING:
    from sidecar.cluster.load_balancers.slow_start import SlowStart

Refine = Callable[[LoadBalancerContext, Choose], Host | None]
"""Picks for a context that names hosts to avoid or one to prefer, choosing with the given function."""


class FlatPolicy:
    """A policy for flat sets: `chooser` for use below priorities and localities, `picker` for a whole cluster."""

    __slots__ = ("random", "slow_start")

    def __init__(self, random: Random, slow_start: SlowStart | None = None) -> None:
        self.random = random
        self.slow_start = slow_start

    def begin(self, host_sets: HostSets) -> None:
        """What follows is for these hosts, as they are now."""
        if self.slow_start is not None:
            self.slow_start.enter(host for host_set in host_sets for host in host_set.hosts)

    def chooser(self, hosts: Hosts) -> Choose:
        """A function that gives the next host of `hosts`."""
        if not hosts:
            return _nobody
        return self._chooser(hosts)

    def picker(self, hosts: Hosts, refine: Refine) -> Pick:
        """The same for a context, in one call."""
        choose = self.chooser(hosts)

        def pick(context: LoadBalancerContext) -> Host | None:
            if context.tried or context.override_host is not None:
                return refine(context, choose)
            return choose()

        return pick

    def _chooser(self, hosts: Hosts) -> Choose:
        raise NotImplementedError

    def _by_weight(self, hosts: Hosts) -> bool:
        """Whether the hosts have to be told apart: by their weights, or because some are new."""
        return _weights_differ(hosts) or (len(hosts) > 1 and self.slow_start is not None and self.slow_start.active)

    def _weighed(self, weight: Callable[[Host], float]) -> Callable[[Host], float]:
        return weight if self.slow_start is None else self.slow_start.scaled(weight)


class RoundRobin(FlatPolicy):
    """In turn; by weight where weights differ."""

    __slots__ = ()

    def _chooser(self, hosts: Hosts) -> Choose:
        if self._by_weight(hosts):
            return edf(hosts, self._weighed(_weight), self.random)
        start = self.random.randrange(len(hosts))
        return cycle(hosts[start:] + hosts[:start]).__next__


class RandomHost(FlatPolicy):
    """Any host, each as likely; weights count for nothing, as in Envoy."""

    __slots__ = ()

    def _chooser(self, hosts: Hosts) -> Choose:
        random, count = self.random.random, len(hosts)

        def choose() -> Host:
            return hosts[int(random() * count)]

        return choose


class LeastRequest(FlatPolicy):
    """The one with fewest active requests among `choice_count` random ones (P2C), or among all: a `full_scan`.

    Where weights differ: by weight / (active requests + 1) ** `active_request_bias`, earliest deadline first.
    """

    __slots__ = ("choice_count", "active_request_bias", "full_scan")

    def __init__(
        self,
        random: Random,
        choice_count: int = 2,
        active_request_bias: float = 1.0,
        full_scan: bool = False,
        slow_start: SlowStart | None = None,
    ) -> None:
        super().__init__(random, slow_start)
        self.choice_count = choice_count
        self.active_request_bias = active_request_bias
        self.full_scan = full_scan

    def picker(self, hosts: Hosts, refine: Refine) -> Pick:
        if not hosts or self.full_scan or self.choice_count != 2 or self._by_weight(hosts):
            return super().picker(hosts, refine)
        choose = self._chooser(hosts)
        random, count = self.random.random, len(hosts)

        def pick(context: LoadBalancerContext) -> Host | None:
            if context.tried or context.override_host is not None:
                return refine(context, choose)
            first = hosts[int(random() * count)]
            second = hosts[int(random() * count)]
            return second if second.rq_active < first.rq_active else first

        return pick

    def _chooser(self, hosts: Hosts) -> Choose:
        if self._by_weight(hosts):
            return edf(hosts, self._weighed(self._weight_function()), self.random)
        if self.full_scan:
            return self._scan(hosts)
        random, count, more = self.random.random, len(hosts), range(self.choice_count - 1)

        def choose() -> Host:
            best = hosts[int(random() * count)]
            for _ in more:
                other = hosts[int(random() * count)]
                if other.rq_active < best.rq_active:
                    best = other
            return best

        return choose

    def _scan(self, hosts: Hosts) -> Choose:
        """Of those that have the fewest, each is as likely."""
        random = self.random.random

        def choose() -> Host:
            loads = [host.rq_active for host in hosts]
            least = min(loads)
            at = loads.index(least)
            for _ in range(int(random() * loads.count(least))):
                at = loads.index(least, at + 1)
            return hosts[at]

        return choose

    def _weight_function(self) -> Callable[[Host], float]:
        bias = self.active_request_bias
        if bias == 1.0:
            return lambda host: host.weight / (host.rq_active + 1)
        if bias == 0.0:
            return _weight
        return lambda host: float(host.weight / (host.rq_active + 1) ** bias)


def _nobody() -> None:
    return None


def _weight(host: Host) -> float:
    return host.weight


def _weights_differ(hosts: Hosts) -> bool:
    return len({host.weight for host in hosts}) > 1
