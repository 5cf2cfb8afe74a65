"""The forms in which resources are answered: as they are, as a Table for `kubectl get`, or their metadata alone.

Source: Kubernetes' API concepts, "Receiving resources as Tables" and "Metadata-only fetches".
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import orjson

from controlplane.api.status import ApiError
from controlplane.model.kinds import Column, Kind

_META = "meta.k8s.io"
_VERSIONS = ("v1", "v1beta1")


class Shape(Enum):
    """What becomes of each resource in an answer."""

    OBJECT = "Object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Form:
    """What a client asked for by Accept; ``version`` is of meta.k8s.io; ``included`` is what a table's rows have of their
    resource ("None", "Metadata", "Object").
    """

    shape: Shape = Shape.OBJECT
    version: str = "v1"
    included: str = "Metadata"

    @property
    def api_version(self) -> str:
        """apiVersion of tables and metadata."""
        return f"{_META}/{self.version}"


def form_of(accept: str, included: str = "") -> Form:
    """The first form in an Accept header that can be served. Raises ApiError 406 if there is none."""
    if included not in ("", "None", "Metadata", "Object"):
        raise ApiError(400, f'includeObject must be None, Metadata or Object, not "{included}"')
    for choice in accept.split(",") if accept.strip() else ["*/*"]:
        media_type, *parameters = (part.strip() for part in choice.split(";"))
        if media_type.lower() not in ("application/json", "*/*", "application/*"):
            continue
        told = dict(part.partition("=")[::2] for part in parameters)
        shape = told.get("as")
        if shape is None:
            return Form()
        for known in (Shape.TABLE, Shape.METADATA):
            if shape.removesuffix("List") == known.value and told.get("g") == _META and told.get("v") in _VERSIONS:
                return Form(known, told["v"], included or "Metadata")
    raise ApiError(
        406, "only the following media types are accepted: application/json, also as=Table and as=PartialObjectMetadata"
    )


def definitions(kind: Kind) -> list[dict[str, Any]]:
    """The columns of a kind: its name, its own ones, its age."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": "name" if column.name == "Name" else "",
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns_of(kind)
    ]


@cache
def columns_of(kind: Kind) -> Sequence[Column]:
    """The columns of a kind's tables."""
    own = list(kind.columns)
    if not any(column.name == "Name" for column in own):
        own.insert(0, _NAME)
    if not any(column.name == "Age" for column in own):
        # Age stands before the columns that only `-o wide` shows.
        own.insert(next((at for at, column in enumerate(own) if column.priority), len(own)), _AGE)
    return tuple(own)


def row(kind: Kind, document: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """One resource as a row."""
    cells = [_cell(column, document) for column in columns_of(kind)]
    if form.included == "None":
        return {"cells": cells}
    return {"cells": cells, "object": document if form.included == "Object" else partial(document, form)}


def partial(document: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """The metadata of a resource alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": form.api_version, "metadata": document["metadata"]}


def shaped(kind: Kind, document: Mapping[str, Any], form: Form, *, headed: bool = True) -> Mapping[str, Any]:
    """One resource in the form that was asked for; ``headed`` tells the columns, too."""
    match form.shape:
        case Shape.OBJECT:
            return document
        case Shape.METADATA:
            return partial(document, form)
        case Shape.TABLE:
            return table(
                kind, [row(kind, document, form)], form, document["metadata"].get("resourceVersion", ""), headed
            )


def table(
    kind: Kind, rows: Sequence[Mapping[str, Any]], form: Form, revision: str, headed: bool = True
) -> dict[str, Any]:
    """A Table."""
    return {
        "kind": "Table",
        "apiVersion": form.api_version,
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": definitions(kind) if headed else [],
        "rows": rows,
    }


def human_duration(seconds: float) -> str:
    """An age as kubectl tells it: the larger, the coarser ("45s", "3m10s", "5h", "3d4h", "2y10d")."""
    total = int(seconds)
    if total < 0:
        return "0s" if total >= -1 else "<invalid>"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _age(text: Any) -> str:
    try:
        created = datetime.datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return "<unknown>"
    return human_duration(time.time() - created)


def _cell(column: Column, document: Mapping[str, Any]) -> Any:
    value = column.cell(document)
    if column.type == "date":
        return _age(value)
    if isinstance(value, list | tuple):
        # As kubectl shows lists of Istio's custom resources.
        return orjson.dumps(value).decode()
    return "" if value is None and column.type == "string" else value


_NAME = Column("Name", lambda document: document["metadata"]["name"], description="The name of the resource.")
_AGE = Column(
    "Age",
    lambda document: document["metadata"].get("creationTimestamp"),
    "date",
    description="The time since it was made.",
)
