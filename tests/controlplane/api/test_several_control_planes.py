"""Control planes side by side on one etcd: any of them answers any client, with one authority and one set of tokens."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.api.serving import Background, Client, Watcher, collection, virtual_service
from tests.controlplane.citadel.test_authority import signing_request
from tests.controlplane.galley.etcds import cluster, needs_etcd

pytestmark = needs_etcd


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Client]]:
    """Their admins, each with the token of their own."""
    directories = [tmp_path_factory.mktemp(name) for name in ("one", "other")]
    with cluster() as (etcd,):
        url = f"{etcd.url}/mesh?keep=0"
        with Background(directories[0], etcd=url) as one, Background(directories[1], etcd=url) as other:
            yield Client(one), Client(other)


def test_they_have_one_authority_and_know_each_others_tokens(two: tuple[Client, Client]) -> None:
    one, other = two
    assert one.background.served.authority.pem == other.background.served.authority.pem
    assert one.token != other.token
    assert Client(other.background, one.token)("GET", "/apis").status == 200
    made = one("POST", "/mizzen/v1/tokens", {"role": "viewer", "name": "ann"}).json
    assert Client(other.background, made["token"])("GET", "/apis").status == 200
    assert other("DELETE", f"/mizzen/v1/tokens/{made['id']}").status == 204
    assert Client(one.background, made["token"])("GET", "/apis").status == 401


def test_what_one_writes_the_other_lists_and_watches(two: tuple[Client, Client]) -> None:
    one, other = two
    since = other("GET", collection()).json["metadata"]["resourceVersion"]
    with Watcher(other, f"{collection()}?watch=true&resourceVersion={since}") as watcher:
        made = one("POST", collection(), virtual_service("a")).json
        assert watcher.next() == {"type": "ADDED", "object": made}
    assert other("GET", f"{collection()}/a").json == made
    page = one("GET", f"{collection()}?limit=1").json
    assert other("GET", f"{collection()}?limit=1&continue={page['metadata'].get('continue', '')}").status == 200


def test_of_two_writers_at_once_one_is_first(two: tuple[Client, Client]) -> None:
    one, other = two
    made = one("POST", collection(), virtual_service("contended")).json
    answers: list[int] = []

    def replace(client: Client, host: str) -> None:
        answers.append(
            client("PUT", f"{collection()}/contended", {**made, "spec": {**made["spec"], "hosts": [host]}}).status
        )

    threads = [threading.Thread(target=replace, args=(client, f"h{n}")) for n, client in enumerate((one, other) * 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [409] * 7


def test_a_join_token_serves_once_among_all(two: tuple[Client, Client]) -> None:
    one, other = two
    token = one("POST", "/mizzen/v1/tokens", {"serviceAccount": "reviews"}).json["token"]
    request = {"token": token, "certificateSigningRequest": signing_request().decode()}
    answers: list[int] = []

    def join(client: Client) -> None:
        answers.append(Client(client.background, "")("POST", "/mizzen/v1/join", request).status)

    threads = [threading.Thread(target=join, args=(client,)) for client in (one, other) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] + [401] * 5


def test_without_the_store_the_answer_is_503_and_it_comes_back(tmp_path: Path) -> None:
    with cluster() as (etcd,), Background(tmp_path, etcd=f"{etcd.url}/mesh?keep=0&timeout=1") as background:
        client = Client(background)
        assert client("POST", collection(), virtual_service("a")).status == 201
        etcd.kill()
        refused = client("GET", f"{collection()}/a")
        assert refused.status == 503 and refused.headers["Retry-After"] == "1"
        assert refused.json["reason"] == "ServiceUnavailable" and client("GET", "/healthz").status == 200
        etcd.start()
        etcd.wait_until_healthy()
        for _ in range(50):
            try:
                if client("GET", f"{collection()}/a").status == 200:
                    break
            except (OSError, http.client.HTTPException):
                continue
        else:
            raise AssertionError("it did not come back")


def test_what_etcd_does_not_take_is_refused(two: tuple[Client, Client]) -> None:
    one, _ = two
    large = virtual_service("large", annotations={f"a{n}": "x" * 200_000 for n in range(10)})
    refused = one("POST", collection(), large)
    assert refused.status == 413 and refused.json["reason"] == "RequestEntityTooLarge"
    assert one("GET", f"{collection()}/large").status == 404
