"""Results that are kept for as long as what they were made from is the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Same:
    """An object as a part of a key, compared by identity: what is frozen, but cannot be hashed."""

    __slots__ = ("object",)

    def __init__(self, object_: object) -> None:
        self.object = object_

    def __hash__(self) -> int:
        return id(self.object)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.object is self.object


class _Results:
    """Results by their keys, and the snapshot in which each was asked for last."""

    __slots__ = ("_results", "_round")

    def __init__(self) -> None:
        self._results: dict[Hashable, list[Any]] = {}
        self._round = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result for ``key``, made by ``make()`` if there is none yet."""
        found = self._results.get(key)
        if found is None:
            found = self._results[key] = [make(), self._round]
        else:
            found[1] = self._round
        result: T = found[0]
        return result

    def forget(self, rounds: int) -> None:
        """What nobody asked for in the last ``rounds`` snapshots goes."""
        oldest = self._round - rounds
        self._results = {key: found for key, found in self._results.items() if found[1] >= oldest}

    def __len__(self) -> int:
        return len(self._results)


class BriefMemo(_Results):
    """For what is large or changes often, and is shared within a snapshot above all: it goes after a few snapshots."""

    __slots__ = ()

    def turn(self) -> None:
        """Another snapshot."""
        self._round += 1
        if self._round % _BRIEF == 0:
            self.forget(_BRIEF)


class Memo(_Results):
    """Results by their inputs, for all proxies and across snapshots.

    The key names what is made and holds everything that it is made from: resources and services are compared by identity,
    so that a change of one of them makes another key. What nobody asks for stays until there are several times as many
    results as were left the last time. ``brief`` keeps load assignments and whole route configurations.
    """

    __slots__ = ("_most", "brief")

    def __init__(self) -> None:
        super().__init__()
        self.brief = BriefMemo()
        self._most = _FLOOR

    def turn(self) -> None:
        """Another snapshot."""
        self.brief.turn()
        self._round += 1
        if len(self._results) > self._most:
            self.forget(_RECENT)
            self._most = max(_FLOOR, _GROWTH * len(self._results))


_BRIEF = 4  # snapshots
_RECENT = 64  # snapshots
_GROWTH = 3
_FLOOR = 20_000  # results
