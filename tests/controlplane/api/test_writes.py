"""Create, replace, patch and delete: what the server says itself, what is kept, who comes first."""

from __future__ import annotations

import base64
import datetime
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from controlplane.model.resource import Origin, ResourceKey
from tests.controlplane.api.serving import Background, Client, collection, virtual_service

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture
def made(client: Client, namespace: str) -> dict[str, Any]:
    """A VirtualService "reviews" as it was answered."""
    answer = client("POST", collection(namespace), virtual_service("reviews", namespace))
    assert answer.status == 201
    return answer.json


def test_the_server_adds_what_is_its_own_to_say(client: Client, namespace: str) -> None:
    document = virtual_service(
        "reviews", namespace, uid="mine", generation=7, creationTimestamp="2000-01-01T00:00:00Z", managedFields=[{}]
    )
    made = client("POST", collection(namespace), document).json
    metadata = made["metadata"]
    assert metadata["uid"] != "mine" and metadata["generation"] == 1 and "managedFields" not in metadata
    assert not metadata["creationTimestamp"].startswith("2000") and metadata["creationTimestamp"].endswith("Z")
    assert int(metadata["resourceVersion"]) > 0 and made["spec"] == document["spec"]
    assert client("GET", f"{collection(namespace)}/reviews").json == made


def test_every_version_is_accepted_and_told(client: Client, namespace: str) -> None:
    for version in ("v1", "v1beta1", "v1alpha3"):
        document = {**virtual_service(version, namespace), "apiVersion": f"networking.istio.io/{version}"}
        assert client("POST", collection(namespace, version), document).json["apiVersion"].endswith("/" + version)
    for version in ("v1", "v1beta1", "v1alpha3"):
        listed = client("GET", collection(namespace, version)).json
        assert listed["apiVersion"] == f"networking.istio.io/{version}" and listed["kind"] == "VirtualServiceList"
        assert {one["apiVersion"] for one in listed["items"]} == {f"networking.istio.io/{version}"}
        assert len(listed["items"]) == 3
    wrong = client("POST", collection(namespace, "v1beta1"), virtual_service("x", namespace))
    assert wrong.status == 400 and "does not match" in wrong.message


def test_names_are_made_up_on_request(client: Client, namespace: str) -> None:
    document = virtual_service("x", namespace, generateName="reviews-")
    del document["metadata"]["name"]
    names = {client("POST", collection(namespace), document).json["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3 and all(name.startswith("reviews-") and len(name) == 13 for name in names)
    del document["metadata"]["generateName"]
    refused = client("POST", collection(namespace), document)
    assert refused.status == 422 and refused.json["details"]["causes"][0]["field"] == "metadata.name"


def test_what_is_there_is_not_created_again(client: Client, namespace: str, made: dict[str, Any]) -> None:
    again = client("POST", collection(namespace), virtual_service("reviews", namespace))
    assert again.status == 409 and again.json["reason"] == "AlreadyExists"
    assert client("GET", f"{collection(namespace)}/reviews").json == made


def test_the_path_and_the_body_must_agree(client: Client, namespace: str, made: dict[str, Any]) -> None:
    assert client("POST", collection(namespace), virtual_service("a", "other")).status == 400
    assert client("PUT", f"{collection(namespace)}/reviews", virtual_service("other", namespace)).status == 400
    assert client("POST", collection(namespace), {**virtual_service("a", namespace), "kind": "Gateway"}).status == 400
    versioned = virtual_service("a", namespace, resourceVersion="5")
    assert client("POST", collection(namespace), versioned).status == 400
    assert client("POST", "/apis/networking.istio.io/v1/virtualservices", virtual_service("a", namespace)).status == 400


def test_a_namespace_must_be_there(client: Client) -> None:
    refused = client("POST", collection("nowhere"), virtual_service("a", "nowhere"))
    assert refused.status == 404 and refused.message == 'namespaces "nowhere" not found'
    assert client("GET", collection("nowhere")).json["items"] == []


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"name": "Upper"}, "metadata.name"),
        ({"name": "a" * 254}, "metadata.name"),
        ({"labels": {"a b": "x"}}, "metadata.labels[a b]"),
        ({"labels": {"a": 1}}, "metadata.labels[a]"),
        ({"annotations": {"a": True}}, "metadata.annotations[a]"),
        ({"finalizers": ["example.com/x"]}, "metadata.finalizers"),
        ({"lables": {}, "labels": {}}, None),
        ({"lables": {"a": "b"}}, "metadata.lables"),
    ],
)
def test_metadata_is_judged(client: Client, namespace: str, metadata: dict[str, Any], field: str | None) -> None:
    document = virtual_service("x", namespace)
    document["metadata"].update(metadata)
    answer = client("POST", collection(namespace), document)
    if field is None:
        assert answer.status == 201
    else:
        assert answer.status == 422 and [cause["field"] for cause in answer.json["details"]["causes"]] == [field]


