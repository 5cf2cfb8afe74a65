"""Bodies that are too large, too deep, of another type, or simply wrong: answered, and nothing stored."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.body import LARGEST_BODY
from controlplane.api.protobuf_body import InvalidProtobuf, parse_protobuf
from controlplane.api.yaml_body import InvalidYaml, parse_yaml
from tests.controlplane.api.serving import Client, collection, virtual_service


def names(client: Client, namespace: str) -> list[str]:
    return [one["metadata"]["name"] for one in client("GET", collection(namespace)).json["items"]]


def test_an_oversized_body_is_refused(client: Client, namespace: str) -> None:
    refused = client("POST", collection(namespace), b" " * (LARGEST_BODY + 1))
    assert refused.status == 413 and refused.json["reason"] == "RequestEntityTooLarge"
    connection = http.client.HTTPSConnection("127.0.0.1", client.port, timeout=20, context=client.tls)
    told = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    connection.request("POST", collection(namespace), iter([b" " * 1_000_000] * 4), told, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":99999999999999999999999}',
        b'{"a":"\\ud800"}',
        b'{"\\ud800":1}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a":' * 150 + b"1" + b"}" * 150,
    ],
    ids=[
        "empty",
        "cut",
        "array",
        "text",
        "null",
        "bytes",
        "twice",
        "nan",
        "infinite",
        "long",
        "surrogate",
        "surrogate key",
        "open",
        "very deep",
        "deep",
    ],
)
def test_what_is_no_object_of_json_is_refused(client: Client, namespace: str, body: bytes) -> None:
    refused = client("POST", collection(namespace), body)
    assert refused.status == 400 and refused.json["kind"] == "Status"


def test_a_body_of_too_many_values_is_refused(client: Client, namespace: str) -> None:
    refused = client("POST", collection(namespace), b'{"a":[' + b"1," * 600_000 + b"1]}")
    assert refused.status == 413


def test_yaml_is_taken_like_json(client: Client, namespace: str) -> None:
    text = f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: from-yaml, namespace: {namespace}}}
spec:
  hosts: [reviews]  # a comment
  http:
  - timeout: 1.5s
    route: [{{destination: {{host: reviews}}}}]
"""
    made = client("POST", collection(namespace), text.encode(), Content_Type="application/yaml; charset=utf-8")
    assert made.status == 201 and made.json["spec"]["http"][0]["timeout"] == "1.5s"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &b [x]\nc: *b", "line 1, column 4: anchors and aliases are not accepted"),
        ("a: 1\nb:\n  <<: {c: 1}", "merge keys"),
        ("a: 1\na: 2", 'line 2, column 1: the key "a" is there twice'),
        ("a: !!python/name:os.system", "is not accepted"),
        ("a: [", "line 2, column 1"),
        ("a: 1\n---\nb: 2", "2 documents"),
        ("{[a]: 1}", "keys must be strings"),
        ("[" * 200_000, "nested deeper than 100 levels"),
        ("- " * 30_000, "nested deeper than 100 levels"),
        ("a: -9999999999999999999", "more than 64 bits"),
    ],
)
def test_yaml_that_is_wrong_or_dangerous_is_refused(client: Client, namespace: str, text: str, message: str) -> None:
    refused = client("POST", collection(namespace), text.encode(), Content_Type="application/yaml")
    assert refused.status == 400 and message in refused.message


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = b"a: [1, -2, 1.5, 1e3, 0x10, 2020-01-01, yes, 'yes', !!str 5, null, ~, , 1.2.3, .inf, 99999999999999999999]"
    with pytest.raises(InvalidYaml):
        parse_yaml(text, 10)
    values = parse_yaml(text.replace(b", ,", b","), 10)["a"]
    assert values == [
        1, -2, 1.5, 1000.0, 16, "2020-01-01", True, "yes", "5", None, None, "1.2.3", ".inf", "99999999999999999999"
    ]  # fmt: skip
    assert parse_yaml(b"1: a\ntrue: b\n", 10) == {"1": "a", "true": "b"}
    json.dumps(values, allow_nan=False)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/vnd.kubernetes.protobuf", "application/apply-patch+yaml", "text/html"]
)
def test_other_media_types_get_415(client: Client, namespace: str, media_type: str) -> None:
    refused = client("POST", collection(namespace), virtual_service("a", namespace), Content_Type=media_type)
    assert refused.status == 415 and refused.json["reason"] == "UnsupportedMediaType"


def test_server_side_apply_and_strategic_patches_of_custom_kinds_get_415(client: Client, namespace: str) -> None:
    assert client("POST", collection(namespace), virtual_service("a", namespace)).status == 201
    for media_type in ("application/apply-patch+yaml", "application/strategic-merge-patch+json", "application/json"):
        refused = client("PATCH", f"{collection(namespace)}/a", {}, Content_Type=media_type)
        assert refused.status == 415
        assert (
            "accepted media types include: application/json-patch+json, application/merge-patch+json" in refused.message
        )


def test_compressed_bodies_get_415(client: Client, namespace: str) -> None:
    assert client("POST", collection(namespace), b"x", Content_Encoding="gzip").status == 415


def test_answers_in_other_media_types_get_406(client: Client) -> None:
    for accept in ("application/vnd.kubernetes.protobuf", "text/html", "application/json;as=Other;g=meta.k8s.io;v=v1"):
        refused = client("GET", collection(), Accept=accept)
        assert refused.status == 406 and refused.json["reason"] == "NotAcceptable"


def test_nothing_is_stored_of_what_is_refused(client: Client, namespace: str) -> None:
    document = virtual_service("wrong", namespace)
    document["spec"]["http"][0]["timeout"] = "soon"
    refused = client("POST", collection(namespace), document)
    assert refused.status == 422 and refused.json["reason"] == "Invalid"
    details = refused.json["details"]
    assert (details["name"], details["group"], details["kind"]) == ("wrong", "networking.istio.io", "VirtualService")
    assert [(cause["field"], cause["reason"]) for cause in details["causes"]] == [
        ("spec.http[0].timeout", "FieldValueInvalid")
    ]
    assert names(client, namespace) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not begin"),
        (b"k8s\x00", "is not read as protobuf"),
        (b"k8s\x00\x0a\x09\x0a\x02v1\x12\x03Pod", "Pod of v1 is not read as protobuf: send JSON"),
        (b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x63\x00", "cut off"),
        (b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x02\x4a\x00", "field 9 of ConfigMap"),
        (b"k8s\x00" + b"\xff" * 20, "64 bits"),
        (b"k8s\x00\x0b", "wire type 3"),
        (b"k8s\x00\x0a\x04\x0a\x02\xff\xff", "not UTF-8"),
    ],
)
def test_protobuf_that_is_not_read(client: Client, namespace: str, body: bytes, message: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    refused = client("POST", path, body, Content_Type="application/vnd.kubernetes.protobuf")
    assert refused.status == 415 and message in refused.message


@given(st.binary(max_size=200))
def test_protobuf_is_read_or_refused_whatever_comes(body: bytes) -> None:
    with contextlib.suppress(InvalidProtobuf):
        parse_protobuf(b"k8s\x00\x0a\x0d\x0a\x02v1\x12\x07Service\x12" + bytes([min(len(body), 127)]) + body)
