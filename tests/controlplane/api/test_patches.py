"""JSON patch (RFC 6902), merge patch (RFC 7396) and strategic merge patch, by tables."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.patches import json_patch, merge_patch
from controlplane.api.status import ApiError
from controlplane.api.strategic import MERGE_KEYS, merge_key, strategic_merge
from controlplane.model.kinds import KINDS
from controlplane.model.schemas import openapi_schemas

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_as_the_rfc_has_them(target: Any, patch: Any, merged: Any) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == merged
    assert target == before


@pytest.mark.parametrize(
    ("operations", "patched"),
    [
        ([{"op": "add", "path": "/c", "value": 1}], {"a": [1, 2], "b": {"x~/y": 0}, "c": 1}),
        ([{"op": "add", "path": "/a/1", "value": 9}], {"a": [1, 9, 2], "b": {"x~/y": 0}}),
        ([{"op": "add", "path": "/a/-", "value": 9}], {"a": [1, 2, 9], "b": {"x~/y": 0}}),
        ([{"op": "add", "path": "", "value": {"new": 1}}], {"new": 1}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2], "b": {"x~/y": 0}}),
        ([{"op": "remove", "path": "/b/x~0~1y"}], {"a": [1, 2], "b": {}}),
        ([{"op": "replace", "path": "/a", "value": None}], {"a": None, "b": {"x~/y": 0}}),
        ([{"op": "replace", "path": "", "value": {}}], {}),
        ([{"op": "move", "from": "/a/0", "path": "/a/1"}], {"a": [2, 1], "b": {"x~/y": 0}}),
        ([{"op": "copy", "from": "/b", "path": "/c"}], {"a": [1, 2], "b": {"x~/y": 0}, "c": {"x~/y": 0}}),
        ([{"op": "test", "path": "/a", "value": [1, 2]}], {"a": [1, 2], "b": {"x~/y": 0}}),
    ],
)
def test_json_patches(operations: Any, patched: Any) -> None:
    document = {"a": [1, 2], "b": {"x~/y": 0}}
    assert json_patch(document, operations) == patched
    assert document == {"a": [1, 2], "b": {"x~/y": 0}}


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "remove", "path": "/missing"}, 422),
        ({"op": "replace", "path": "/missing", "value": 1}, 422),
        ({"op": "add", "path": "/missing/x", "value": 1}, 422),
        ({"op": "add", "path": "/a/3", "value": 1}, 422),
        ({"op": "add", "path": "/a/01", "value": 1}, 422),
        ({"op": "add", "path": "/a/٣", "value": 1}, 422),
        ({"op": "remove", "path": "/a/-"}, 422),
        ({"op": "remove", "path": ""}, 422),
        ({"op": "test", "path": "/a/0", "value": True}, 422),
        ({"op": "move", "from": "/a", "path": "/a/0"}, 422),
        ({"op": "add", "path": "/s/x", "value": 1}, 422),
        ({"op": "add", "path": "/c"}, 400),
        ({"op": "add", "path": "c", "value": 1}, 400),
        ({"op": "add", "value": 1}, 400),
        ({"op": "explode", "path": "/a"}, 400),
        ({"op": "copy", "path": "/a"}, 400),
        ("remove", 400),
    ],
)
def test_json_patches_that_cannot_be_done(operation: Any, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        json_patch({"a": [1, 2], "s": "text"}, [operation])
    assert refused.value.code == code


@given(JSON, JSON)
def test_a_merge_patch_that_is_done_twice_is_done_once(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(JSON)
def test_a_document_is_replaced_as_a_whole(document: Any) -> None:
    assert json_patch({"x": 1}, [{"op": "replace", "path": "", "value": document}]) == document


PORTS = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}, {"port": 82, "name": "c"}]


@pytest.mark.parametrize(
    ("patch", "ports"),
    [
        ([{"port": 81, "name": "x"}], ["a", "x", "c"]),
        ([{"port": 83, "name": "new"}], ["a", "b", "c", "new"]),
        ([{"port": 81, "$patch": "delete"}], ["a", "c"]),
        ([{"port": 99, "$patch": "delete"}], ["a", "b", "c"]),
        ([{"port": 90, "name": "only"}, {"$patch": "replace"}], ["only"]),
        ([{"port": 81, "$patch": "replace", "name": "whole"}], ["whole"]),
    ],
)
def test_strategic_patches_of_a_list_with_a_key(patch: Any, ports: list[str]) -> None:
    service = {"spec": {"ports": PORTS, "selector": {"app": "x"}}}
    patched = strategic_merge(service, {"spec": {"ports": patch}}, "Service")
    assert [port["name"] for port in patched["spec"]["ports"]] == ports
    assert patched["spec"]["selector"] == {"app": "x"} and service["spec"]["ports"] == PORTS


def test_strategic_patches_of_maps_and_their_directives() -> None:
    data = {"data": {"a": "1", "b": "2"}, "metadata": {"finalizers": ["x", "y"]}}
    assert strategic_merge(data, {"data": {"a": None, "c": "3"}}, "ConfigMap")["data"] == {"b": "2", "c": "3"}
    assert strategic_merge(data, {"data": {"$patch": "replace", "c": "3"}}, "ConfigMap")["data"] == {"c": "3"}
    assert strategic_merge(data, {"data": {"$patch": "delete"}}, "ConfigMap")["data"] == {}
    assert strategic_merge(data, {"data": {"$retainKeys": ["b", "c"], "c": "3"}}, "ConfigMap")["data"] == {
        "b": "2",
        "c": "3",
    }
    removed = strategic_merge(
        data, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["z"]}}, "Pod"
    )
    assert removed["metadata"]["finalizers"] == ["y", "z"]


def test_the_order_of_a_list_is_set() -> None:
    patch = {"spec": {"$setElementOrder/ports": [{"port": 82}, {"port": 80}], "ports": [{"port": 80, "name": "x"}]}}
    patched = strategic_merge({"spec": {"ports": PORTS}}, patch, "Service")
    assert [port["port"] for port in patched["spec"]["ports"]] == [82, 81, 80]
    assert patched["spec"]["ports"][2]["name"] == "x"


def test_lists_without_a_key_are_replaced() -> None:
    subsets = {"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}
    assert strategic_merge(subsets, {"subsets": []}, "Endpoints") == {"subsets": []}


@pytest.mark.parametrize(
    "patch",
    [
        [],
        {"spec": {"ports": [{"name": "no key"}]}},
        {"spec": {"ports": ["text"]}},
        {"spec": {"$patch": "explode"}},
        {"data": {"$retainKeys": "x"}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": 5}},
        {"spec": {"$setElementOrder/ports": 5}},
    ],
)
def test_strategic_patches_that_are_none(patch: Any) -> None:
    with pytest.raises(ApiError) as refused:
        strategic_merge({"spec": {"ports": PORTS}}, patch, "Service")
    assert refused.value.code == 400


def test_clients_are_told_the_keys_by_which_the_server_merges() -> None:
    """What a schema says of a list is what the server does with it: else a client's patch is read in another way."""
    published = 0
    schemas = {**openapi_schemas("", "v1"), **openapi_schemas("discovery.k8s.io", "v1")}

    def walk(kind: str, schema: dict[str, Any], path: str) -> None:
        nonlocal published
        for name, one in schema.get("properties", {}).items():
            at = f"{path}.{name}" if path else name
            if one.get("type") == "array":
                published += "x-kubernetes-patch-merge-key" in one
                assert one.get("x-kubernetes-patch-merge-key") == (merge_key(kind, at) or None), (kind, at)
            inner = one.get("items", one)
            for reference in inner.get("allOf", ()):
                walk(kind, schemas[reference["$ref"].rpartition("/")[2]], at)

    for kind in KINDS.values():
        if not kind.group:
            walk(kind.name, schemas[f"io.k8s.api.core.v1.{kind.name}"], "")
    assert published >= 4 and set(MERGE_KEYS) - {"*", "ServiceAccount"} <= set(KINDS)