def test_replace_counts_generations_and_keeps_what_is_the_servers(
    client: Client, namespace: str, made: dict[str, Any]
) -> None:
    path = f"{collection(namespace)}/reviews"
    relabelled = client("PUT", path, virtual_service("reviews", namespace, labels={"a": "b"})).json
    assert relabelled["metadata"]["generation"] == 1 and relabelled["metadata"]["uid"] == made["metadata"]["uid"]
    document = virtual_service("reviews", namespace)
    document["spec"]["hosts"] = ["other"]
    changed = client("PUT", path, document).json
    assert changed["metadata"]["generation"] == 2 and "labels" not in changed["metadata"]
    assert changed["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    again = client("PUT", path, document).json
    assert again == changed, "what changes nothing makes no new version"
    assert client("PUT", f"{collection(namespace)}/nobody", virtual_service("nobody", namespace)).status == 404


def test_a_writer_with_an_old_version_is_told(client: Client, namespace: str, made: dict[str, Any]) -> None:
    path = f"{collection(namespace)}/reviews"
    made["spec"]["hosts"] = ["first"]
    assert client("PUT", path, made).status == 200
    made["spec"]["hosts"] = ["second"]
    late = client("PUT", path, made)
    assert late.status == 409 and late.json["reason"] == "Conflict" and "has been modified" in late.message
    late = client(
        "PATCH", path, {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}, Content_Type=MERGE
    )
    assert late.status == 409
    assert client("GET", path).json["spec"]["hosts"] == ["first"]
    assert (
        client("PUT", path, {**made, "metadata": {**made["metadata"], "uid": "other", "resourceVersion": ""}}).status
        == 409
    )


def test_patches_at_once_are_all_done(client: Client, namespace: str, made: dict[str, Any]) -> None:
    path = f"{collection(namespace)}/reviews"
    answers: list[int] = []

    def label(number: int) -> None:
        answers.append(client("PATCH", path, {"metadata": {"labels": {f"l{number}": "x"}}}, Content_Type=MERGE).status)

    threads = [threading.Thread(target=label, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
    assert len(client("GET", path).json["metadata"]["labels"]) == 6


def test_status_is_written_at_its_own_place(client: Client, namespace: str, made: dict[str, Any]) -> None:
    path = f"{collection(namespace)}/reviews"
    assert client("PUT", path, {**virtual_service("reviews", namespace), "status": {"a": 1}}).json.get("status") is None
    written = client("PATCH", f"{path}/status", {"status": {"a": 1}, "spec": {"hosts": ["x"]}}, Content_Type=MERGE).json
    assert written["status"] == {"a": 1} and written["spec"]["hosts"] == ["reviews"]
    assert written["metadata"]["generation"] == 1
    document = virtual_service("reviews", namespace)
    document["spec"]["hosts"] = ["other"]
    assert client("PUT", path, document).json["status"] == {"a": 1}
    assert client("GET", f"{path}/status").json["status"] == {"a": 1}
    assert client("PUT", f"{path}/status", {**document, "status": 5}).status == 400
    created = client("POST", collection(namespace), {**virtual_service("b", namespace), "status": {"a": 1}})
    assert "status" not in created.json and "status is not taken here" in created.headers["Warning"]
    assert client("DELETE", f"{path}/status").status == 405


def test_a_dry_run_judges_and_writes_nothing(client: Client, namespace: str, made: dict[str, Any]) -> None:
    path = f"{collection(namespace)}/reviews"
    assert client("POST", f"{collection(namespace)}?dryRun=All", virtual_service("dry", namespace)).status == 201
    assert client("GET", f"{collection(namespace)}/dry").status == 404
    changed = client("PATCH", f"{path}?dryRun=All", {"spec": {"hosts": ["other"]}}, Content_Type=MERGE).json
    assert changed["spec"]["hosts"] == ["other"]
    assert client("PATCH", f"{path}?dryRun=All", {"spec": {"hosts": 5}}, Content_Type=MERGE).status == 422
    assert client("POST", f"{collection(namespace)}?dryRun=All", virtual_service("reviews", namespace)).status == 409
    assert client("DELETE", f"{path}?dryRun=All").status == 200
    assert client("DELETE", path, {"dryRun": ["All"]}).status == 200
    assert client("GET", path).json == made
    assert client("POST", f"{collection(namespace)}?dryRun=Some", virtual_service("dry", namespace)).status == 422


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore", ""])
def test_unknown_fields_are_refused_whatever_field_validation_is_asked(
    client: Client, namespace: str, validation: str
) -> None:
    document = virtual_service("x", namespace)
    document["spec"]["gatways"] = ["mesh"]
    refused = client("POST", f"{collection(namespace)}?fieldValidation={validation}", document)
    assert refused.status == 422 and "spec.gatways" in refused.message and "did you mean gateways?" in refused.message


def test_an_unknown_field_validation_is_refused(client: Client, namespace: str) -> None:
    assert (
        client("POST", f"{collection(namespace)}?fieldValidation=None", virtual_service("x", namespace)).status == 422
    )


def test_json_patches_are_done_whole_or_not(client: Client, namespace: str, made: dict[str, Any]) -> None:
    path = f"{collection(namespace)}/reviews"
    operations = [
        {"op": "test", "path": "/spec/hosts/0", "value": "reviews"},
        {"op": "add", "path": "/spec/hosts/-", "value": "two"},
        {"op": "remove", "path": "/spec/missing"},
    ]
    assert client("PATCH", path, operations, Content_Type=JSON_PATCH).status == 422
    assert client("GET", path).json == made
    assert client("PATCH", path, operations[:2], Content_Type=JSON_PATCH).json["spec"]["hosts"] == ["reviews", "two"]
    assert client("PATCH", path, {}, Content_Type=JSON_PATCH).status == 400
    assert client("PATCH", path, [], Content_Type=MERGE).status == 400
    assert client("PATCH", f"{collection(namespace)}/nobody", [], Content_Type=JSON_PATCH).status == 404


def test_strategic_patches_merge_ports_by_number(client: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "reviews"},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "grpc", "port": 81}]},
    }
    made = client("POST", path, service).json
    assert made["spec"]["type"] == "ClusterIP" and made["spec"]["ports"][0]["targetPort"] == 80
    patch = {
        "spec": {"ports": [{"port": 81, "$patch": "delete"}, {"port": 80, "name": "web"}, {"port": 82, "name": "new"}]}
    }
    patched = client("PATCH", f"{path}/reviews", patch, Content_Type=STRATEGIC).json
    assert [(port["name"], port["port"]) for port in patched["spec"]["ports"]] == [("web", 80), ("new", 82)]


