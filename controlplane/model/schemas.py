"""The models as OpenAPI v3 schemas in Kubernetes' manner: what `kubectl explain`, and clients that check, read.

Schemas say what fields there are and what they may be; what holds between fields is judged when a document is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from controlplane.model.descriptions import DESCRIPTIONS
from controlplane.model.kinds import KINDS, Kind
from controlplane.model.kubernetes.tolerance import Tolerant
from controlplane.model.resource import camel_case

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_NAMED = re.compile(r"``(\w+)``")  # fields, as docstrings name them
_REF = "#/components/schemas/{model}"


def schema_name(kind: Kind, version: str) -> str:
    """The name of a kind's schema, as Kubernetes makes them: "io.istio.networking.v1.VirtualService"."""
    if not kind.group:
        return f"io.k8s.api.core.{version}.{kind.name}"
    if kind.group.endswith(".k8s.io"):
        return f"io.k8s.api.{kind.group.partition('.')[0]}.{version}.{kind.name}"
    return f"{'.'.join(reversed(kind.group.split('.')))}.{version}.{kind.name}"


def openapi_schemas(group: str, version: str) -> dict[str, Any]:
    """`components.schemas` of a group and version: its kinds, their lists, and everything that they refer to."""
    schemas: dict[str, Any] = dict(_meta_schemas())
    for kind in KINDS.values():
        if kind.group != group or version not in kind.versions:
            continue
        name = schema_name(kind, version)
        schemas.update(_definitions(kind))
        schemas[name] = _resource_schema(kind, version)
        schemas[f"{name}List"] = _list_schema(kind, version)
    return schemas


def _resource_schema(kind: Kind, version: str) -> dict[str, Any]:
    body = _body_schema(kind)
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": "The group and version, such as " + kind.api_version + "."},
        "kind": {"type": "string", "description": f"{kind.name}."},
        "metadata": {"allOf": [{"$ref": _REF.format(model=OBJECT_META)}], "default": {}},
    }
    required: list[str] = []
    if kind.has_spec:
        properties["spec"] = {"allOf": [{"$ref": _REF.format(model=_model_name(kind))}], "default": {}}
        if body.get("required"):
            required = ["spec"]
    else:
        properties.update(body.get("properties", {}))
        required = list(body.get("required", ()))
    properties["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema: dict[str, Any] = {
        "type": "object",
        "description": body.get("description", kind.name),
        "properties": properties,
        "x-kubernetes-group-version-kind": [{"group": kind.group, "version": version, "kind": kind.name}],
    }
    if required:
        schema["required"] = required
    return schema


def _list_schema(kind: Kind, version: str) -> dict[str, Any]:
    item = {"allOf": [{"$ref": _REF.format(model=schema_name(kind, version))}], "default": {}}
    return {
        "type": "object",
        "description": f"A list of {kind.plural}.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [{"$ref": _REF.format(model=LIST_META)}], "default": {}},
            "items": {"type": "array", "items": item},
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [{"group": kind.group, "version": version, "kind": f"{kind.name}List"}],
    }


def _model_name(kind: Kind) -> str:
    return f"{_prefix(kind)}.{kind.model.__name__}"


def _prefix(kind: Kind) -> str:
    """What stands before the names of a kind's parts, so that those of two kinds never meet."""
    return f"mizzen.{kind.name}"


@cache
def _definitions(kind: Kind) -> Mapping[str, Any]:
    template = f"#/components/schemas/{_prefix(kind)}.{{model}}"
    schema = kind.model.model_json_schema(by_alias=True, ref_template=template, schema_generator=_Generator)
    parts = schema.pop("$defs", {})
    parts[kind.model.__name__] = schema
    plain = {f"{_prefix(kind)}.{name}": _plain(part) for name, part in parts.items()}
    for name, part in plain.items():
        sentences = DESCRIPTIONS.get(name.rpartition(".")[2], {})
        for field_name, field in part.get("properties", {}).items():
            _describe(field, plain)
            if field_name in sentences:
                field["description"] = sentences[field_name]
    return plain


def _describe(field: dict[str, Any], parts: Mapping[str, Any]) -> None:
    """Give a field whose value (or items) are another part that part's first sentence, for those who look at the field."""
    values = (field, field.get("items"), field.get("additionalProperties"))
    part = next((each["allOf"][0]["$ref"] for each in values if isinstance(each, dict) and "allOf" in each), "")
    described = parts.get(part.rpartition("/")[2], {}).get("description", "")
    if described:
        field.setdefault("description", described.partition("\n\n")[0])


def _body_schema(kind: Kind) -> dict[str, Any]:
    body: dict[str, Any] = _definitions(kind)[_model_name(kind)]
    return body


class _Generator(GenerateJsonSchema):
    """Schemas as Kubernetes has them: what may be left out is just not required, and null is no type."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        # A default that were told would be written into documents by clients, and look as if the user had said it.
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """The schema of a model, with the fields that it passes over, and the keys by which patches merge its lists."""
        described = super().model_schema(schema)
        model = schema["cls"]
        if issubclass(model, Tolerant):
            properties = described.setdefault("properties", {})
            for name in sorted(model.passed_over):
                properties[name] = {"description": "Passed over: it says nothing to a mesh."}
            for name, key in model.merge_keys.items():
                properties[name] |= {"x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge"}
        return described


def _plain(schema: Any) -> Any:
    """A schema without what Kubernetes does not read, with references as it wants them."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"allOf": [{"$ref": schema["$ref"]}]} | (
            {"description": schema["description"]} if "description" in schema else {}
        )
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "properties":
            plain[key] = {name: _plain(each) for name, each in value.items()}
        elif (key == "additionalProperties" and value is False) or key == "propertyNames":
            continue
        elif key == "additionalProperties" and value is True:
            plain["x-kubernetes-preserve-unknown-fields"] = True
        elif key == "const":
            plain["enum"] = [value]
        elif key == "description":
            plain[key] = _NAMED.sub(lambda match: f"`{camel_case(match[1])}`", value)
        else:
            plain[key] = _plain(value)
    return plain


@cache
def _meta_schemas() -> Mapping[str, Any]:
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    time = {"type": "string", "format": "date-time"}
    return {
        OBJECT_META: {
            "type": "object",
            "description": "What a resource is called, and what is noted of it.",
            "properties": {
                "annotations": texts,
                "creationTimestamp": time,
                "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
                "deletionTimestamp": time,
                "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-patch-strategy": "merge"},
                "generateName": {"type": "string"},
                "generation": {"type": "integer", "format": "int64"},
                "labels": texts,
                "managedFields": {
                    "type": "array",
                    "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
                "name": {"type": "string"},
                "namespace": {"type": "string"},
                "ownerReferences": {
                    "type": "array",
                    "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "x-kubernetes-patch-merge-key": "uid",
                    "x-kubernetes-patch-strategy": "merge",
                },
                "resourceVersion": {"type": "string"},
                "selfLink": {"type": "string"},
                "uid": {"type": "string"},
            },
        },
        LIST_META: {
            "type": "object",
            "description": "At which revision a list was made, and where it goes on.",
            "properties": {
                "continue": {"type": "string"},
                "remainingItemCount": {"type": "integer", "format": "int64"},
                "resourceVersion": {"type": "string"},
                "selfLink": {"type": "string"},
            },
        },
    }
