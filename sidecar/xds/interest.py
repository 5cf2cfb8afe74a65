"""One interest in resources of a type: the names, who is told, what is counted, how long is waited for a first answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import xxhash

from sidecar.core.discovery import DiscoveredResource, Rejection, ResourceWatcher, SubscriptionCounters
from sidecar.core.timer_wheel import Callback
from sidecar.core.worker import Worker
from sidecar.xds.last_good import Kept, LastGood

log = logging.getLogger("sidecar.xds")

_SELDOM: Final = 10.0


_LOOK_AGAIN = 0.1
"""Seconds until it is asked again whether what has come is applied."""


class Source(Protocol):
    """Where the resources of an interest come from."""

    @property
    def is_busy(self) -> bool:
        """Whether it is on this side that an answer may be waiting."""
        ...

    def changed(self, interest: Interest, before: frozenset[str] | None) -> None:
        """The interest wants other names than ``before``; None: all."""
        ...

    def closed(self, interest: Interest) -> None: ...

    def waited(self, interest: Interest) -> None:
        """There was no answer within the initial fetch timeout."""
        ...


class Sparingly:
    """Says of one interest what is so of a thousand: the same words of the same type once in ten seconds."""

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def warn(self, words: str, interest: Interest) -> None:
        """Log a warning about an interest; ``words`` have its place."""
        now, key = self._clock(), (words, interest.type_url)
        level = logging.WARNING if now >= self._until.get(key, 0.0) else logging.DEBUG
        if level == logging.WARNING:
            self._until[key] = now + _SELDOM
        log.log(level, words, interest)


class _Nowhere:
    """Before an interest has a source."""

    is_busy = False

    def changed(self, interest: Interest, before: frozenset[str] | None) -> None:
        return

    def closed(self, interest: Interest) -> None:
        return

    def waited(self, interest: Interest) -> None:
        return


_NOWHERE: Source = _Nowhere()


class Interest:
    """The ``Subscription``. ``names`` None is for all that there are."""

    __slots__ = (
        "_timer",
        "answered",
        "is_closed",
        "initial_fetch_timeout",
        "names",
        "sparingly",
        "source",
        "stats",
        "type_url",
        "watcher",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        type_url: str,
        names: Collection[str] | None,
        watcher: ResourceWatcher,
        stats: SubscriptionCounters,
        initial_fetch_timeout: float,
        sparingly: Sparingly,
    ) -> None:
        self.worker = worker
        self.source: Source = _NOWHERE
        self.type_url = type_url
        self.names = None if names is None else frozenset(names)
        self.watcher = watcher
        self.stats = stats
        self.initial_fetch_timeout = initial_fetch_timeout
        self.sparingly = sparingly
        self.answered = False
        self.is_closed = False
        self._timer: Callback | None = None
        if initial_fetch_timeout:
            self._timer = worker.wheel.call_in(initial_fetch_timeout, self._timed_out)

    def update_names(self, names: Collection[str]) -> None:
        if self.is_closed:
            return
        before, self.names = self.names, frozenset(names)
        self.source.changed(self, before)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.settle()
            self.source.closed(self)

    def wants(self, name: str) -> bool:
        """Whether it is told of the resource of this name."""
        return self.names is None or name in self.names

    async def deliver(
        self,
        resources: Sequence[DiscoveredResource],
        removed: Sequence[str],
        version: str,
        *,
        whole: bool,
        refused: Sequence[Rejection] = (),
    ) -> list[Rejection]:
        """Have an update applied; what is not, and why. ``refused`` is what was of no use before the watcher saw it."""
        self.settle()
        stats, clock = self.stats, self.worker.clock
        began = clock()
        rejections = await self.tell(resources, removed, version, whole=whole)
        stats.update_attempt += 1
        if rejections or refused:
            stats.update_rejected += 1
        else:
            stats.update_success += 1
            stats.update_time = int((self.worker.epoch + clock()) * 1000)
            stats.version = xxhash.xxh64_intdigest(version.encode())
            stats.version_text = version
            stats.update_duration.record(int((clock() - began) * 1000))
        return rejections

    async def tell(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> list[Rejection]:
        """As ``deliver``, where no server is behind it: nothing is counted."""
        self.settle()
        try:
            return list(await self.watcher.on_update(resources, removed, version, whole=whole))
        except Exception as error:
            log.exception("%r: its watcher failed", self)
            return [Rejection("", f"the update could not be applied: {type(error).__name__}: {error}")]

    async def restore(self, last_good: LastGood) -> dict[str, Kept]:
        """Use what was good in an earlier run, if the watcher still waits; what it has taken, by name."""
        kept = {} if self.answered else await last_good.read(self.type_url)
        mine = dict(kept) if self.names is None else {name: kept[name] for name in sorted(self.names) if name in kept}
        if not mine or self.answered or self.is_closed:
            return {}
        self.sparingly.warn("%r: the server is away, going on with what was good in an earlier run", self)
        resources = [one.resource(name) for name, one in mine.items()]
        rejections = await self.tell(resources, [], "", whole=self.names is None)
        for rejection in rejections:
            log.warning("kept from an earlier run, and not applied: %s: %s", rejection.name, rejection.reason)
        bad = {rejection.name for rejection in rejections}
        return {} if "" in bad else {name: one for name, one in mine.items() if name not in bad}

    def failed(self) -> None:
        """The server cannot be reached."""
        self.stats.update_failure += 1
        self.stats.update_attempt += 1

    def rejected(self) -> None:
        """An answer came that could not even be read."""
        self.stats.update_rejected += 1
        self.stats.update_attempt += 1
        if not self.answered:
            self.unavailable()

    def unavailable(self) -> None:
        """Whoever waits goes on without."""
        self.settle()
        try:
            self.watcher.on_unavailable()
        except Exception:
            log.exception("%r: its watcher failed", self)

    def settle(self) -> None:
        """Nobody waits for the first answer any more."""
        self.answered = True
        if self._timer is not None:
            self.worker.wheel.cancel(self._timer)
            self._timer = None

    def _timed_out(self) -> None:
        if self.source.is_busy:  # the time that our own work takes is not the server's
            self._timer = self.worker.wheel.call_in(min(self.initial_fetch_timeout, _LOOK_AGAIN), self._timed_out)
            return
        self._timer = None
        self.stats.init_fetch_timeout += 1
        self.stats.update_attempt += 1
        self.sparingly.warn("%r: no answer within the initial fetch timeout", self)
        self.source.waited(self)

    def __repr__(self) -> str:
        names = "all" if self.names is None else ", ".join(sorted(self.names)[:3]) + ", ..." * (len(self.names) > 3)
        return f"<Interest in {self.type_url.rpartition('.')[2]}: {names}>"
