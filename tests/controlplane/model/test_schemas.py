"""Schemas: every kind has one, they are complete in themselves, and say what the models say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.model.descriptions import DESCRIPTIONS
from controlplane.model.kinds import KINDS
from controlplane.model.schemas import openapi_schemas, schema_name

_GROUP_VERSIONS = sorted({(kind.group, version) for kind in KINDS.values() for version in kind.versions})


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


@pytest.mark.parametrize(("group", "version"), _GROUP_VERSIONS)
def test_schemas_of_a_group_refer_to_nothing_outside_of_them(group: str, version: str) -> None:
    schemas = openapi_schemas(group, version)
    dangling = {ref for ref in _references(schemas) if ref.removeprefix("#/components/schemas/") not in schemas}
    assert dangling == set()
    for kind in KINDS.values():
        if kind.group == group and version in kind.versions:
            known = schemas[schema_name(kind, version)]["x-kubernetes-group-version-kind"]
            assert known == [{"group": group, "version": version, "kind": kind.name}]


def test_what_may_be_left_out_is_not_required_and_null_is_no_type() -> None:
    schemas = openapi_schemas("networking.istio.io", "v1")
    route = schemas["mizzen.VirtualService.HTTPRoute"]
    assert route["properties"]["retries"]["description"] == schemas["mizzen.VirtualService.HTTPRetry"]["description"]
    assert route["properties"]["mirrors"]["description"].startswith("A copy of requests")
    assert route["properties"]["timeout"]["type"] == "string" and "required" not in route
    assert schemas["mizzen.VirtualService.Destination"]["required"] == ["host"]
    resolution = schemas["mizzen.ServiceEntry.ServiceEntry"]["properties"]["resolution"]
    assert resolution["enum"] == ["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"] and resolution["type"] == "string"


def test_descriptions_are_of_fields_that_there_are() -> None:
    schemas = {name.rpartition(".")[2]: schema for name, schema in _all_schemas().items()}
    for model, fields in DESCRIPTIONS.items():
        assert set(fields) <= set(schemas[model]["properties"]), model
        assert all(schemas[model]["properties"][name]["description"] == text for name, text in fields.items())


def _all_schemas() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group, version in _GROUP_VERSIONS:
        found |= {name: each for name, each in openapi_schemas(group, version).items() if name.startswith("mizzen.")}
    own = {name: each for name, each in found.items() if not name.startswith("mizzen.Service.")}
    return found | own


def test_what_is_passed_over_and_how_lists_are_merged_is_in_the_schemas_of_the_core() -> None:
    schemas = openapi_schemas("", "v1")
    assert "`targetPort` is a number" in schemas["mizzen.Service.ServicePort"]["description"]
    service = schemas["mizzen.Service.Service"]["properties"]
    assert "sessionAffinity" in service and "type" not in service["sessionAffinity"]
    assert service["ports"]["x-kubernetes-patch-merge-key"] == "port"
    target = schemas["mizzen.Service.ServicePort"]["properties"]["targetPort"]
    assert target["x-kubernetes-int-or-string"] is True and "type" not in target
    assert schemas["io.k8s.api.core.v1.Secret"]["properties"]["data"]["additionalProperties"] == {"type": "string"}
