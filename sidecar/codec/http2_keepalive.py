"""Keep-alive PINGs of one side, as they are configured (`envoy.config.core.v3.KeepaliveSettings`)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

from sidecar.config.http2_protocol_options import KeepaliveSettings


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Times in seconds, ``inf`` for never; ``jitter`` is in percent of the interval."""

    interval: float = inf
    timeout: float = inf
    jitter: float = 0.0
    after_idle: float = inf

    def next_ping(self, now: float, random: Random) -> float:
        """When the next PING is due, if the last one was answered ``now``."""
        if self.interval == inf:
            return inf
        return now + self.interval * (1.0 + random.random() * self.jitter / 100.0)


NO_KEEPALIVE: Final = Keepalive()


def keepalive_of(config: KeepaliveSettings | None) -> Keepalive:
    """What is configured; 0 is never there."""
    if config is None:
        return NO_KEEPALIVE
    return Keepalive(
        config.interval or inf, config.timeout or inf, config.interval_jitter, config.connection_idle_interval or inf
    )
