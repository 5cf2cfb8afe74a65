"""Where resources are kept: one contract, and a suite of tests that every implementation passes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from controlplane.model.resource import ResourceKey


class Conflict(Exception):
    """The resource is at another revision than the writer expects: ``found``, 0 if there is none."""

    def __init__(self, key: ResourceKey, expected: int, found: int) -> None:
        super().__init__(f"{key} is at revision {found}, not {expected}")
        self.key = key
        self.expected = expected
        self.found = found


class Compacted(Exception):
    """The store remembers nothing from before ``oldest``: list again, and watch from there.

    Also raised for a revision that the store has not come to: it was restored from a backup, and what was known is void.
    """

    def __init__(self, wanted: int, oldest: int) -> None:
        super().__init__(f"revision {wanted} is not known, the oldest is {oldest}")
        self.wanted = wanted
        self.oldest = oldest


class Unavailable(Exception):
    """The store cannot be reached, or cannot write: says what is wrong. Whether a write was done that ended so is not
    known; repeating it with the same ``expected`` does no harm.
    """


class Action(StrEnum):
    """What happened to a resource, in Kubernetes' words."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as it is kept: JSON, and the revision at which it was written last."""

    key: ResourceKey
    document: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Documents in the order of their keys, at ``revision``; ``more`` if the limit cut it off."""

    revision: int
    items: Sequence[Stored]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One change, at ``stored.revision``; a deleted document is told as it was last. ``who`` and ``when`` (seconds since the
    epoch) are for the history.
    """

    action: Action
    stored: Stored
    who: str = ""
    when: float = 0.0


class Store(Protocol):
    """Documents by their keys, with one revision that grows with each change, as etcd's.

    Kinds whose names begin with an underscore are the control plane's own (tokens, CA material, audit): they are changed
    by compare-and-swap like everything else, and never served as resources.
    What a call has returned survives `kill -9`. Namespaces and names have no white space and no control characters.
    Every call raises Unavailable when the store is out of reach.
    """

    async def revision(self) -> int:
        """The revision of the last change."""
        ...

    async def get(self, key: ResourceKey) -> Stored | None: ...

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        limit: int = 0,
        after: ResourceKey | None = None,
        revision: int | None = None,
    ) -> Listing:
        """Documents of a kind, of one namespace or of all; ``limit`` of them (0: all), those behind ``after``, as they were
        at ``revision`` (the newest by default). Raises Compacted.
        """
        ...

    async def put(self, key: ResourceKey, document: bytes, *, expected: int | None, who: str) -> Stored:
        """Write a document. It must be at revision ``expected``: 0 for one that must not exist, None for whatever is
        there. Raises Conflict, and then nothing is written.
        """
        ...

    async def delete(self, key: ResourceKey, *, expected: int | None, who: str) -> Stored | None:
        """Remove a document, and return it as it was, at the revision of its end; None if there was none.

        Raises Conflict if it is at another revision than ``expected``.
        """
        ...

    def watch(self, since: int, kinds: Collection[str] | None = None) -> AsyncGenerator[Event, None]:
        """All changes after revision ``since``, in order, as they come, of the given kinds or of all. Raises Compacted.

        Ends when the store is closed.
        """
        ...

    async def history(self, key: ResourceKey) -> Sequence[Event]:
        """Every change of one resource that is still remembered, the oldest first."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget what changed before ``revision``; what is there stays. The stores do it by themselves, within bounds."""
        ...

    async def close(self) -> None:
        """Finish what was begun, and end all watches."""
        ...
