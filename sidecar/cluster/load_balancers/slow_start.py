"""Slow start: a host that is new, or healthy again, gets a share that grows over a window.

Source: Envoy's documentation, "Slow start mode".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sidecar.cluster.host import FAILED_ACTIVE_HC, Host
from sidecar.config.lb_policies import SlowStartConfig


class SlowStart:
    """Since when the hosts of a cluster are healthy, as far as that matters. `clock` gives seconds."""

    __slots__ = ("window", "exponent", "least", "clock", "_since", "_until")

    def __init__(self, config: SlowStartConfig, clock: Callable[[], float]) -> None:
        self.window = config.window
        self.exponent = 1.0 / config.aggression
        self.least = config.min_weight_percent / 100.0
        self.clock = clock
        self._since: dict[Host, float] = {}
        self._until = clock() + self.window

    def enter(self, hosts: Iterable[Host]) -> None:
        """These are the hosts now: those not known yet begin, and those that fail health checks will begin anew."""
        now, since = self.clock(), self._since
        for host in [known for known in since if known.removed or known.flags & FAILED_ACTIVE_HC]:
            del since[host]
        for host in hosts:
            if host not in since and host.usable and not host.degraded:
                since[host] = now
                self._until = now + self.window

    @property
    def active(self) -> bool:
        """Whether any host may be within its window."""
        return self.clock() <= self._until

    def scaled(self, weight: Callable[[Host], float]) -> Callable[[Host], float]:
        """`weight`, made smaller while a host is within its window."""
        clock, since, window, exponent, least = self.clock, self._since, self.window, self.exponent, self.least

        def scaled_weight(host: Host) -> float:
            now = clock()
            if now > self._until:
                return weight(host)
            lasted = now - since.get(host, -window)
            if lasted >= window:
                return weight(host)
            share: float = (max(0.001, lasted) / window) ** exponent
            return weight(host) * max(share, least)

        return scaled_weight

    def __repr__(self) -> str:
        return f"<SlowStart {self.window} s, {'active' if self.active else 'over'}>"
