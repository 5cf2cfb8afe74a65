"""From a document to a resource: all of it is judged, and everything that is wrong is told at once."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controlplane.model.causes import Cause, Invalid, Reason, joined
from controlplane.model.istio.selection import label_problems
from controlplane.model.kinds import KINDS, Kind
from controlplane.model.resource import FROM_API, Metadata, Model, Origin, Resource, ResourceKey
from controlplane.model.values import dns_label_complaint, dns_subdomain_complaint, label_key_complaint, shown

DEFAULT_NAMESPACE = "default"
"""The namespace of documents that name none."""

_ENVELOPE = ("apiVersion", "kind", "metadata", "status")
# Fields of ObjectMeta that are not read here: servers and other tools write them.
_METADATA_FIELDS = frozenset(
    (
        "annotations", "clusterName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
        "generateName", "generation", "initializers", "labels", "managedFields", "name", "namespace", "ownerReferences",
        "resourceVersion", "selfLink", "uid",
    )
)  # fmt: skip


def parse(document: Any, origin: Origin = FROM_API) -> Resource:
    """The resource that a document (JSON, as Python has it) describes.

    Raises Invalid with everything that is wrong.
    """
    kind = kind_of(document)
    metadata, causes = _metadata(document.get("metadata"), kind)
    body, path = _body(document, kind)
    spec: Model | None = None
    if body is None:
        causes.append(Cause("spec", "is required: say what the resource is", Reason.REQUIRED))
    else:
        try:
            spec = parse_model(kind.model, body, path)
        except Invalid as invalid:
            causes.extend(invalid.causes)
    if causes or spec is None:
        raise Invalid(causes)
    return Resource(ResourceKey(kind.name, metadata.namespace, metadata.name), metadata, spec, document, origin)


def kind_of(document: Any) -> Kind:
    """The kind of a document. Raises Invalid if it has none, or one that is not known in that version."""
    if not isinstance(document, Mapping):
        raise Invalid([Cause("", f"a resource is an object with apiVersion, kind and metadata, not {shown(document)}")])
    name, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(name, str) or not name:
        raise Invalid([Cause("kind", "is required: name the kind of the resource", Reason.REQUIRED)])
    kind = KINDS.get(name)
    if kind is None:
        message = f"{shown(name)} is not a kind that is known here{_suggestion(name, KINDS)}"
        raise Invalid([Cause("kind", message, Reason.NOT_SUPPORTED)])
    if not isinstance(version, str) or not version:
        raise Invalid([Cause("apiVersion", f"is required: write {kind.api_version}", Reason.REQUIRED)])
    if version not in kind.api_versions:
        message = f"{name} is not in {shown(version)}: use {' or '.join(kind.api_versions)}"
        raise Invalid([Cause("apiVersion", message, Reason.NOT_SUPPORTED)])
    return kind


def parse_model(model: type[Model], document: Any, path: str = "") -> Model:
    """One model from its part of a document, which stands at ``path``. Raises Invalid."""
    try:
        spec = model.model_validate(without_nulls(document), by_alias=True, by_name=False)
    except ValidationError as error:
        raise Invalid([_cause(model, each, path) for each in error.errors(include_url=False)]) from None
    causes = list(problems(spec, path))
    if causes:
        raise Invalid(causes)
    return spec


def problems(model: Model, path: str = "") -> Iterator[Cause]:
    """What a model and all that are below it say of themselves."""
    for cause in model.problems():
        yield cause.below(path)
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value and isinstance(value, (Model, tuple, Mapping)):
            yield from _problems_below(value, joined(path, field.alias or name))


def _problems_below(value: Any, path: str) -> Iterator[Cause]:
    if isinstance(value, Model):
        yield from problems(value, path)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            if not isinstance(item, Model):
                return
            yield from problems(item, f"{path}[{index}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(item, Model):
                return
            yield from problems(item, f"{path}[{key}]")


def without_nulls(value: Any) -> Any:
    """A document without the fields that are null, which mean the same as fields that are not there."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _body(document: Mapping[str, Any], kind: Kind) -> tuple[Any, str]:
    if kind.has_spec:
        required = any(field.is_required() for field in kind.model.model_fields.values())
        causes = [
            Cause(name, f"is not a field of {kind.name}{_suggestion(name, ('spec', *_ENVELOPE))}", unknown=True)
            for name in document
            if name not in _ENVELOPE and name != "spec"
        ]
        if causes:
            raise Invalid(causes)
        return document.get("spec", None if required else {}), "spec"
    return {name: value for name, value in document.items() if name not in _ENVELOPE}, ""


