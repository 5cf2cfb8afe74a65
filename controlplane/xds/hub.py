"""All streams, and what happens when the mesh changes: bursts merge, and only those are told whom a change concerns."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Final, Protocol

from controlplane.model.changes import Changes
from controlplane.model.encoded import Encoded
from controlplane.model.generation import Translator
from controlplane.model.proxy import Proxy
from controlplane.model.resource import Resource, ResourceKey
from controlplane.xds.session import Session
from controlplane.xds.watch import Update

log = logging.getLogger("controlplane.xds")

_MOST_NAMES: Final = 100  # different sets of names that are shared
_MOST_KEPT: Final = 64 << 20  # bytes of responses that are kept for others who get the same


class Verdicts(Protocol):
    """Who wants to know what proxies refuse."""

    def judged(self, stream: object, proxy: Proxy, type_url: str, errors: Mapping[str, str]) -> None:
        """Of a type, a proxy goes on with what it had instead of these resources, by name, and why; of none, if it is empty."""
        ...

    def told(self, stream: object, proxy: Proxy, type_url: str) -> None:
        """It was sent resources of a type."""
        ...

    def left(self, stream: object) -> None:
        """Its stream is over, and what it refused is no matter any more."""
        ...


class Narrowed:
    """Which of the names that a proxy asked for may be different after a change. Most proxies ask for the same names."""

    def __init__(self, translator: Translator, changes: Changes) -> None:
        self._translator = translator
        self._changes = changes
        self._last: dict[str, tuple[Collection[str], Collection[str]]] = {}

    def __call__(self, type_url: str, names: Collection[str]) -> Collection[str]:
        """Those of ``names``."""
        last = self._last.get(type_url)
        if last is None or (last[0] is not names and last[0] != names):
            found = self._translator.affected_names(self._changes, type_url, names)
            last = self._last[type_url] = (names, found)
        return last[1]


class Ignored:
    """Verdicts that nobody wants to know."""

    def judged(self, stream: object, proxy: Proxy, type_url: str, errors: Mapping[str, str]) -> None: ...

    def told(self, stream: object, proxy: Proxy, type_url: str) -> None: ...

    def left(self, stream: object) -> None: ...


class Hub:
    """Streams subscribe, `changed` pushes.

    After a change nothing is sent for ``quiet`` seconds, so that a burst becomes one push; but no change waits longer than
    ``longest`` seconds.
    """

    def __init__(
        self,
        translator: Translator,
        *,
        quiet: float = 0.01,
        longest: float = 0.3,
        identifier: str = "mizzen",
        wall_clock: Callable[[], float] = time.time,
        verdicts: Verdicts | None = None,
    ) -> None:
        self.translator = translator
        self.quiet = quiet
        self.longest = longest
        self.identifier = identifier
        self.wall_clock = wall_clock
        self.verdicts: Verdicts = verdicts or Ignored()
        self.sessions: set[Session] = set()
        self.applied = 0  # batches of changes
        self._waiting: dict[ResourceKey, Resource | None] = {}
        self._first_waits_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._bodies: dict[Hashable, tuple[str, bytes]] = {}
        self._kept = 0  # bytes
        self._names: dict[frozenset[str], frozenset[str]] = {}
        self._shared: dict[tuple[Hashable, str], Mapping[str, Encoded]] = {}
        self._scopes: dict[Session, Hashable] = {}  # as of the last push

    # what the proxies get

    def resources(self, proxy: Proxy, type_url: str, names: Collection[str] | None) -> Mapping[str, Encoded]:
        """The resources of a type for a proxy; those of one scope share them."""
        if names is not None:
            return self.translator.resources(proxy, type_url, names)
        key = (self.translator.scope(proxy), type_url)
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = self.translator.resources(proxy, type_url)
        return found

    def body(self, session: Session, type_url: str, update: Update) -> tuple[str, bytes]:
        """Version and body of a response: serialized once for all who are told the very same."""
        key = (type_url, session.incremental, tuple(update.resources.values()), tuple(update.removed))
        kept = self._bodies.get(key)
        if kept is None:
            kept = session.encode(type_url, update)
            self._kept += len(kept[1])
            if self._kept > _MOST_KEPT:
                self._bodies.clear()
                self._kept = len(kept[1])
            self._bodies[key] = kept
        return kept

    def shared_names(self, names: frozenset[str]) -> frozenset[str]:
        """The same names, as one object for all proxies that ask for them."""
        if len(self._names) > _MOST_NAMES:
            self._names.clear()
        return self._names.setdefault(names, names)

    # changes

    def changed(self, resources: Mapping[ResourceKey, Resource | None]) -> None:
        """These are new or different, or (None) gone. They are applied and pushed soon."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._first_waits_since = now
        self._waiting.update(resources)
        at = min(now + self.quiet, self._first_waits_since + self.longest)
        self._timer = loop.call_at(at, self.flush)

    def flush(self) -> None:
        """Apply what has changed and tell whom it concerns, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        changes = self._apply(waiting)
        self._shared.clear()
        self._bodies.clear()
        self._kept = 0
        self.applied += 1
        if changes:
            self.push(changes)

    def _apply(self, waiting: Mapping[ResourceKey, Resource | None]) -> Changes:
        """All of it at once; if that fails one by one, so that what cannot be applied keeps nothing else from it."""
        try:
            return self.translator.apply(waiting)
        except Exception:
            log.exception("%d changes are applied one by one", len(waiting))
        changes = Changes()
        for key, resource in waiting.items():
            try:
                changes |= self.translator.apply({key: resource})
            except Exception:
                log.exception("%s is not applied", key)
        return changes

    def push(self, changes: Changes) -> None:
        """Tell every session whom these changes concern.

        Proxies share the answer only if they were alike before the change too: of two that it makes alike one may be what it
        was, and the other lose a policy.
        """
        affected: dict[Hashable, Collection[str]] = {}
        narrowed = Narrowed(self.translator, changes)
        for session in self.sessions:
            try:
                self._tell(session, changes, affected, narrowed)
            except Exception:  # of one proxy, which is not to keep the others from theirs
                log.exception("%s is not told", session.proxy.id)

    def _tell(
        self, session: Session, changes: Changes, affected: dict[Hashable, Collection[str]], narrowed: Narrowed
    ) -> None:
        scope = self.translator.scope(session.proxy)
        before = self._scopes.get(session, session)  # who was not there is like nobody
        types = affected.get((before, scope))
        if types is None:
            types = affected[before, scope] = self.translator.affected(changes, session.proxy)
        if types:
            session.changed(types, narrowed)
        self._scopes[session] = scope

    # sessions

    def joined(self, session: Session) -> None:
        """A stream has begun."""
        self.sessions.add(session)
        log.info("%s connected", session.proxy.id)

    def left(self, session: Session) -> None:
        """A stream is over."""
        self.sessions.discard(session)
        self._scopes.pop(session, None)
        self.verdicts.left(session)
        log.info("%s disconnected", session.proxy.id)

    def close(self) -> None:
        """Push nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        return f"<Hub {len(self.sessions)} sessions, {len(self._waiting)} changes wait>"