def test_a_secret_is_stored_encoded(client: Client, namespace: str) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"a": "YQ=="},
        "stringData": {"b": "text"},
    }
    made = client("POST", f"/api/v1/namespaces/{namespace}/secrets", secret).json
    assert "stringData" not in made and made["type"] == "Opaque"
    assert made["data"] == {"a": "YQ==", "b": base64.b64encode(b"text").decode()}


def test_delete_and_its_preconditions(client: Client, namespace: str, made: dict[str, Any]) -> None:
    path = f"{collection(namespace)}/reviews"
    assert client("DELETE", path, {"preconditions": {"uid": "other"}}).status == 409
    assert client("DELETE", path, {"preconditions": {"resourceVersion": "1"}}).status == 409
    deleted = client("DELETE", path, {"preconditions": {"uid": made["metadata"]["uid"]}})
    assert deleted.json["status"] == "Success" and deleted.json["details"]["uid"] == made["metadata"]["uid"]
    gone = client("DELETE", path)
    assert gone.status == 404 and gone.json["details"] == {
        "name": "reviews", "group": "networking.istio.io", "kind": "virtualservices"
    }  # fmt: skip


def test_a_collection_is_deleted_by_label(client: Client, namespace: str) -> None:
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        client("POST", collection(namespace), virtual_service(name, namespace, labels={"app": app}))
    gone = client("DELETE", f"{collection(namespace)}?labelSelector=app%3Dx")
    assert [one["metadata"]["name"] for one in gone.json["items"]] == ["a", "b"]
    assert [one["metadata"]["name"] for one in client("GET", collection(namespace)).json["items"]] == ["c"]


