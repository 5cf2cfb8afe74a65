"""What outlier detection knows of each host, and how far from the others a host's success rate has to be.

Source: Envoy's documentation, "Outlier detection" (success rate, failure percentage).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from sidecar.cluster.host import Host

UNKNOWN = -1.0
"""A rate that was not measured in the last interval: too few requests, or too few hosts."""


class HostMonitor:
    """What is counted of a host in an interval, and what came of the last one; rates are in percent.

    Successes are not counted here: they are what was added meanwhile to the host's own `rq_success` (and `rq_total`: each
    request sent is a connection that works), so that a good response costs nothing. `uncounted` are those that the host's
    counts lack. `ejections` is how often the host was ejected in its life.
    """

    __slots__ = (
        "ejections",
        "failures",
        "local_origin_failures",
        "local_origin_success_rate",
        "requests_at_failure",
        "requests_before",
        "success_rate",
        "successes_before",
        "uncounted",
    )

    def __init__(self, host: Host) -> None:
        self.ejections = 0
        self.success_rate = self.local_origin_success_rate = UNKNOWN
        self.requests_at_failure = host.rq_total
        self.begin(host)

    def begin(self, host: Host) -> None:
        """An interval begins."""
        self.failures = self.local_origin_failures = self.uncounted = 0
        self.successes_before = host.rq_success
        self.requests_before = host.rq_total

    def counted(self, host: Host, local_origin: bool) -> tuple[int, int]:
        """(successes, all) of the interval so far: of responses, or of what happened on the way to the host."""
        if local_origin:
            successes = host.rq_total - self.requests_before
            return successes, successes + self.local_origin_failures
        successes = host.rq_success - self.successes_before + self.uncounted
        return successes, successes + self.failures

    def __repr__(self) -> str:
        return f"<HostMonitor success rate {self.success_rate:g}, {self.failures} failures>"


class ClusterRates:
    """The average of the hosts' success rates in percent, and that below which a host is ejected; -1 if unknown."""

    __slots__ = ("average", "ejection_threshold")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Neither is known."""
        self.average = self.ejection_threshold = UNKNOWN

    def measure(self, rates: Sequence[float], stdev_factor: int) -> None:
        """Take the rates of the hosts; the factor is in thousandths of the standard deviation."""
        mean = sum(rates) / len(rates)
        deviation = sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
        self.average = mean
        self.ejection_threshold = mean - stdev_factor / 1000 * deviation

    def __repr__(self) -> str:
        return f"<ClusterRates {self.average:g}, ejecting below {self.ejection_threshold:g}>"
