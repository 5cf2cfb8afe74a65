"""Lists: selected, paged, at a version, as tables."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import orjson
import pytest

from controlplane.api.tables import human_duration
from controlplane.model.resource import ResourceKey
from tests.controlplane.api.serving import Background, Client, collection, virtual_service

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture
def seven(client: Client, namespace: str) -> str:
    """A namespace with r0 to r6, labelled by parity."""
    for number in range(7):
        labels = {"parity": "odd" if number % 2 else "even", "number": str(number)}
        assert (
            client("POST", collection(namespace), virtual_service(f"r{number}", namespace, labels=labels)).status == 201
        )
    return namespace


def names(listed: Any) -> list[str]:
    return [one["metadata"]["name"] for one in listed["items"]]


@pytest.mark.parametrize(
    ("selector", "numbers"),
    [
        ("parity=odd", [1, 3, 5]),
        ("parity==odd,number!=3", [1, 5]),
        ("parity!=odd", [0, 2, 4, 6]),
        ("number in (1, 2)", [1, 2]),
        ("number notin (1,2,3),parity", [0, 4, 5, 6]),
        ("!parity", []),
        ("missing!=x", [0, 1, 2, 3, 4, 5, 6]),
        ("missing notin (x)", [0, 1, 2, 3, 4, 5, 6]),
        ("", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_label_selectors(client: Client, seven: str, selector: str, numbers: list[int]) -> None:
    path = f"{collection(seven)}?labelSelector={selector.replace(' ', '%20').replace('!', '%21')}"
    assert names(client("GET", path).json) == [f"r{number}" for number in numbers]


def test_field_selectors(client: Client, seven: str) -> None:
    assert names(client("GET", f"{collection(seven)}?fieldSelector=metadata.name%3Dr3").json) == ["r3"]
    assert names(client("GET", f"{collection(seven)}?fieldSelector=metadata.name%3Dnobody").json) == []
    assert len(names(client("GET", f"{collection(seven)}?fieldSelector=metadata.name!%3Dr3").json)) == 6
    everywhere = "/apis/networking.istio.io/v1/virtualservices?fieldSelector=metadata.namespace%3D"
    assert len(names(client("GET", everywhere + seven).json)) == 7


@pytest.mark.parametrize(
    "query", ["labelSelector=a%20b%20c", "labelSelector=%3Dx", "labelSelector=a%3Db%20c", "fieldSelector=spec.hosts%3Dx",
              "fieldSelector=x", "limit=x", "limit=-1", "resourceVersion=x", "resourceVersionMatch=Exact",
              "resourceVersion=1&resourceVersionMatch=Other", "resourceVersion=0&resourceVersionMatch=Exact",
              "continue=x", "continue=WzJd"]
)  # fmt: skip
def test_questions_that_make_no_sense(client: Client, query: str) -> None:
    refused = client("GET", f"{collection()}?{query}")
    assert refused.status == 400 and refused.json["reason"] == "BadRequest"


def test_pages_are_of_one_version(client: Client, seven: str) -> None:
    first = client("GET", f"{collection(seven)}?limit=3").json
    assert names(first) == ["r0", "r1", "r2"]
    client("DELETE", f"{collection(seven)}/r4")
    client("POST", collection(seven), virtual_service("r33", seven))
    second = client("GET", f"{collection(seven)}?limit=3&continue={first['metadata']['continue']}").json
    third = client("GET", f"{collection(seven)}?limit=3&continue={second['metadata']['continue']}").json
    assert names(second) == ["r3", "r4", "r5"] and names(third) == ["r6"]
    assert "continue" not in third["metadata"]
    assert {page["metadata"]["resourceVersion"] for page in (first, second, third)} == {
        first["metadata"]["resourceVersion"]
    }
    exact = f"?limit=7&resourceVersion={first['metadata']['resourceVersion']}&resourceVersionMatch=Exact"
    assert names(client("GET", collection(seven) + exact).json) == [f"r{number}" for number in range(7)]
    assert len(names(client("GET", f"{collection(seven)}?limit=7").json)) == 7


def test_pages_of_what_is_selected(client: Client, seven: str) -> None:
    first = client("GET", f"{collection(seven)}?limit=2&labelSelector=parity%3Deven").json
    assert names(first) == ["r0", "r2"]
    rest = f"?limit=2&labelSelector=parity%3Deven&continue={first['metadata']['continue']}"
    second = client("GET", collection(seven) + rest).json
    assert names(second) == ["r4", "r6"] and "continue" not in second["metadata"]


def test_what_is_compacted_gets_410(client: Client, background: Background, seven: str) -> None:
    page = client("GET", f"{collection(seven)}?limit=3").json
    for name in ("r6", "r5"):
        client("DELETE", f"{collection(seven)}/{name}")
    background.call(background.served.store.compact(background.call(background.served.store.revision())))
    refused = client("GET", f"{collection(seven)}?limit=3&continue={page['metadata']['continue']}")
    assert refused.status == 410 and refused.json["reason"] == "Expired"
    assert client("GET", f"{collection(seven)}?resourceVersion=999999999").status == 410


def test_tables(client: Client, seven: str) -> None:
    table = client("GET", collection(seven), Accept=TABLE).json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Gateways", "Hosts", "Age"]
    row = table["rows"][0]
    assert row["cells"][:3] == ["r0", "", '["r0"]'] and row["cells"][3].endswith("s")
    assert row["object"]["kind"] == "PartialObjectMetadata" and row["object"]["metadata"]["name"] == "r0"
    one = client("GET", f"{collection(seven)}/r0?includeObject=Object", Accept=TABLE).json
    assert one["rows"][0]["object"]["spec"]["hosts"] == ["r0"]
    bare = client("GET", f"{collection(seven)}?includeObject=None", Accept=TABLE).json
    assert list(bare["rows"][0]) == ["cells"]


def test_metadata_alone(client: Client, seven: str) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    listed = client("GET", collection(seven), Accept=accept).json
    assert listed["kind"] == "PartialObjectMetadataList" and "spec" not in listed["items"][0]
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    assert client("GET", f"{collection(seven)}/r0", Accept=accept).json["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (130, "2m10s"), (600, "10m"), (3600, "60m"), (3 * 3600, "3h"),
     (3 * 3600 + 60, "3h1m"), (9 * 3600 + 60, "9h"), (50 * 3600, "2d2h"), (10 * 86400, "10d"), (800 * 86400, "2y70d"),
     (9 * 365 * 86400, "9y"), (-1, "0s"), (-100, "<invalid>")],
)  # fmt: skip
def test_ages(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def test_ten_thousand_resources_are_listed_in_a_second(background: Background, client: Client, namespace: str) -> None:
    async def fill() -> None:
        document = virtual_service("x", namespace)

        async def put(number: int) -> None:
            document["metadata"]["name"] = name = f"r{number:05}"
            content = orjson.dumps(document)
            await background.served.store.put(
                ResourceKey("VirtualService", namespace, name), content, expected=0, who="test"
            )

        await asyncio.gather(*(put(number) for number in range(10_000)))

    background.call(fill())
    best = {}
    for accept in ("application/json", TABLE):
        times = []
        for _ in range(3):
            started = time.perf_counter()
            answer = client("GET", collection(namespace), Accept=accept)
            times.append(time.perf_counter() - started)
        assert len(answer.json["items" if accept != TABLE else "rows"]) == 10_000
        best[accept] = min(times)
    assert max(best.values()) < 1.0, best
    page = client("GET", f"{collection(namespace)}?limit=500").json
    assert len(page["items"]) == 500 and base64.urlsafe_b64decode(page["metadata"]["continue"])
    assert client("DELETE", f"/api/v1/namespaces/{namespace}").status == 200
