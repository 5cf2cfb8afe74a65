"""Whatever is asked, the answer is a Status that says what is wrong with it: never a failure of the server."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.controlplane.api.serving import Client, collection, virtual_service

TEXTS = st.text(max_size=8) | st.sampled_from(["\ud800", "\x00", "a" * 300])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)
SEGMENTS = st.sampled_from(
    ["api", "apis", "v1", "v1beta1", "networking.istio.io", "namespaces", "default", "virtualservices", "services",
     "secrets", "pods", "reviews", "status", "openapi", "v2", "v3", "mizzen", "tokens", "join", "history", "_Token", "", ".."]
) | st.text(max_size=6)  # fmt: skip
NAMES = st.sampled_from(
    ["limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector", "fieldSelector", "dryRun",
     "fieldValidation", "includeObject", "kind", "namespace", "name", "sendInitialEvents", "allowWatchBookmarks"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["0", "1", "-1", "All", "Exact", "true", "metadata.name=x", "a in (b", "VirtualService", "9" * 30]
)
QUERIES = st.dictionaries(NAMES, VALUES | st.text(max_size=8), max_size=4)
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
TYPES = st.sampled_from(
    ["application/json", "application/yaml", "application/merge-patch+json", "application/json-patch+json",
     "application/strategic-merge-patch+json", "application/vnd.kubernetes.protobuf", "text/plain", ""]
)  # fmt: skip
ACCEPTS = st.sampled_from(["", "*/*", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=x", ";;,"])
POINTERS = st.sampled_from(
    ["", "/", "/spec", "/metadata", "/metadata/name", "/spec/hosts/0", "/spec/hosts/-", "/kind", "/status"]
)
OPERATIONS = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["add", "remove", "move", "copy", "test", "replace"]),
        "path": POINTERS,
        "from": POINTERS,
        "value": JSON,
    },
)

_QUICKLY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(client: Client, method: str, path: str, body: Any, headers: dict[str, str]) -> None:
    connection, response = client.open(method, path, body, headers)
    try:
        content = response.read()
    finally:
        connection.close()
    assert response.status < 500, (method, path, body, content)
    if response.status >= 400 and method != "HEAD":
        status = json.loads(content)
        assert status["kind"] == "Status" and status["code"] == response.status and status["message"]


@_QUICKLY
@given(METHODS, st.lists(SEGMENTS, max_size=8), QUERIES, TYPES, ACCEPTS, JSON | st.binary(max_size=30))
def test_anything(
    client: Client, method: str, segments: list[str], query: dict[str, str], media_type: str, accept: str, body: Any
) -> None:
    path = "/" + "/".join(quote(segment, safe="") for segment in segments) + "?" + urlencode(query)
    headers = {"Content-Type": media_type, "Accept": accept}
    check(client, method, path, None if method in ("GET", "HEAD") else body, headers)


@_QUICKLY
@given(st.sampled_from(["PUT", "PATCH", "POST"]), TYPES, st.data())
def test_documents_that_are_nearly_right(client: Client, method: str, media_type: str, data: st.DataObject) -> None:
    document: Any = virtual_service("random")
    around, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(around[key], dict | list) and around[key] and data.draw(st.booleans()):
        around = around[key]
        key = data.draw(st.sampled_from(sorted(around) if isinstance(around, dict) else list(range(len(around)))))
    around[key] = data.draw(JSON)
    client("POST", collection(), virtual_service("random"))
    path = collection() if method == "POST" else f"{collection()}/random"
    check(client, method, path, document, {"Content-Type": media_type})


@_QUICKLY
@given(st.lists(OPERATIONS, max_size=3))
def test_json_patches_of_anything(client: Client, operations: Any) -> None:
    client("POST", collection(), virtual_service("patched"))
    check(client, "PATCH", f"{collection()}/patched", operations, {"Content-Type": "application/json-patch+json"})


@_QUICKLY
@given(JSON)
def test_strategic_patches_of_anything(client: Client, patch: Any) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "patched"},
        "spec": {"ports": [{"port": 80}]},
    }
    client("POST", "/api/v1/namespaces/default/services", service)
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    path = "/api/v1/namespaces/default/services/patched"
    check(client, "PATCH", path, {"spec": patch}, headers)
    check(client, "PATCH", path, {"metadata": patch}, headers)
    check(client, "PATCH", path, {"spec": {"ports": [patch]}}, headers)
    check(client, "PATCH", f"{path}/status", {"status": patch}, headers)
