"""What is said to one proxy, in which order, whatever the dialect (state of the world or delta). No I/O, no clock.

Make before break (Envoy, "xDS REST and gRPC protocol"): clusters, then their endpoints, then listeners and routes when those
have arrived, and only when these are acknowledged what nothing refers to any more is taken away. An acknowledgement of
clusters is not waited for before their endpoints go out: Envoy withholds it until they come.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from controlplane.model.encoded import Encoded
from controlplane.xds.type_urls import CLUSTER, ENDPOINTS, IN_ORDER, LISTENER, ROUTES, WILDCARD
from controlplane.xds.watch import Update, Watch

PATIENCE: Final = 2.0  # seconds; who has not acknowledged by then gets the next types all the same

_BEHIND_CLUSTERS: Final = frozenset(IN_ORDER[IN_ORDER.index(LISTENER) :])


class View(Protocol):
    """The mesh as one proxy sees it now, and who hears what the proxy says of it."""

    def resources(self, type_url: str, names: Collection[str] | None) -> Mapping[str, Encoded]:
        """What it gets of a type: all, or what there is of these names."""
        ...

    def judged(self, type_url: str, errors: Mapping[str, str]) -> None:
        """What the proxy refuses of a type is different: now it is these, by name, and why."""
        ...


class Say(NamedTuple):
    """The next response: of this type, with this content, under this nonce."""

    watch: Watch
    update: Update
    nonce: str

    def __repr__(self) -> str:
        return f"{self.watch.type_url.rpartition('.')[2]} {self.nonce}: {self.update!r}"


class Conversation:
    """One stream of one proxy. ``incremental`` is delta."""

    def __init__(self, view: View, *, incremental: bool) -> None:
        self.view = view
        self.incremental = incremental
        self.watches: dict[str, Watch] = {}
        self.responses = 0
        self._warming: set[str] = set()  # clusters that were sent before the proxy asked for any endpoints

    # what the proxy says

    def on_request(self, request: Any) -> None:
        """A DiscoveryRequest: an acknowledgement, a refusal, other names, or a first request of its type."""
        watch = self.watches.get(request.type_url)
        names = request.resource_names
        if watch is None:
            watch = self._watch(request.type_url)
            watch.wildcard = "*" in names or (not names and request.type_url in WILDCARD)
            watch.names = frozenset(names) - {"*"}
            watch.asked(names or ("*",))
            self._changed_clusters(watch)
            return
        if request.response_nonce != watch.nonce:
            return  # about a response that is not the last: what is in it will be said again about the last one
        self._answered(watch, request)
        if watch.wildcard and (not names or "*" in names):
            return
        watch.wildcard = "*" in names
        if watch.wildcard:
            watch.names = frozenset()
            watch.asked(("*",))
        else:
            watch.asked_only(names)

    def on_delta_request(self, request: Any) -> None:
        """A DeltaDiscoveryRequest: as above, and what is subscribed and unsubscribed stands by itself."""
        watch = self.watches.get(request.type_url)
        subscribe, unsubscribe = request.resource_names_subscribe, request.resource_names_unsubscribe
        if watch is None:
            watch = self._watch(request.type_url)
            watch.wildcard = "*" in subscribe or (not subscribe and request.type_url in WILDCARD)
            for name, version in request.initial_resource_versions.items():
                watch.sent[name] = Encoded(name, version, b"")
            watch.names = frozenset(subscribe) - {"*"}
            # What it has from an earlier stream is sent again if it is not the same any more.
            watch.asked([name for name in watch.names if name not in watch.sent])
            watch.changed(None)
            self._changed_clusters(watch)
            return
        if request.response_nonce and request.response_nonce == watch.nonce:
            self._answered(watch, request)
        for name in unsubscribe:
            if name == "*":
                watch.wildcard = False
            if not watch.wildcard:
                watch.sent.pop(name, None)
                watch.errors.pop(name, None)
        if unsubscribe:
            watch.names = watch.names.difference(unsubscribe)
        if subscribe:
            watch.wildcard = watch.wildcard or "*" in subscribe
            asked = frozenset(subscribe) - {"*"}
            watch.names |= asked
            watch.asked(asked)

    def _watch(self, type_url: str) -> Watch:
        watch = self.watches[type_url] = Watch(type_url, incremental=self.incremental)
        return watch

    def _answered(self, watch: Watch, request: Any) -> None:
        if watch.settled:
            return
        before = dict(watch.errors)
        if request.HasField("error_detail"):
            error = request.error_detail.message
            watch.on_nack([name for name in watch.last_sent if _names(error, name)] or watch.last_sent or ("",), error)
        else:
            watch.on_ack()
        if watch.errors != before:
            self.view.judged(watch.type_url, watch.errors)

    # what is said to the proxy

    def next(self, now: float) -> tuple[Say | None, float]:
        """The next response, and until when there is nothing more to say if nothing happens (``inf``: for ever).

        ``now`` is in seconds, of a clock that does not jump.
        """
        wake = inf
        for type_url in self._order():
            watch = self.watches[type_url]
            if not watch.due:
                continue
            until = self._wait(watch, now)
            if until > now:
                wake = min(wake, until)
                continue
            say = self._say(watch)
            if say is not None:
                return say, now
        clusters = self.watches.get(CLUSTER)
        if clusters is not None and clusters.held and not clusters.due and self._nothing_refers():
            say = self._say(clusters)
            if say is not None:
                return say, now
        return None, wake

    def _order(self) -> list[str]:
        known = [type_url for type_url in IN_ORDER if type_url in self.watches]
        return known + [type_url for type_url in self.watches if type_url not in IN_ORDER]

    def _wait(self, watch: Watch, now: float) -> float:
        """Until when this type has to wait for answers; the past if it does not have to."""
        waiting = [watch]
        if watch.type_url in _BEHIND_CLUSTERS:
            waiting += [one for one in (self.watches.get(CLUSTER), self.watches.get(ENDPOINTS)) if one is not None]
        return max((one.sent_at + PATIENCE for one in waiting if not one.settled), default=0.0)

    def _nothing_refers(self) -> bool:
        """Whether listeners and routes are acknowledged as they are now."""
        return all(
            one.settled and not one.due and not one.errors
            for one in (self.watches.get(LISTENER), self.watches.get(ROUTES))
            if one is not None
        )

    def _say(self, watch: Watch) -> Say | None:
        watch.due = False
        current = self.view.resources(watch.type_url, watch.looked_at)
        keep = watch.type_url == CLUSTER and bool(self._others_due() or not self._nothing_refers())
        before = watch.sent
        update = watch.update(current, keep_removed=keep)
        if update is None:
            return None
        if watch.type_url == CLUSTER:
            self._endpoints_follow(before, update.resources)
        self.responses += 1
        nonce = f"{self.responses:x}"
        return Say(watch, update, nonce)

    def _others_due(self) -> bool:
        return any(one.due for type_url in (LISTENER, ROUTES) if (one := self.watches.get(type_url)) is not None)

    def _changed_clusters(self, watch: Watch) -> None:
        """Endpoints are asked for, for the first time on this stream: clusters that were different have not had theirs."""
        if watch.type_url == ENDPOINTS and self._warming:
            watch.asked([name for name in self._warming if name in watch.names])
            self._warming.clear()

    def _endpoints_follow(self, before: Mapping[str, Encoded], clusters: Mapping[str, Encoded]) -> None:
        """A cluster that is new or different warms until its endpoints come, even if those are what they were."""
        again = [
            name for name, one in clusters.items() if (old := before.get(name)) is None or old.version != one.version
        ]
        watch = self.watches.get(ENDPOINTS)
        if watch is None:
            self._warming.update(again)
        elif known := [name for name in again if name in watch.names]:
            watch.asked(known)


def _names(text: str, name: str) -> bool:
    """Whether a text is about something of that name, and not only of one that has it for a part."""
    return re.search(rf"(?<![\w.|-]){re.escape(name)}(?![\w|-])", text) is not None
