"""What is different between two snapshots of a mesh: it decides who hears of it."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.model.resource import ResourceKey


@dataclass(frozen=True, slots=True)
class Changes:
    """``resources`` were added, changed or removed; ``services`` are the hostnames of services that came, went, or are
    different; ``endpoints`` are those of services whose endpoints, and nothing else of them, are different: for those an
    EDS delta is enough.
    """

    resources: frozenset[ResourceKey] = frozenset()
    endpoints: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()

    def __or__(self, other: Changes) -> Changes:
        """Both, merged: what a burst of changes amounts to."""
        return Changes(
            self.resources | other.resources, self.endpoints | other.endpoints, self.services | other.services
        )

    def __bool__(self) -> bool:
        return bool(self.resources or self.endpoints)
