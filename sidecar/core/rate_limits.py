"""What of a request or a connection is counted by rate limits, in the form in which filters and services pass it on."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Entry: TypeAlias = tuple[bytes, bytes]
"""Key and value."""

Limit: TypeAlias = tuple[int, str]
"""So many requests per unit: ``SECOND``, ``MINUTE``, ``HOUR``, ``DAY``, ``MONTH`` or ``YEAR``."""


class Descriptor(NamedTuple):
    """One that is counted: the entries, how many times (None: as often as the request), and another limit than usual."""

    entries: tuple[Entry, ...]
    hits_addend: int | None = None
    limit: Limit | None = None
