"""The OpenAPI documents, v2 and v3: definitions, and the operations by which kubectl learns what patches it may send.

Source: the OpenAPI specification 2.0 and 3.0.0; Kubernetes' extensions `x-kubernetes-*`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from controlplane.api.discovery import Registry
from controlplane.api.strategic import is_built_in
from controlplane.model.kinds import Kind
from controlplane.model.schemas import openapi_schemas

Schema = dict[str, Any]

_VERBS = {"get": "get", "put": "put", "patch": "patch", "delete": "delete"}
_PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"
_QUERY = {
    "dryRun": "With All, nothing is written.",
    "fieldManager": "Taken and not used.",
    "fieldValidation": "Ignore, Warn or Strict; unknown fields are refused with each of them.",
}


class OpenApi:
    """Made from the registry's models, at the first question: it takes a moment."""

    def __init__(self, registry: Registry, version: str) -> None:
        self._registry = registry
        self._info = {"title": "Mizzen", "version": version}
        self._v3 = {
            (group, version): self._document(group, version)
            for group, versions in registry.groups.items()
            for version in versions
        }

    def v2(self) -> dict[str, Any]:
        """`/openapi/v2`."""
        paths: dict[str, Any] = {}
        schemas: dict[str, Any] = {}
        for group, version in self._v3:
            schemas.update(_in_v2(self._v3[group, version]["components"]["schemas"]))
            for kind in self._registry.served(group, version):
                path, item = self._path(kind, version)
                paths[path] = item
        return {"swagger": "2.0", "info": self._info, "paths": paths, "definitions": schemas}

    def v3_index(self) -> dict[str, Any]:
        """`/openapi/v3`: where the documents of each group and version are; the hash lets clients keep them."""
        paths = {}
        for (group, version), document in self._v3.items():
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            hashed = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest().upper()
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={hashed}"}
        return {"paths": paths}

    def v3(self, group: str, version: str) -> dict[str, Any] | None:
        """`/openapi/v3/apis/GROUP/VERSION` and `/openapi/v3/api/v1`."""
        return self._v3.get((group, version))

    def _document(self, group: str, version: str) -> dict[str, Any]:
        paths = {}
        for kind in self._registry.served(group, version):
            path, item = self._path(kind, version)
            paths[path] = _in_v3(item)
        schemas = openapi_schemas(group, version)
        return {"openapi": "3.0.0", "info": self._info, "paths": paths, "components": {"schemas": schemas}}

    def _path(self, kind: Kind, version: str) -> tuple[str, dict[str, Any]]:
        group = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
        namespaced = "/namespaces/{namespace}" if kind.namespaced else ""
        names = ["namespace", "name"] if kind.namespaced else ["name"]
        item: dict[str, Any] = {"parameters": [_path_parameter(name) for name in names]}
        for verb, action in _VERBS.items():
            item[verb] = {
                "operationId": f"{verb}{kind.group.title().replace('.', '')}{version.title()}{kind.name}",
                "parameters": [] if verb == "get" else [_query_parameter(name) for name in _QUERY],
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.name, "version": version},
            }
        item["patch"]["consumes"] = [*_PATCH_TYPES, _STRATEGIC] if is_built_in(kind) else list(_PATCH_TYPES)
        return f"{group}{namespaced}/{kind.plural}/{{name}}", item


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "type": "string"}


def _query_parameter(name: str) -> Schema:
    return {"name": name, "in": "query", "description": _QUERY[name], "type": "string"}


def _in_v3(item: dict[str, Any]) -> dict[str, Any]:
    converted: dict[str, Any] = {"parameters": [_parameter_in_v3(one) for one in item["parameters"]]}
    for verb in _VERBS:
        operation = {name: value for name, value in item[verb].items() if name != "consumes"}
        operation["parameters"] = [_parameter_in_v3(one) for one in operation["parameters"]]
        if "consumes" in item[verb]:
            operation["requestBody"] = {
                "content": {name: {"schema": {"type": "object"}} for name in item[verb]["consumes"]}
            }
        converted[verb] = operation
    return converted


def _parameter_in_v3(parameter: Schema) -> Schema:
    return {
        **{name: value for name, value in parameter.items() if name != "type"},
        "schema": {"type": parameter["type"]},
    }


def _in_v2(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 in the words of 2.0, and as far as gnostic's messages have a place for it."""
    if isinstance(schema, list):
        return [_in_v2(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    if "allOf" in schema:
        return _in_v2(schema["allOf"][0])
    if isinstance(schema.get("$ref"), str):
        return {"$ref": schema["$ref"].replace("#/components/schemas/", "#/definitions/")}
    if "x-kubernetes-int-or-string" in schema:
        return {**schema, "type": "string", "format": "int-or-string"}
    return {
        name: {one: _in_v2(value) for one, value in told.items()} if name == "properties" else _in_v2(told)
        for name, told in schema.items()
        if name != "default"
    }
