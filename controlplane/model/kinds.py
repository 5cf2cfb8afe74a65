"""The kinds of resources: what they are called, in which versions they are accepted, how `kubectl get` shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.model.resource import Model


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table answer: its heading, OpenAPI type ("string", "integer", "date"), and its cell for a document.

    Columns of a ``priority`` above 0 are shown by `-o wide` alone.
    """

    name: str
    cell: Callable[[Mapping[str, Any]], Any]
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource, served below `/apis/{group}/{version}` (`/api/v1` where ``group`` is empty).

    ``versions`` are the accepted ones, the preferred one first; all have the same shape. ``model`` is of the document's
    `spec` if ``has_spec``, else of its whole body but for `apiVersion`, `kind`, `metadata` and `status`.
    """

    name: str
    group: str
    versions: tuple[str, ...]
    plural: str
    singular: str
    model: type[Model]
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    has_spec: bool = True
    columns: tuple[Column, ...] = ()

    @property
    def api_version(self) -> str:
        """`apiVersion` of the preferred version."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]