def test_a_namespace_is_deleted_with_all_that_is_in_it(client: Client, namespace: str, made: dict[str, Any]) -> None:
    assert client("GET", f"/api/v1/namespaces/{namespace}").json["status"] == {"phase": "Active"}
    assert client("DELETE", f"/api/v1/namespaces/{namespace}").status == 200
    assert client("GET", f"{collection(namespace)}/reviews").status == 404
    assert client("GET", f"/api/v1/namespaces/{namespace}").status == 404
    assert client("POST", collection(namespace), virtual_service("a", namespace)).status == 404
    for name in ("default", "istio-system"):
        assert client("DELETE", f"/api/v1/namespaces/{name}").status == 403


def test_the_deletion_of_a_namespace_that_was_cut_short_is_finished_at_the_next_start(tmp_path: Path) -> None:
    with Background(tmp_path) as background:
        client = Client(background)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        client("POST", "/api/v1/namespaces", namespace)
        client("POST", collection("shop"), virtual_service("a", "shop"))
        client("PATCH", "/api/v1/namespaces/shop/status", {"status": {"phase": "Terminating"}}, Content_Type=MERGE)
        refused = client("POST", collection("shop"), virtual_service("b", "shop"))
        assert refused.status == 403 and "being terminated" in refused.message
    with Background(tmp_path) as background:
        client = Client(background)
        assert client("GET", "/api/v1/namespaces/shop").status == 404
        assert client("GET", collection("shop")).json["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"{collection()}/a", 405),
        ("PUT", collection(), 405),
        ("PATCH", collection(), 405),
        ("POST", "/apis", 405),
        ("GET", "/apis/networking.istio.io/v2/virtualservices", 404),
        ("GET", "/apis/networking.istio.io/v1/others", 404),
        ("GET", "/api/v1/namespaces/default/_tokens", 404),
        ("GET", "/api/v1/_Token", 404),
        ("GET", f"{collection()}/a/scale", 404),
        ("GET", f"{collection()}//", 404),
        ("GET", "/apis/networking.istio.io/v1/virtualservices/a", 404),
        ("GET", "/api/v1/namespaces/default/namespaces/x", 404),
        ("DELETE", "/apis/networking.istio.io/v1/virtualservices", 405),
    ],
)
def test_places_and_methods_that_are_not_there(client: Client, method: str, path: str, status: int) -> None:
    refused = client(method, path, None if method in ("GET", "DELETE") else {})
    assert refused.status == status and refused.json["kind"] == "Status" and refused.json["code"] == status


def test_what_comes_from_files_is_read_only(tmp_path: Path) -> None:
    key = ResourceKey("VirtualService", "default", "filed")

    def origin_of(asked: ResourceKey) -> Origin | None:
        return Origin("files", "mesh/reviews.yaml", 12) if asked == key else None

    with Background(tmp_path, origin_of=origin_of) as background:
        client = Client(background)
        for method, path in (
            ("POST", collection()),
            ("PUT", f"{collection()}/filed"),
            ("PATCH", f"{collection()}/filed"),
            ("DELETE", f"{collection()}/filed"),
        ):
            body = None if method == "DELETE" else virtual_service("filed")
            refused = client(method, path, body, **({"Content_Type": MERGE} if method == "PATCH" else {}))
            assert refused.status == 403 and "mesh/reviews.yaml:12" in refused.message
        assert client("POST", collection(), virtual_service("other")).status == 201


def test_history_tells_who_changed_what(
    background: Background, client: Client, namespace: str, made: dict[str, Any]
) -> None:
    path = f"{collection(namespace)}/reviews"
    client("PATCH", path, {"spec": {"hosts": ["two"]}}, Content_Type=MERGE)
    client("DELETE", path)
    told = client("GET", f"/mizzen/v1/history?kind=VirtualService&namespace={namespace}&name=reviews").json["items"]
    assert [(one["type"], one["who"]) for one in told] == [
        ("ADDED", "admin"), ("MODIFIED", "admin"), ("DELETED", "admin")
    ]  # fmt: skip
    assert [one["object"]["spec"]["hosts"] for one in told] == [["reviews"], ["two"], ["two"]]
    assert time.time() - 60 < _seconds(told[0]["when"]) < time.time() + 1
    assert client("GET", "/mizzen/v1/history?kind=VirtualService&name=nobody").status == 404
    assert client("GET", "/mizzen/v1/history?kind=_Token&name=x").status == 400


def _seconds(text: str) -> float:

    return datetime.datetime.fromisoformat(text).timestamp()
