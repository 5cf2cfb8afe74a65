"""The weights of CLIENT_SIDE_WEIGHTED_ROUND_ROBIN, from the load that hosts report with their responses.

Source: Envoy's `ClientSideWeightedRoundRobin`; gRFC A58.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from sidecar.cluster.host import Host
from sidecar.cluster.orca import parse_load_report
from sidecar.config.lb_policies import ClientSideWeightedRoundRobin
from sidecar.core.timer_wheel import Timed, TimerWheel


class _Reported:
    __slots__ = ("weight", "since", "last")

    def __init__(self, weight: int, now: float) -> None:
        self.weight = weight
        self.since = self.last = now


class ClientSideWeights(Timed):
    """Takes reports at any time, and weights over at intervals; `changed` is called when any weight is another.

    Hosts without a weight that counts get the median of those that have one.
    """

    __slots__ = ("config", "_hosts", "_changed", "_wheel", "_reported")

    def __init__(
        self,
        config: ClientSideWeightedRoundRobin,
        hosts: Callable[[], Sequence[Host]],
        changed: Callable[[], None],
        wheel: TimerWheel,
    ) -> None:
        self.due = inf
        self.config = config
        self._hosts = hosts
        self._changed = changed
        self._wheel = wheel
        self._reported: dict[Host, _Reported] = {}

    def start(self) -> None:
        """Begin to take weights over."""
        self._wheel.arm(self, self._wheel.clock() + self.config.weight_update_period)

    def close(self) -> None:
        """Stop."""
        self._wheel.cancel(self)
        self._reported.clear()

    def on_fields(self, host: Host, fields: Mapping[bytes, bytes]) -> bool:
        """Headers or trailers came from `host`; True if there was a report in them."""
        report = parse_load_report(fields)
        if report is None:
            return False
        config = self.config
        weight = report.weight(config.metric_names_for_computing_utilization, config.error_utilization_penalty)
        if weight is not None:
            now = self._wheel.clock()
            known = self._reported.get(host)
            if known is None:
                self._reported[host] = _Reported(weight, now)
            else:
                known.weight, known.last = weight, now
        return True

    def on_timer(self, now: float) -> None:
        """Take the weights over."""
        self._wheel.arm(self, now + self.config.weight_update_period)
        hosts = self._hosts()
        current = self._reported
        self._reported = {host: current[host] for host in hosts if host in current}
        weights = {host: weight for host in hosts if (weight := self._weight(host, now)) is not None}
        default = _median(sorted(weights.values()))
        changed = False
        for host in hosts:
            weight = max(1, weights.get(host, default))
            if weight != host.weight:
                host.weight = weight
                changed = True
        if changed:
            self._changed()

    def _weight(self, host: Host, now: float) -> int | None:
        """The host's own weight, if it counts. One that has expired begins anew, its blackout period too."""
        reported = self._reported.get(host)
        if reported is None or now - reported.since < self.config.blackout_period:
            return None
        if now - reported.last > self.config.weight_expiration_period:
            del self._reported[host]
            return None
        return reported.weight

    def __repr__(self) -> str:
        return f"<ClientSideWeights {len(self._reported)} hosts report>"


def _median(ordered: Sequence[int]) -> int:
    middle = len(ordered) // 2
    if not ordered:
        return 1
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2
