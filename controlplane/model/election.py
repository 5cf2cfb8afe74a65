"""One of several control planes does what must be done once: it writes statuses, and cleans up after those that are gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class Election(Protocol):
    """Who of those that share a store leads."""

    @property
    def leading(self) -> bool:
        """Whether this one does, as far as it knows. What it writes is compared and swapped all the same: for a moment
        another one may lead already.
        """
        ...

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Stand for election until cancelled. Whenever elected, call ``lead``, and cancel it when the lead is lost; when it
        returns by itself, this one still leads. Cancelled, it steps down at once.
        """
        ...
