"""Where documents come from, as the catalogue sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.model.problem import Problem
from controlplane.model.resource import Origin, ResourceKey


@dataclass(frozen=True, slots=True)
class Document:
    """What a source says of one resource, not judged yet: a JSON object."""

    key: ResourceKey
    body: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Update:
    """What is new in a source: documents, or None for those that are gone.

    ``whole`` says that there is nothing else in the source. ``problems`` are all that the source itself has at present;
    those that judging its documents finds are not among them.
    """

    documents: Mapping[ResourceKey, Document | None] = field(default_factory=dict)
    whole: bool = False
    problems: Sequence[Problem] = ()


class Source(Protocol):
    """Documents of one origin."""

    @property
    def name(self) -> str:
        """As in `Origin.source`."""
        ...

    def updates(self) -> AsyncGenerator[Update, None]:
        """First everything that there is, then what changes, as it changes. Recovers from all that may pass by itself."""
        ...
