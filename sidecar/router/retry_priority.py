"""Priorities that a retry had rather not go to: those that were tried.

Source: Envoy's `retry_priority`, `envoy.retry_priorities.previous_priorities`.
"""

from __future__ import annotations

from typing import Any


class TriedPriorities:
    """What one request has tried. The priorities to avoid are looked at anew with every ``update_frequency`` attempts."""

    __slots__ = ("_avoided", "_hosts", "update_frequency")

    def __init__(self, update_frequency: int) -> None:
        self.update_frequency = update_frequency
        self._hosts: list[Any] = []
        self._avoided: frozenset[int] = frozenset()

    def attempted(self, host: Any) -> None:
        """An attempt at ``host`` has failed."""
        self._hosts.append(host)

    def pick(self, cluster: Any, context: Any) -> Any:
        """The host for the next attempt. When all priorities that can serve were tried, all may be tried again."""
        attempts = len(self._hosts)
        if attempts < self.update_frequency:
            return cluster.pick(context)
        if attempts % self.update_frequency == 0:
            self._avoided |= {host.priority for host in self._hosts}
            if not cluster.serves_without(self._avoided):
                self._avoided = frozenset()
                self._hosts.clear()
        return cluster.pick_without(context, self._avoided) if self._avoided else cluster.pick(context)

    def __repr__(self) -> str:
        return f"<TriedPriorities {len(self._hosts)} attempts, avoids {sorted(self._avoided)}>"
