"""A health checker in the hands of a test: a clock that stands still, probes that do as they are told, a log to read."""

from __future__ import annotations

from typing import Any

from sidecar.cluster.health_checks.checker import HealthChecker
from sidecar.cluster.health_checks.results import Outcome
from sidecar.cluster.host import Host
from sidecar.config.health_check import HealthCheck, TcpHealthCheck
from tests.sidecar.cluster.surroundings import Clock, Counts, seeded


class ScriptedProbe:
    """Remembers when it was asked; the test tells the outcome."""

    def __init__(self, outcome: Outcome, clock: Clock) -> None:
        self.outcome = outcome
        self.clock = clock
        self.asked: list[float] = []
        self.timeouts = 0
        self.closed = False

    def start(self) -> None:
        self.asked.append(round(self.clock.now, 2))

    def timed_out(self) -> None:
        self.timeouts += 1

    def close(self) -> None:
        self.closed = True


class ListedEvents:
    """The event log as a list of lists."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def add_healthy(self, host: Host, first_check: bool) -> None:
        self.lines.append(("add", first_check))

    def eject_unhealthy(self, host: Host, reason: str, status: int) -> None:
        self.lines.append(("eject", reason, status))

    def failure(self, host: Host, reason: str, first_check: bool, status: int) -> None:
        self.lines.append(("failure", reason, first_check, status))

    def success(self, host: Host) -> None:
        self.lines.append(("success",))

    def degraded(self, host: Host, degraded: bool) -> None:
        self.lines.append(("degraded", degraded))


class Checking:
    """A checker of a few hosts; ``refreshed`` counts how often the cluster would have been told of changes."""

    def __init__(self, clock: Clock, hosts: list[Host], *, exclude_new: bool = False, **fields: Any) -> None:
        settings: dict[str, Any] = {
            "timeout": 1.0,
            "interval": 10.0,
            "unhealthy_threshold": 3,
            "healthy_threshold": 2,
            "no_traffic_interval": 60.0,
            "no_traffic_healthy_interval": 70.0,
            "unhealthy_interval": 20.0,
            "unhealthy_edge_interval": 5.0,
            "healthy_edge_interval": 4.0,
            **fields,
        }
        self.clock = clock
        self.hosts = hosts
        self.probes: dict[Host, ScriptedProbe] = {}
        self.log = ListedEvents()
        self.stats: Any = Counts()
        self.refreshed = 0
        self.traffic = True
        self.heard: list[tuple[bool, bool]] = []
        self.checker = HealthChecker(
            HealthCheck(TcpHealthCheck(), **settings),
            self.stats,
            self.log,
            self._probe,
            lambda: self.traffic,
            self._changed,
            clock.wheel,
            seeded(),
            exclude_new,
        )
        self.checker.on_checked = (lambda host, changed, healthy: self.heard.append((changed, healthy)),)
        self.checker.admit(hosts)
        self.checker.watch(hosts)
        self.checker.start()
        clock.advance(0.01)

    def _probe(self, outcome: Outcome) -> ScriptedProbe:
        probe = self.probes[outcome.host] = ScriptedProbe(outcome, self.clock)
        return probe

    def _changed(self) -> None:
        self.refreshed += 1

    @property
    def probe(self) -> ScriptedProbe:
        """That of the first host."""
        return self.probes[self.hosts[0]]

    def next_check(self) -> float:
        """The seconds from now to the next check of the first host; the clock moves there."""
        began, asked = self.clock.now, len(self.probe.asked)
        while len(self.probe.asked) == asked:
            self.clock.advance(0.05)
            assert self.clock.now < began + 1000, "no further check"
        return round(self.clock.now - began, 1)

    def succeed(self, degraded: bool = False) -> float:
        """The check under way succeeds; the seconds to the next one."""
        self.probe.outcome.succeeded(degraded)
        return self.next_check()

    def fail(self, reason: str = "NETWORK", **more: Any) -> float:
        """The check under way fails; the seconds to the next one."""
        self.probe.outcome.failed(reason, **more)
        return self.next_check()
