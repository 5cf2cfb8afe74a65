"""When a name is looked up again: refresh rate, time to live, jitter, back-off after failures."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random

from sidecar.cluster.context import ClusterStats
from sidecar.cluster.dns import Answer, Resolver
from sidecar.config.address import Address, SocketAddress, is_ip
from sidecar.config.dns import DnsSettings
from sidecar.core.timer_wheel import Timed, TimerWheel

_TTL_FLOOR = 1.0  # seconds: answers from /etc/hosts, and some servers', have no time to live worth the name


class Refresh(Timed):
    """Looks one name up, again and again, and hands each answer to `on_answer`.

    An address instead of a name is its own answer, given once, and no timer runs. A failure is counted and handed on as
    one: who listens keeps the last answer. Source: Envoy's `dns_refresh_rate`, `respect_dns_ttl`,
    `dns_jitter` and `dns_failure_refresh_rate`.
    """

    __slots__ = (
        "name",
        "port",
        "settings",
        "stats",
        "on_answer",
        "_resolver",
        "_wheel",
        "_random",
        "_empty_is_failure",
        "_failures",
        "_open",
    )

    def __init__(
        self,
        target: Address,
        settings: DnsSettings,
        stats: ClusterStats,
        on_answer: Callable[[Answer], None],
        resolver: Resolver,
        wheel: TimerWheel,
        random: Random,
        *,
        empty_is_failure: bool = False,
    ) -> None:
        self.due = inf
        self.name = target.address if isinstance(target, SocketAddress) else ""
        self.port = target.port_value if isinstance(target, SocketAddress) else 0
        self.settings = settings
        self.stats = stats
        self.on_answer = on_answer
        self._resolver = resolver
        self._wheel = wheel
        self._random = random
        self._empty_is_failure = empty_is_failure
        self._failures = 0
        self._open = True

    def start(self) -> None:
        """Ask now."""
        self.stats.update_attempt += 1
        if is_ip(self.name):
            self.stats.update_success += 1
            self.on_answer(Answer((self.name,)))
        else:
            self._resolver.resolve(self.name, self.settings.dns_lookup_family, self._on_answer)

    def close(self) -> None:
        """Ask no more, and listen to no answer."""
        self._open = False
        self._wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        self.start()

    def _on_answer(self, answer: Answer) -> None:
        if not self._open:
            return
        if answer.failed or (self._empty_is_failure and not answer.addresses):
            self.stats.update_failure += 1
            delay = self._delay_after_failure()
        else:
            self.stats.update_success += 1
            self._failures = 0
            delay = self._delay(answer)
        self._wheel.arm(self, self._wheel.clock() + delay)
        self.on_answer(answer)

    def _delay(self, answer: Answer) -> float:
        settings = self.settings
        delay = settings.dns_refresh_rate
        if settings.respect_dns_ttl and answer.ttl:
            delay = max(_TTL_FLOOR, answer.ttl)
        return delay + self._random.random() * settings.dns_jitter

    def _delay_after_failure(self) -> float:
        """The refresh rate; or, with a failure rate, any time up to an interval that doubles with each failure."""
        base, longest = self.settings.failure_base_interval, self.settings.failure_max_interval
        if base is None or longest is None:
            return self.settings.dns_refresh_rate
        interval = min(longest, base * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._random.random() * interval

    def __repr__(self) -> str:
        return f"<Refresh {self.name}:{self.port} failures {self._failures}>"
