"""Several control planes with one store: who of them is there, and which one does what must be done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol


class Election(Protocol):
    """Who of those that share a store leads: writes statuses, and cleans up after those that are gone."""

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


class Presence(Protocol):
    """Which control planes that share a store are running."""

    @property
    def identity(self) -> str:
        """This one's name, another one after each start."""
        ...

    async def run(self) -> None:
        """Be known to the others until cancelled."""
        ...

    async def alive(self) -> Collection[str]:
        """The identities of all that run, this one among them. Raises Unavailable."""
        ...
