"""What comes from files is seen in the API like everything else, and is not changed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.model.parsing import parse
from controlplane.model.resource import Origin, Resource, ResourceKey
from tests.controlplane.api.serving import Background, Client, Watcher, collection, until, virtual_service

FILE = Origin("files", "mesh/routes.yaml", 12)


def resource(document: dict[str, Any], origin: Origin = FILE) -> Resource:
    return parse(document, origin)


def tell(background: Background, *changes: tuple[str, Resource | None]) -> None:
    """What the catalogue would tell, of VirtualServices in `default`."""

    async def tell() -> None:
        background.served.mirror.changed({ResourceKey("VirtualService", "default", name): one for name, one in changes})

    background.call(tell())
    client = Client(background)
    for name, one in changes:
        until(lambda name=name, one=one: _hosts(client, name) == (list(one.spec.hosts) if one else None))


def _hosts(client: Client, name: str) -> Any:
    answer = client("GET", f"{collection()}/{name}")
    return answer.json["spec"]["hosts"] if answer.status == 200 else None


def names(listed: Any) -> list[str]:
    return [one["metadata"]["name"] for one in listed["items"]]


@pytest.fixture
def mixed(tmp_path: Path) -> Any:
    """A server with a, c, e in the store and b, d in files."""
    with Background(tmp_path) as background:
        client = Client(background)
        for name in "ace":
            assert client("POST", collection(), virtual_service(name)).status == 201
        tell(background, *((name, resource(virtual_service(name))) for name in "db"))
        yield background


def test_files_are_among_the_others(mixed: Background) -> None:
    client = Client(mixed)
    assert names(client("GET", collection()).json) == list("abcde")
    assert names(client("GET", "/apis/networking.istio.io/v1/virtualservices?labelSelector=!x").json) == list("abcde")
    assert names(client("GET", collection("istio-system")).json) == []
    told = client("GET", f"{collection()}/b").json
    assert told["metadata"]["annotations"] == {"mizzen.io/origin": "mesh/routes.yaml:12"}
    assert told["metadata"]["uid"] and told["metadata"]["creationTimestamp"] and told["metadata"]["generation"] == 1
    assert client("GET", f"{collection('default', 'v1alpha3')}/b").json["apiVersion"].endswith("v1alpha3")


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_miss_none_and_repeat_none(mixed: Background, limit: int) -> None:
    client, found, rest = Client(mixed), [], ""
    while True:
        page = client("GET", f"{collection()}?limit={limit}{rest}").json
        found += names(page)
        if "continue" not in page["metadata"]:
            break
        assert len(page["items"]) == limit
        rest = f"&continue={page['metadata']['continue']}"
    assert found == list("abcde")


def test_watches_hear_of_files_in_the_order_of_changes(mixed: Background) -> None:
    client = Client(mixed)
    since = client("GET", collection()).json["metadata"]["resourceVersion"]
    changed = virtual_service("b")
    changed["spec"]["hosts"] = ["changed"]
    with Watcher(client, f"{collection()}?watch=true&resourceVersion={since}") as watcher:
        client("DELETE", f"{collection()}/a")
        tell(mixed, ("b", resource(changed)))
        tell(mixed, ("d", None))
        client("POST", collection(), virtual_service("f"))
        tell(mixed, ("g", resource(virtual_service("g"))))
        events = [watcher.next() for _ in range(5)]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("DELETED", "a"), ("MODIFIED", "b"), ("DELETED", "d"), ("ADDED", "f"), ("ADDED", "g")
    ]  # fmt: skip
    assert events[1]["object"]["spec"]["hosts"] == ["changed"] and events[1]["object"]["metadata"]["generation"] == 2
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert revisions == sorted(revisions)
    with Watcher(client, f"{collection()}?watch=true&resourceVersion={since}") as again:
        assert [again.next()["type"] for _ in range(5)] == [event["type"] for event in events]


def test_the_copies_are_not_served(mixed: Background) -> None:
    client = Client(mixed)
    assert client("GET", "/mizzen/v1/history?kind=_Files.VirtualService&name=test").status == 400
    assert client("GET", "/api/v1/_Files.VirtualService").status == 404
