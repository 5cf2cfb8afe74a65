"""Hosts that a retry had rather not go to: those that were tried, canaries, those with certain metadata.

Source: Envoy's `retry_host_predicate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.config.retry_policy import OmitCanaryHosts, OmitHostMetadata, PreviousHosts, RetryHostPredicate


class HostPredicates:
    """The predicates of one retry policy. ``after(tried, host)`` is what the balancer avoids when ``host`` has failed."""

    __slots__ = ("canaries", "labels", "previous")

    def __init__(self, predicates: Sequence[RetryHostPredicate]) -> None:
        self.previous = any(isinstance(one, PreviousHosts) for one in predicates)
        self.canaries = any(isinstance(one, OmitCanaryHosts) for one in predicates)
        self.labels: tuple[Mapping[str, Any], ...] = tuple(
            labels
            for one in predicates
            if isinstance(one, OmitHostMetadata) and (labels := one.metadata_match.get("envoy.lb"))
        )

    def after(self, tried: Any, host: Any) -> Any:
        """The hosts to avoid from now on, for ``host in ...``; never empty."""
        hosts = (*tried, host) if self.previous else ()
        if not self.canaries and not self.labels:
            return hosts
        return Avoided(hosts, self.canaries, self.labels)

    def __repr__(self) -> str:
        return f"<HostPredicates previous {self.previous}, canaries {self.canaries}, {len(self.labels)} label sets>"


class Avoided:
    """Hosts by themselves and by what they are."""

    __slots__ = ("canaries", "hosts", "labels")

    def __init__(self, hosts: tuple[Any, ...], canaries: bool, labels: tuple[Mapping[str, Any], ...]) -> None:
        self.hosts = hosts
        self.canaries = canaries
        self.labels = labels

    def __contains__(self, host: Any) -> bool:
        if host in self.hosts or (self.canaries and host.canary):
            return True
        own = host.metadata.get("envoy.lb", {})
        return any(all(own.get(name) == value for name, value in labels.items()) for labels in self.labels)

    def __iter__(self) -> Any:
        return iter(self.hosts)

    def __repr__(self) -> str:
        return (
            f"<Avoided {len(self.hosts)} hosts{', canaries' if self.canaries else ''}, {len(self.labels)} label sets>"
        )
