"""Fields of which a document may have one: what protobuf calls a oneof."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.model.causes import Cause, Reason
from controlplane.model.resource import Model


def field_name(model: Model, name: str) -> str:
    """A field's name as documents have it ("perTryTimeout" for "per_try_timeout")."""
    return type(model).model_fields[name].alias or name


def is_given(model: Model, name: str) -> bool:
    """Whether a field says anything: a list that is empty does not."""
    value = getattr(model, name)
    return value is not None and value != () and value != {}


def exclusive(model: Model, *names: str, required: bool = False) -> Iterator[Cause]:
    """Causes if more than one of these fields is given, or none where one is ``required``."""
    given = [name for name in names if is_given(model, name)]
    if len(given) > 1:
        fields = " and ".join(field_name(model, name) for name in given)
        for name in given[1:]:
            yield Cause(field_name(model, name), f"{fields} exclude each other: keep one of them")
    if required and not given:
        choice = ", ".join(field_name(model, name) for name in names)
        yield Cause("", f"one of {choice} is required: add it", Reason.REQUIRED)
