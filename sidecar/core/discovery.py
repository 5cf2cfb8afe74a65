"""Discovery, as the stages see it: who wants resources of a type subscribes, and is told of them as they change.

`sidecar/xds/` implements ``Discovery`` over ADS, delta ADS, REST and files; clusters, listeners, routes, endpoints, secrets
and extension configurations are ``ResourceWatcher``s. Source: Envoy's ``Config::SubscriptionFactory``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class DiscoveredResource:
    """A resource as it came: ``payload`` is a ``google.protobuf.Any``, ``version`` its own (delta), else the response's.

    ``name`` is that of the wrapper or, where there is none (state of the world), the one found in the message.
    """

    name: str
    version: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Rejection:
    """A resource that is not applied, and why; the last good version stays. ``name`` is empty for the update as a whole."""

    name: str
    reason: str


class ResourceWatcher(Protocol):
    """Who takes the resources of one subscription. Nothing is called after the subscription is closed."""

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        """Apply what changed, each resource by itself, and say which cannot be.

        ``whole``: ``resources`` are all that there are (state of the world), so what is not among them is gone;
        else they are those that changed, and ``removed`` names those that are gone.

        A large update is applied in slices, with other work of the loop between them: so the updates of one stream (of one
        file, of one REST endpoint) are handed over one after the other, in their order, each when the one before is done, and
        acknowledged when it is.
        """
        ...

    def on_unavailable(self) -> None:
        """The initial fetch timeout is over: nobody has answered. What waits for the resources goes on without them."""
        ...


class Durations(Protocol):
    """A histogram, as `telemetry.histogram.Histogram` is."""

    def record(self, value: int) -> None: ...


class SubscriptionCounters(Protocol):
    """What is counted of one subscription, under Envoy's names, as `telemetry.groups.server.SubscriptionStats` is.

    ``update_time`` is in milliseconds since the epoch, ``version`` a hash of ``version_text``, ``update_duration`` in
    milliseconds.
    """

    init_fetch_timeout: int
    update_attempt: int
    update_failure: int
    update_rejected: int
    update_success: int
    update_time: int
    version: int
    version_text: str

    @property
    def update_duration(self) -> Durations: ...


class Subscription(Protocol):
    """One interest in one type."""

    def update_names(self, names: Collection[str]) -> None:
        """Ask for these from now on."""
        ...

    def close(self) -> None:
        """Not interested any more."""
        ...


class Discovery(Protocol):
    """Makes subscriptions. ``source`` is a ``config.config_source.ConfigSource``."""

    def subscribe(
        self,
        source: Any,
        type_url: str,
        names: Collection[str] | None,
        watcher: ResourceWatcher,
        stats: SubscriptionCounters | None = None,
    ) -> Subscription:
        """Ask for resources of a type by name; ``names`` None: for all that the server has for this node (wildcard).

        What was received for a name that somebody else asks for already comes at once. Raises ValueError for a file that
        is not there.
        """
        ...

    def pause(self, type_url: str) -> None:
        """Send no requests for this type over ADS until ``resume``: their names are about to change (Envoy pauses EDS and SDS
        while CDS applies, RDS while LDS does), or what was received is not applied to its end (CDS while clusters warm).
        Pauses count: there is one ``resume`` for each.
        """
        ...

    def resume(self, type_url: str) -> None: ...

    def close(self) -> None:
        """End all subscriptions, and the streams that they are on."""
        ...
