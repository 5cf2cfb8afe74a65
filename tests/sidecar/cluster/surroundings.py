"""What clusters need around them, in the hands of a test: a clock that stands still, statistics, contexts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import Any, TypeVar

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.context import ClusterStats, SubsetKey
from sidecar.cluster.dns import Answer, Resolver
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSets
from sidecar.cluster.load_balancers.layered import Balancer
from sidecar.cluster.slices import Slices
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.dns import DnsSettings
from sidecar.core.address import Address
from sidecar.core.override_host import OverrideHost
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import TimerWheel

T = TypeVar("T")


class Counts:
    """Statistics of any group: every attribute that was not set is 0."""

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0

    def seen(self) -> dict[str, int]:
        """What was counted, without zeros."""
        return {name: value for name, value in vars(self).items() if value}


def cluster_stats() -> Any:
    """A `ClusterStats` that also has `seen`."""
    return Counts()


class Clock:
    """Stands still until a test moves it; drives its own timer wheel."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.loop = asyncio.new_event_loop()
        self.wheel = TimerWheel(self.loop, lambda: self.now)

    def advance(self, seconds: float) -> None:
        """Move on, waking whoever is due on the way, in order."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.05)
            self.wheel.advance()
        self.now += 0.005
        self.wheel.advance()

    def close(self) -> None:
        self.wheel.close()
        self.loop.close()


class Context:
    """A load balancer context with everything at rest."""

    def __init__(
        self,
        hash_key: int | None = None,
        subset: SubsetKey | None = None,
        tried: Sequence[Host] = (),
        host_selection_retry_max_attempts: int = 1,
        override_host: OverrideHost | None = None,
        connection: ConnectionInfo | None = None,
        request: Any = None,
    ) -> None:
        self.hash_key = hash_key
        self.subset = subset
        self.tried = tuple(tried)
        self.host_selection_retry_max_attempts = host_selection_retry_max_attempts
        self.override_host = override_host
        self.connection = connection or ConnectionInfo(1, Address("127.0.0.1", 80), Address("127.0.0.1", 9), 0.0)
        self.request = request


PLAIN = Context()


def make_hosts(count: int, weights: Sequence[int] = (), **more: Any) -> list[Host]:
    """Hosts at 10.0.0.0:80, 10.0.0.1:80 and so on."""
    return [
        Host(Address(f"10.0.{number >> 8}.{number & 255}", 80), "", weights[number] if weights else 1, **more)
        for number in range(count)
    ]


def finish(work: Generator[None, None, T]) -> T:
    """Run a generator to its end for its result."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        result: T = end.value
        return result


def picks(pick: Callable[[Any], Host | None], times: int, context: Any = PLAIN) -> dict[str, int]:
    """How often each address was picked; `none` for no host."""
    counts: dict[str, int] = {}
    for _ in range(times):
        host = pick(context)
        name = "none" if host is None else host.address.text
        counts[name] = counts.get(name, 0) + 1
    return counts


def make_cluster(clock: Clock, balancer: Balancer, host_sets: HostSets, stats: Any = None) -> Cluster:
    """A started cluster with these hosts."""
    cluster = Cluster("backend", None, stats or Counts(), balancer, Slices(clock.wheel))
    cluster.update(host_sets)
    cluster.start()
    return cluster


class ScriptedResolver:
    """Answers when told: `questions` are the names asked for, each with who wants to know."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, str, Callable[[Answer], None]]] = []

    def resolve(self, name: str, lookup_family: str, done: Callable[[Answer], None]) -> None:
        self.questions.append((name, lookup_family, done))

    def answer(self, *addresses: str, ttl: int = 0, failed: bool = False) -> None:
        """Answer the oldest question."""
        self.questions.pop(0)[2](Answer(addresses, ttl, failed))


class Stages:
    """The other stages, as `ClusterManager` sees them."""

    def __init__(self) -> None:
        self.stats: dict[str, Any] = {}
        self.outliers: dict[str, Any] = {}
        self.cluster_manager_stats: Any = Counts()
        self.scripted = ScriptedResolver()

    def cluster_stats(self, config: ClusterConfig) -> ClusterStats:
        stats: Any = self.stats.setdefault(config.name, Counts())
        made: ClusterStats = stats
        return made

    def outlier_stats(self, config: ClusterConfig) -> Any:
        stats = self.outliers[config.name] = Counts()
        return stats

    def outlier_events(self) -> None:
        return None

    def resolver(self, settings: DnsSettings) -> Resolver:
        return self.scripted

    def needs_of(self, config: ClusterConfig) -> tuple[()]:
        return ()

    def endpoints(self, config: ClusterConfig, subscriber: Any) -> Callable[[], None]:
        raise AssertionError(f"{config.name} is no EDS cluster")


def seeded() -> Random:
    """The same dice in every run."""
    return Random(20260101)
