"""Watches: every change once, in order, from a version on; bookmarks; selectors; ends."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.api.serving import Background, Client, Watcher, collection, until, virtual_service

MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def told(event: Any) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"]["name"]


def revision(client: Client, namespace: str) -> str:
    return str(client("GET", collection(namespace)).json["metadata"]["resourceVersion"])


def test_changes_come_in_order_from_a_version_on(client: Client, namespace: str) -> None:
    client("POST", collection(namespace), virtual_service("before", namespace))
    since = revision(client, namespace)
    client("POST", collection(namespace), virtual_service("a", namespace))
    with Watcher(client, f"{collection(namespace)}?watch=true&resourceVersion={since}") as watcher:
        assert told(watcher.next()) == ("ADDED", "a")
        client("PATCH", f"{collection(namespace)}/a", {"spec": {"hosts": ["x"]}}, Content_Type=MERGE)
        changed = watcher.next()
        assert told(changed) == ("MODIFIED", "a") and changed["object"]["spec"]["hosts"] == ["x"]
        assert changed["object"] == client("GET", f"{collection(namespace)}/a").json
        client(
            "POST",
            "/api/v1/namespaces/default/configmaps",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "noise-"}},
        )
        client("POST", collection(), virtual_service(f"elsewhere-{namespace}"))
        client("DELETE", f"{collection(namespace)}/a")
        gone = watcher.next()
        assert told(gone) == ("DELETED", "a")
        assert int(gone["object"]["metadata"]["resourceVersion"]) > int(
            changed["object"]["metadata"]["resourceVersion"]
        )


def test_without_a_version_what_is_there_comes_first(client: Client, namespace: str) -> None:
    client("POST", collection(namespace), virtual_service("a", namespace))
    with Watcher(client, f"{collection(namespace)}?watch=1") as watcher:
        assert told(watcher.next()) == ("ADDED", "a")
        client("POST", collection(namespace), virtual_service("b", namespace))
        assert told(watcher.next()) == ("ADDED", "b")
    with Watcher(client, f"{collection(namespace)}/b?watch=true") as watcher:
        assert told(watcher.next()) == ("ADDED", "b")


def test_other_versions_of_the_kind_see_the_same(client: Client, namespace: str) -> None:
    with Watcher(client, f"{collection(namespace, 'v1alpha3')}?watch=true") as watcher:
        client("POST", collection(namespace), virtual_service("a", namespace))
        assert watcher.next()["object"]["apiVersion"] == "networking.istio.io/v1alpha3"


def test_a_list_to_begin_with(client: Client, namespace: str) -> None:
    client("POST", collection(namespace), virtual_service("a", namespace))
    query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    with Watcher(client, f"{collection(namespace)}?{query}") as watcher:
        assert told(watcher.next()) == ("ADDED", "a")
        bookmark = watcher.next()
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert bookmark["object"]["kind"] == "VirtualService"
    for wrong in (
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan",
        query.replace("allowWatchBookmarks", "x"),
    ):
        assert client("GET", f"{collection(namespace)}?{wrong}&watch=true&timeoutSeconds=1").status == 422


def test_bookmarks_tell_how_far_the_watch_is(tmp_path: Path) -> None:
    with Background(tmp_path, bookmark_every=0.05) as background:
        client = Client(background)
        since = revision(client, "default")
        client(
            "POST",
            "/api/v1/namespaces/default/configmaps",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "noise"}},
        )
        with Watcher(client, f"{collection()}?watch=true&resourceVersion={since}&allowWatchBookmarks=true") as watcher:
            first = watcher.next()
            assert first["type"] == "BOOKMARK" and int(first["object"]["metadata"]["resourceVersion"]) >= int(since)
            client("POST", collection(), virtual_service("a"))
            event = watcher.next()
            while event["type"] == "BOOKMARK":
                event = watcher.next()
            assert told(event) == ("ADDED", "a")
            after = watcher.next()
            assert after["type"] == "BOOKMARK"
            assert int(after["object"]["metadata"]["resourceVersion"]) >= int(
                event["object"]["metadata"]["resourceVersion"]
            )
        with Watcher(
            client, f"{collection()}?watch=true&resourceVersion={since}&allowWatchBookmarks=true", Accept=TABLE
        ) as watcher:
            event = watcher.next()
            assert event["object"]["kind"] == "Table" and event["object"]["rows"][0]["cells"][0] == "a"
            bookmark = watcher.next()
            assert bookmark["type"] == "BOOKMARK" and bookmark["object"]["kind"] == "Table"


def test_what_begins_and_ends_to_match_a_selector_is_told_so(client: Client, namespace: str) -> None:
    path = collection(namespace)
    client("POST", path, virtual_service("a", namespace, labels={"tier": "front"}))
    client("POST", path, virtual_service("b", namespace))
    since = revision(client, namespace)
    with Watcher(client, f"{path}?watch=true&resourceVersion={since}&labelSelector=tier%3Dfront") as watcher:
        client("PATCH", f"{path}/b", {"metadata": {"labels": {"tier": "front"}}}, Content_Type=MERGE)
        assert told(watcher.next()) == ("ADDED", "b")
        client("PATCH", f"{path}/a", {"metadata": {"labels": {"x": "y"}}}, Content_Type=MERGE)
        assert told(watcher.next()) == ("MODIFIED", "a")
        client("PATCH", f"{path}/a", {"metadata": {"labels": {"tier": None}}}, Content_Type=MERGE)
        assert told(watcher.next()) == ("DELETED", "a")
        client("DELETE", f"{path}/a")
        client("DELETE", f"{path}/b")
        assert told(watcher.next()) == ("DELETED", "b")


def test_a_watch_ends_when_its_time_is_up(client: Client, namespace: str) -> None:
    started = time.monotonic()
    with Watcher(client, f"{collection(namespace)}?watch=true&timeoutSeconds=1") as watcher:
        assert watcher.next() is None
    assert 0.9 < time.monotonic() - started < 5
    assert client("GET", f"{collection(namespace)}?watch=true&timeoutSeconds=x").status == 400


def test_a_version_that_is_forgotten_is_told_as_410(client: Client, background: Background, namespace: str) -> None:
    since = revision(client, namespace)
    for name in ("a", "b"):
        client("POST", collection(namespace), virtual_service(name, namespace))
    background.call(background.served.store.compact(background.call(background.served.store.revision())))
    for wanted in (since, "999999999"):
        with Watcher(client, f"{collection(namespace)}?watch=true&resourceVersion={wanted}") as watcher:
            event = watcher.next()
            assert event["type"] == "ERROR" and event["object"]["code"] == 410
            assert event["object"]["reason"] == "Expired" and watcher.next() is None


def test_the_end_of_the_server_ends_the_watches(tmp_path: Path) -> None:
    with Background(tmp_path) as background:
        watcher = Watcher(Client(background), f"{collection()}?watch=true")
        until(lambda: background.served.application.watches.open == 1)
    started = time.monotonic()
    assert watcher.next() is None
    assert time.monotonic() - started < 5


def test_a_client_that_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    with Background(tmp_path) as background:
        client = Client(background)
        for _ in range(3):
            with Watcher(client, f"{collection()}?watch=true"):
                until(lambda: background.served.application.watches.open == 1)
            until(lambda: background.served.application.watches.open == 0)


def test_a_hundred_watchers_hear_of_a_change_at_once(tmp_path: Path) -> None:
    with Background(tmp_path) as background:
        client = Client(background)
        watchers = [Watcher(client, f"{collection()}?watch=true") for _ in range(100)]
        until(lambda: background.served.application.watches.open == 100)
        heard: list[float] = []

        def listen(watcher: Watcher) -> None:
            line = watcher.response.readline()
            heard.append(time.perf_counter())
            assert json.loads(line)["object"]["metadata"]["name"] == "a"

        threads = [threading.Thread(target=listen, args=(watcher,)) for watcher in watchers]
        for thread in threads:
            thread.start()
        started = time.perf_counter()
        client("POST", collection(), virtual_service("a"))
        for thread in threads:
            thread.join(20)
        for watcher in watchers:
            watcher.__exit__()
        assert len(heard) == 100 and max(heard) - started < 1.0, max(heard) - started


@pytest.mark.parametrize("query", ["resourceVersion=x", "labelSelector=%3D", "fieldSelector=spec.x%3Dy"])
def test_questions_that_make_no_sense(client: Client, query: str) -> None:
    assert client("GET", f"{collection()}?watch=true&{query}").status == 400
