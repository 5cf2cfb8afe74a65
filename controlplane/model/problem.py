"""What is wrong with a source of configuration, for the statuses and for those who ask why something has no effect."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.model.resource import Origin, ResourceKey


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of a source that is not in effect: where it is, what is wrong, and what holds meanwhile.

    ``key`` is the resource's, if so much of it could be read.
    """

    origin: Origin
    message: str
    key: ResourceKey | None = None

    def __str__(self) -> str:
        return f"{self.origin}: {self.key}: {self.message}" if self.key else f"{self.origin}: {self.message}"
