"""A resource as every stage sees it: what it is called, where it comes from, and what it says, as a strict model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel

from controlplane.model.causes import Cause


class ResourceKey(NamedTuple):
    """What tells resources apart. ``kind`` is the kind's name ("VirtualService"); cluster-wide kinds have no namespace."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Metadata:
    """Kubernetes' ObjectMeta, as far as a mesh reads it. ``created`` is in seconds since the epoch."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a resource comes from: a source ("api", "files"), and for files the place of its document.

    Only what comes from the API can be changed there.
    """

    source: str = "api"
    path: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.path else self.source


FROM_API = Origin()


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One resource that has been judged and is right.

    ``spec`` is the kind's model: of the document's `spec`, or of all of its body where the kind has no `spec` (Secret,
    ConfigMap, Endpoints, ...). ``document`` is the JSON object as it was written, with `apiVersion`, `kind` and `metadata`.
    Compared by identity: a change makes another object.
    """

    key: ResourceKey
    metadata: Metadata
    spec: Any
    document: Mapping[str, Any]
    origin: Origin = FROM_API

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def namespace(self) -> str:
        return self.key.namespace

    def __repr__(self) -> str:
        return f"<Resource {self.key} of {self.origin}>"


class Model(BaseModel):
    """The base of all models of resources: strict in names, camelCase in documents, snake_case here, frozen.

    A field that is not in the model is an error: what is not implemented is refused by its path.
    """

    model_config = {
        "extra": "forbid",
        "frozen": True,
        "populate_by_name": True,
        "alias_generator": lambda name: camel_case(name),
    }

    def problems(self) -> Iterable[Cause]:
        """What is wrong with these fields together, though each of them is right; paths begin here, not at the document.

        Models say it of themselves and leave what is below them to the models there.
        """
        return ()


def camel_case(name: str) -> str:
    """A field's name as documents have it: "perTryTimeout" for "per_try_timeout"."""
    first, *others = name.rstrip("_").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)
