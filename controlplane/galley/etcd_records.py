"""How documents are laid out in etcd.

Below the prefix, `live/KIND NAMESPACE NAME` has what is there, and `ended/KIND NAMESPACE NAME` what was there last: it is
written in the transaction that deletes, so that a watch learns who did it and what it was. A space is lower than all that
a name may contain, so that keys sort as tuples do. A value is a line of JSON about the write, and then the document.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.galley.etcd_client import raw
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Stored


@dataclass(frozen=True, slots=True)
class Written:
    """A value. ``mark`` is of one write alone: it tells whether a write whose answer was lost has been done."""

    document: bytes
    who: str
    when: float
    mark: str

    @classmethod
    def new(cls, document: bytes, who: str, when: float) -> Written:
        return cls(document, who, when, uuid.uuid4().hex)

    def encode(self) -> bytes:
        return orjson.dumps({"who": self.who, "when": self.when, "mark": self.mark}) + b"\n" + self.document

    @classmethod
    def decode(cls, value: bytes) -> Written:
        """What somebody has put there by hand is a document by nobody."""
        head, line, document = value.partition(b"\n")
        try:
            about = orjson.loads(head)
            return (
                cls(document, str(about["who"]), float(about["when"]), str(about["mark"]))
                if line
                else cls(value, "", 0, "")
            )
        except (ValueError, KeyError, TypeError):
            return cls(value, "", 0, "")


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys below a prefix."""

    prefix: bytes

    def live(self, key: ResourceKey) -> bytes:
        return b"%b/live/%b" % (self.prefix, " ".join(key).encode())

    def ended(self, key: ResourceKey) -> bytes:
        return b"%b/ended/%b" % (self.prefix, " ".join(key).encode())

    def all_live(self, kind: str, namespace: str | None) -> tuple[bytes, bytes]:
        """The first key of a kind, of one namespace or of all, and the first behind them."""
        start = b"%b/live/%b " % (self.prefix, kind.encode())
        if namespace is not None:
            start += b"%b " % namespace.encode()
        return start, behind(start)

    def everything(self) -> tuple[bytes, bytes]:
        """What a watch is of: `ended/` and `live/`, and the elections that sort between them."""
        return self.prefix + b"/ended/", behind(self.prefix + b"/live/")

    def all_ended(self) -> tuple[bytes, bytes]:
        start = self.prefix + b"/ended/"
        return start, behind(start)

    def read(self, key: bytes) -> tuple[bool, ResourceKey] | None:
        """Whether a key is of something live, and of what. None for keys of another layout."""
        for live, start in ((True, self.prefix + b"/live/"), (False, self.prefix + b"/ended/")):
            if key.startswith(start):
                parts = key[len(start) :].decode(errors="replace").split(" ")
                return (live, ResourceKey(*parts)) if len(parts) == 3 else None
        return None


def behind(prefix: bytes) -> bytes:
    """The first key that is behind all that begin so."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def stored(key: ResourceKey, pair: dict[str, Any]) -> Stored:
    return Stored(key, Written.decode(raw(pair.get("value", ""))).document, int(pair["mod_revision"]))
