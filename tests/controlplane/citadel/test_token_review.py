"""Tokens of Kubernetes service accounts, as an API server judges them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.citadel.token_review import InvalidCluster, TokenReviews, find_cluster
from controlplane.model.credentials import Identity, Means, Role, Unauthenticated
from tests.controlplane.citadel.kubernetes_api import API_AUDIENCE, REVIEWER, KubernetesApi, jwt_like

GOOD = jwt_like("good")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    with KubernetesApi(tmp_path) as running:
        running.known[GOOD] = ("system:serviceaccount:shop:reviews.v2", ["istio-ca"])
        yield running


def identify(kubeconfig: Path, token: str) -> Identity:
    async def main() -> Identity:
        reviews = TokenReviews(find_cluster(str(kubeconfig)))
        try:
            return await reviews.identify(token)
        finally:
            await reviews.close()

    return asyncio.run(main())


def test_the_api_server_says_whose_token_it_is(api: KubernetesApi, tmp_path: Path) -> None:
    found = identify(api.kubeconfig(tmp_path / "config"), GOOD)
    assert found == Identity(Role.WORKLOAD, "system:serviceaccount:shop:reviews.v2", "shop", "reviews.v2")
    assert found.means is Means.KUBERNETES
    assert api.asked == [{"token": GOOD, "audiences": ["istio-ca"]}]
    (tmp_path / "reviewer").write_text(REVIEWER + "\n")
    assert identify(api.kubeconfig(tmp_path / "config", tokenFile="reviewer"), GOOD) == found


def test_an_answer_in_several_pieces_is_read_whole_and_one_without_end_is_not(
    api: KubernetesApi, tmp_path: Path
) -> None:
    path = api.kubeconfig(tmp_path / "config")
    api.in_pieces = True
    assert identify(path, GOOD).service_account == "reviews.v2"
    api.padding = 500_000
    assert identify(path, GOOD).service_account == "reviews.v2"
    api.padding = 3 << 20
    with pytest.raises(Unauthenticated, match="answer of more than 1048576 bytes"):
        identify(path, GOOD)


@pytest.mark.parametrize(
    ("user", "audiences", "reason"),
    [
        ("", [], "does not know the token"),
        ("system:serviceaccount:shop:reviews", [API_AUDIENCE], "does not know the token"),
        ("ann", ["istio-ca"], "not of a service account"),
        ("system:serviceaccount:shop", ["istio-ca"], "not of a service account"),
        ("system:serviceaccount:shop:a/../b", ["istio-ca"], "not of a service account"),
    ],
)
def test_tokens_that_are_not_believed(
    api: KubernetesApi, tmp_path: Path, user: str, audiences: list[str], reason: str
) -> None:
    api.known[GOOD] = (user, audiences)
    with pytest.raises(Unauthenticated, match=reason):
        identify(api.kubeconfig(tmp_path / "config"), GOOD)


def test_an_api_server_that_knows_no_audiences_or_does_not_answer_is_not_enough(
    api: KubernetesApi, tmp_path: Path
) -> None:
    path = api.kubeconfig(tmp_path / "config")
    api.audiences_known = False
    with pytest.raises(Unauthenticated, match="audience istio-ca"):
        identify(path, GOOD)
    api.audiences_known, api.status = True, 500
    with pytest.raises(Unauthenticated, match="answers 500"):
        identify(path, GOOD)
    api.status = 201
    with pytest.raises(Unauthenticated, match="answers 403"):
        identify(api.kubeconfig(tmp_path / "config", token="somebody else"), GOOD)
    path = api.kubeconfig(tmp_path / "config")
    (tmp_path / "other").mkdir()
    (tmp_path / "kubernetes-ca.pem").write_bytes(KubernetesApi(tmp_path / "other").authority)
    asked = len(api.asked)
    with pytest.raises(Unauthenticated, match="cannot be asked"):
        identify(path, GOOD)
    assert len(api.asked) == asked, "a server that cannot prove who it is sees no token"
    with pytest.raises(Unauthenticated, match="too long"):
        identify(path, jwt_like("x" * 20000))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("noise: {", "no kubeconfig"),
        ("a: b", "no kubeconfig"),
        ("server: http://localhost:1", "TLS"),
        ("exec: {command: x}", "users..*exec is not used"),
    ],
)
def test_kubeconfigs_that_cannot_be_used(api: KubernetesApi, tmp_path: Path, text: str, reason: str) -> None:
    path = api.kubeconfig(tmp_path / "config")
    if text.startswith("server"):
        path.write_text(path.read_text().replace(f"server: {api.url}", text))
    elif text.startswith("exec"):
        path.write_text(path.read_text().replace(f"token: {REVIEWER}", text))
    else:
        path.write_text(text)
    with pytest.raises(InvalidCluster, match=reason):
        find_cluster(str(path))
    with pytest.raises(InvalidCluster, match="in no cluster"):
        find_cluster("in-cluster")
    with pytest.raises(InvalidCluster, match="cannot be read"):
        find_cluster(str(tmp_path / "nothing"))
