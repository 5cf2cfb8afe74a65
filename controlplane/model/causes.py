"""What is wrong with a document, field by field, in the words in which Kubernetes' Status tells it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Kubernetes' reasons of a cause (`StatusCause.reason`)."""

    INVALID = "FieldValueInvalid"
    REQUIRED = "FieldValueRequired"
    NOT_SUPPORTED = "FieldValueNotSupported"
    DUPLICATE = "FieldValueDuplicate"


@dataclass(frozen=True, slots=True)
class Cause:
    """One fault: the path of its field ("spec.http[0].route[1].weight"), and what is wrong and what to do about it.

    ``unknown`` says that the field itself is none that is known here, whatever it says.
    """

    path: str
    message: str
    reason: Reason = Reason.INVALID
    unknown: bool = False

    def below(self, parent: str) -> Cause:
        """The same cause, as seen from outside of ``parent``."""
        return Cause(joined(parent, self.path), self.message, self.reason, self.unknown)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Invalid(ValueError):
    """A document that is refused, with everything that is wrong with it."""

    def __init__(self, causes: Iterable[Cause]) -> None:
        self.causes = tuple(causes)
        super().__init__("; ".join(map(str, self.causes)))


def joined(parent: str, path: str) -> str:
    """A field's path below its parent's: "spec" and "http[0]" make "spec.http[0]", "headers" and "[x]" "headers[x]"."""
    if not parent or not path:
        return parent or path
    return parent + path if path.startswith("[") else f"{parent}.{path}"
