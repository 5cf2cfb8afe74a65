"""Models that let fields pass which say nothing to a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator

from controlplane.model.resource import Model


class Tolerant(Model):
    """A model of one of Kubernetes' own objects: the fields of ``passed_over`` may be there, and are not read.

    ``merge_keys`` says, for lists that a strategic merge patch merges item by item, which field tells the items apart; all
    other lists are replaced as a whole.
    """

    passed_over: ClassVar[frozenset[str]] = frozenset()
    merge_keys: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _pass_over(cls, document: Any) -> Any:
        if isinstance(document, dict) and not cls.passed_over.isdisjoint(document):
            return {name: value for name, value in document.items() if name not in cls.passed_over}
        return document
