"""One server for the tests of a file, and a kubectl of each kind that there is."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.api.serving import Background, Client, Kubectl, kubectls


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with Background(tmp_path_factory.mktemp("api")) as background:
        yield background


@pytest.fixture
def client(background: Background) -> Client:
    """The admin."""
    return Client(background)


@pytest.fixture
def namespace(client: Client) -> str:
    """One of its own for each test."""
    name = f"shop-{uuid.uuid4().hex[:8]}"
    made = client("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert made.status == 201
    return name


@pytest.fixture(params=kubectls() or [""])
def kubectl(request: pytest.FixtureRequest, background: Background, tmp_path: Path) -> Kubectl:
    if not request.param:
        pytest.skip("there is no kubectl: install Debian's kubernetes-client, or name one in MIZZEN_KUBECTL")
    return Kubectl(request.param, background.served.kubeconfig, tmp_path)
