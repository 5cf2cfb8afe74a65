"""From a part of a document to its model: what is wrong with fields and between them, in the words of causes."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controlplane.model.causes import Cause, Invalid, Reason, joined
from controlplane.model.resource import Model
from controlplane.model.values import shown

_DEEPEST: Final = 200
Parsed = TypeVar("Parsed", bound=Model)


def parse_model(model: type[Parsed], document: Any, path: str = "") -> Parsed:
    """One model from its part of a document, which stands at ``path``. Raises Invalid with all that is wrong."""
    body = without_nulls(document)
    causes: list[Cause] = []
    spec: Parsed | None = None
    try:
        spec = model.model_validate(body, by_alias=True, by_name=False)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        causes = [_cause(model, each, path) for each in errors]
        if all(cause.unknown for cause in causes):  # the rest can be judged as if they were not there
            for each in errors:
                _remove(body, each["loc"])
            spec = model.model_validate(body, by_alias=True, by_name=False)
    if spec is not None:
        causes.extend(problems(spec, path))
    if causes or spec is None:
        raise Invalid(causes)
    return spec


def _remove(body: Any, steps: Sequence[int | str]) -> None:
    for step in steps[:-1]:
        body = body[step]
    body.pop(steps[-1], None)


def problems(model: Model, path: str = "") -> Iterator[Cause]:
    """What a model and all that are below it say of themselves."""
    for at, each in models(model, path):
        for cause in each.problems():
            yield cause.below(at)


def models(model: Model, path: str = "") -> Iterator[tuple[str, Model]]:
    """A model and all that are below it, each with its path."""
    yield path, model
    for name, alias in _parts(type(model)):
        value = getattr(model, name)
        if value:
            yield from _models_below(value, joined(path, alias))


@cache
def _parts(model: type[Model]) -> tuple[tuple[str, str], ...]:
    """The fields of a model that can have other models in them, with their names in documents."""
    return tuple(
        (name, field.alias or name) for name, field in model.model_fields.items() if _has_models(field.annotation)
    )


def _has_models(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return True
    return any(_has_models(each) for each in typing.get_args(annotation))


def _models_below(value: Any, path: str) -> Iterator[tuple[str, Model]]:
    if isinstance(value, Model):
        yield from models(value, path)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            if not isinstance(item, Model):
                return
            yield from models(item, f"{path}[{index}]")
    else:
        for key, item in value.items():
            if not isinstance(item, Model):
                return
            yield from models(item, f"{path}[{key}]")


def without_nulls(value: Any, depth: int = 0) -> Any:
    """A document without the fields that are null, which mean the same as fields that are not there.

    Names that YAML reads as numbers (ports, mostly) become texts, as in JSON. Raises Invalid if it is nested too deeply.
    """
    if depth > _DEEPEST:
        raise Invalid([Cause("", f"is nested more than {_DEEPEST} levels deep: no resource is")])
    if isinstance(value, Mapping):
        return {
            str(key) if type(key) is int else key: without_nulls(item, depth + 1)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [without_nulls(item, depth + 1) for item in value]
    return value


# --- What pydantic finds, in the words of causes


def _cause(model: type[Model], error: ErrorDetails, path: str) -> Cause:
    at, owner = _located(model, error["loc"], path)
    code, value = error["type"], error.get("input")
    if code in Reason.__members__.values():
        return Cause(at, error["msg"], Reason(code))
    if code == "missing":
        return Cause(at, "is required: add it", Reason.REQUIRED)
    if code == "extra_forbidden":
        name = str(error["loc"][-1])
        fields = [field.alias or key for key, field in owner.model_fields.items()] if owner else []
        return Cause(at, f"is not a field that is known here{suggestion(name, fields)}", Reason.INVALID, unknown=True)
    if code == "literal_error":
        expected = error.get("ctx", {}).get("expected", "").replace("'", "").replace(" or ", ", ")
        return Cause(at, f"{shown(value)} is not supported: use one of {expected}", Reason.NOT_SUPPORTED)
    return Cause(at, f"must be {_SHAPES.get(code, error['msg'])}, not {shown(value)}")


_SHAPES = {
    "string_type": "a text (put it in quotes)",
    "int_type": "a whole number, without quotes",
    "int_from_float": "a whole number",
    "float_type": "a number, without quotes",
    "bool_type": "true or false, without quotes",
    "tuple_type": "a list",
    "mapping_type": "an object of values by names",
    "dict_type": "an object of values by names",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _located(model: type[Model], steps: Sequence[int | str], path: str) -> tuple[str, type[Model] | None]:
    """The path of pydantic's steps, and the model whose field the last step is."""
    where: Any = model
    owner: type[Model] | None = model
    for step in steps:
        if step == "[key]":
            continue  # not the value but its name is wrong: the path is the same
        owner = where if isinstance(where, type) and issubclass(where, Model) else None
        if isinstance(step, int):
            path, where = f"{path}[{step}]", _argument(where)
        elif owner is not None:
            path = joined(path, step)
            field = next((field for key, field in owner.model_fields.items() if (field.alias or key) == step), None)
            where = _without_none(field.annotation) if field else None
        elif typing.get_origin(where) is not None and isinstance(typing.get_origin(where), type):
            if issubclass(typing.get_origin(where), Mapping):  # type: ignore[arg-type]
                path, where = f"{path}[{step}]", _argument(where)
        else:
            where = None  # a branch of a union, which says nothing to a reader
    return path, owner


def _argument(annotation: Any) -> Any:
    """What a list has for items, a mapping for values."""
    arguments = [each for each in typing.get_args(annotation) if each is not Ellipsis]
    return _without_none(arguments[-1]) if arguments else None


def _without_none(annotation: Any) -> Any:
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    choices = [each for each in typing.get_args(annotation) if each is not type(None)]
    if type(None) in typing.get_args(annotation) and len(choices) == 1:
        return _without_none(choices[0])
    return annotation


def suggestion(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the known one that was meant, or that it must go."""
    lowered = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower().replace("_", ""), lowered, n=1, cutoff=0.6)
    return f": did you mean {lowered[close[0]]}?" if close else ": remove it"
