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


class Memo:
    """Results by their inputs, for all proxies and across snapshots.

    The key names what is made and holds everything that it is made from: resources and services are compared by identity,
    so that a change of one of them makes another key. Results that nobody asked for during ``patience`` snapshots are
    forgotten.
    """

    __slots__ = ("_patience", "_results", "_round")

    def __init__(self, patience: int = 64) -> None:
        self._results: dict[Hashable, list[Any]] = {}
        self._round = 0
        self._patience = patience

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result for ``key``, made by ``make()`` if there is none yet."""
        found = self._results.get(key)
        if found is None:
            found = self._results[key] = [make(), self._round]
        else:
            found[1] = self._round
        result: T = found[0]
        return result

    def turn(self) -> None:
        """Another snapshot: what was not asked for in a long while goes."""
        self._round += 1
        if self._round % self._patience == 0:
            oldest = self._round - self._patience
            self._results = {key: found for key, found in self._results.items() if found[1] >= oldest}

    def __len__(self) -> int:
        return len(self._results)
