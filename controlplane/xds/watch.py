"""What one proxy knows of one type: what it asked for, what was sent, what it said of that. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from controlplane.model.encoded import Encoded
from controlplane.xds.type_urls import WHOLE


@dataclass(slots=True)
class Update:
    """What goes into the next response. In the state of the world ``resources`` of CDS and LDS are everything."""

    resources: Mapping[str, Encoded]
    removed: Collection[str] = ()
    changed: Collection[str] = ()  # the names of those that are new or different

    def __repr__(self) -> str:
        return f"<Update {len(self.resources)} resources, {len(self.removed)} removed>"


class Watch:
    """The subscription of one stream to one type.

    ``names`` are what was asked for by name, ``wildcard`` whether everything is wanted. ``sent`` is what the proxy has, if it
    took what it was sent: a resource by name, its version where the proxy brought it from an earlier stream.
    """

    __slots__ = ("acked_version", "due", "errors", "forced", "held", "incremental", "last_sent", "names", "narrow", "nonce",
                 "owed", "sent", "sent_at", "settled", "type_url", "version", "whole", "wildcard")  # fmt: skip

    def __init__(self, type_url: str, *, incremental: bool) -> None:
        self.type_url = type_url
        self.incremental = incremental
        self.whole = not incremental and type_url in WHOLE
        self.wildcard = False
        self.names: frozenset[str] = frozenset()
        self.sent: dict[str, Encoded] = {}
        self.held: set[str] = set()  # gone, but not taken away yet: what refers to them is still on its way
        self.forced: set[str] = set()  # to be sent again, though unchanged
        self.owed = False  # whether there has to be a response even if there is nothing to say
        self.due = False
        self.narrow: set[str] | None = None  # what is due is about these names alone
        self.nonce = ""
        self.version = ""
        self.last_sent: tuple[str, ...] = ()  # what was new in the last response
        self.acked_version = ""
        self.errors: dict[
            str, str
        ] = {}  # what the proxy refuses, by name, and why; it goes on with what it had of that
        self.settled = True  # whether the last response was acknowledged, or refused
        self.sent_at = 0.0

    @property
    def looked_at(self) -> Collection[str] | None:
        """The names that `update` has to know of; None for everything."""
        if self.wildcard:
            return None
        return self.names if self.narrow is None or self.whole else self.names & self.narrow

    def changed(self, names: Collection[str] | None) -> None:
        """These may be different, or (None) anything."""
        if names is None:
            self.narrow = None
        elif not self.due:
            self.narrow = set(names)
        elif self.narrow is not None:
            self.narrow.update(names)
        self.due = True

    def asked(self, names: Collection[str]) -> None:
        """These were just asked for: they are sent whether they changed or not."""
        self.forced.update(names)
        self.changed(None if self.wildcard else names)
        self.owed = self.owed or self.wildcard or self.whole

    def asked_only(self, names: Collection[str]) -> None:
        """State of the world: these are all the names that are asked for from now on."""
        new = frozenset(names)
        added = new - self.names
        self.names = new
        for name in [one for one in self.sent if one not in new]:
            del self.sent[name]
        for name in [one for one in self.errors if one not in new]:
            del self.errors[name]
        if added:
            self.asked(added)

    def update(self, current: Mapping[str, Encoded], *, keep_removed: bool) -> Update | None:
        """What has to be said, given what there is now; None if the proxy knows it all.

        With ``keep_removed`` what is gone stays for the time being, and is remembered in ``held``.
        """
        sent, forced, owed = self.sent, self.forced, self.owed
        changed = {
            name: one
            for name, one in current.items()
            if name in forced
            or (before := sent.get(name)) is None
            or (before is not one and before.version != one.version)
        }
        narrow = None if self.wildcard or self.whole else self.narrow
        gone = [name for name in (sent if narrow is None else narrow) if name in sent and name not in current]
        self.held = set(gone) if keep_removed else set()
        removed = [] if keep_removed else gone
        self.forced, self.owed = set(), False
        if self.incremental:
            removed += [name for name in forced if name not in current and name not in sent]
            if not (changed or removed or owed):
                return None
            return Update(changed, removed, tuple(changed))
        if not self.whole:
            return Update(changed, (), tuple(changed)) if changed else None
        if not (changed or removed or owed):
            return None
        if not self.held:
            return Update(current, removed, tuple(changed))
        return Update({**current, **{name: sent[name] for name in self.held}}, removed, tuple(changed))

    def on_sent(self, update: Update, nonce: str, version: str, now: float) -> None:
        """This was sent."""
        if self.whole:
            self.sent = dict(update.resources)
        else:
            self.sent.update(update.resources)
            for name in update.removed:
                self.sent.pop(name, None)
                self.errors.pop(name, None)
        self.last_sent = tuple(update.changed)
        self.nonce = nonce
        self.version = version
        self.settled = False
        self.sent_at = now

    def on_ack(self) -> None:
        """The proxy took the last response; what it refused of an earlier one, and was not in this one, it still refuses."""
        self.settled = True
        self.acked_version = self.version
        if self.whole:
            self.errors.clear()
        for name in self.last_sent:
            self.errors.pop(name, None)

    def on_nack(self, names: Collection[str], error: str) -> None:
        """The proxy refused these of the last response."""
        self.settled = True
        self.errors.update(dict.fromkeys(names, error or "refused without a reason"))

    @property
    def error(self) -> str:
        """All reasons, each once."""
        return "; ".join(dict.fromkeys(self.errors.values()))

    @property
    def status(self) -> str:
        """In the words of Istio's `proxy-status`."""
        if self.errors:
            return "NACKED"
        if not self.nonce and not (self.sent and not self.due):  # it may have all from an earlier stream
            return "NOT SENT"
        return "SYNCED" if self.settled and not self.due else "STALE"

    def __repr__(self) -> str:
        return f"<Watch {self.type_url.rpartition('.')[2]} {self.status} {len(self.sent)} sent>"