def _metadata(document: Any, kind: Kind) -> tuple[Metadata, list[Cause]]:
    if not isinstance(document, Mapping):
        return Metadata(""), [Cause("metadata.name", "is required: name the resource", Reason.REQUIRED)]
    causes = [
        Cause(f"metadata.{name}", f"is not a field of metadata{_suggestion(str(name), _METADATA_FIELDS)}", unknown=True)
        for name in document
        if name not in _METADATA_FIELDS
    ]
    name, namespace = document.get("name"), document.get("namespace")
    if not isinstance(name, str) or not name:
        causes.append(Cause("metadata.name", "is required: name the resource", Reason.REQUIRED))
        name = ""
    elif complaint := (dns_label_complaint if kind.name in ("Service", "Namespace") else dns_subdomain_complaint)(name):
        causes.append(Cause("metadata.name", complaint))
    if not kind.namespaced:
        if namespace:
            causes.append(Cause("metadata.namespace", f"a {kind.name} is in no namespace: remove it"))
        namespace = ""
    elif namespace is None or namespace == "":
        namespace = DEFAULT_NAMESPACE
    elif complaint := "must be a text" if not isinstance(namespace, str) else dns_label_complaint(namespace):
        causes.append(Cause("metadata.namespace", complaint))
    labels = _texts(document.get("labels"), "metadata.labels", causes)
    causes.extend(label_problems(labels, "metadata.labels"))
    annotations = _texts(document.get("annotations"), "metadata.annotations", causes)
    causes.extend(
        Cause(f"metadata.annotations[{key}]", complaint.replace("a label", "an annotation"))
        for key in annotations
        if (complaint := label_key_complaint(key.lower()))
    )
    generation = document.get("generation")
    return Metadata(
        name=name,
        namespace=namespace,
        labels=labels,
        annotations=annotations,
        uid=str(document.get("uid") or ""),
        resource_version=str(document.get("resourceVersion") or ""),
        generation=generation if isinstance(generation, int) else 0,
        created=_seconds(document.get("creationTimestamp"), causes),
    ), causes


def _texts(document: Any, path: str, causes: list[Cause]) -> Mapping[str, str]:
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        causes.append(Cause(path, f"must be an object of texts by names, not {shown(document)}"))
        return {}
    for key, value in document.items():
        if not isinstance(key, str) or not isinstance(value, str):
            causes.append(Cause(f"{path}[{key}]", f"must be a text, not {shown(value)}: put it in quotes"))
    return {key: value for key, value in document.items() if isinstance(key, str) and isinstance(value, str)}


def _seconds(time: Any, causes: list[Cause]) -> float:
    if time is None:
        return 0.0
    if isinstance(time, datetime):
        return time.timestamp()
    try:
        return datetime.fromisoformat(time).timestamp()
    except (TypeError, ValueError):
        causes.append(Cause("metadata.creationTimestamp", f"{shown(time)} is not a time of RFC 3339"))
        return 0.0


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
        return Cause(at, f"is not a field that is known here{_suggestion(name, fields)}", Reason.INVALID, unknown=True)
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
        owner = where if isinstance(where, type) and issubclass(where, Model) else None
        if isinstance(step, int):
            path, where = f"{path}[{step}]", _argument(where)
        elif owner is not None:
            path = joined(path, step)
            field = next((field for key, field in owner.model_fields.items() if (field.alias or key) == step), None)
            where = _without_none(field.annotation) if field else None
        elif typing.get_origin(where) is not None and isinstance(typing.get_origin(where), type):
            if issubclass(typing.get_origin(where), Mapping):  # type: ignore[arg-type]
                if step != "[key]":
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


def _suggestion(name: str, known: Sequence[str] | Mapping[str, Any] | frozenset[str]) -> str:
    lowered = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower().replace("_", ""), lowered, n=1, cutoff=0.6)
    return f": did you mean {lowered[close[0]]}?" if close else ": remove it"
