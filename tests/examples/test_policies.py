"""The policies of examples/policies do what they and docs/who-may-call-what.md say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.security.asking import asked_over_http
from tests.controlplane.pilot.security.enforcing import Enforcing, Workload, enforcing, some_workloads, static_cluster
from tests.controlplane.pilot.security.policy_model import Facts
from tests.controlplane.pilot.security.tokens import key_set, token

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
PAGE = "cluster.local/ns/shop/sa/page"
MODERATOR = "cluster.local/ns/support/sa/moderator"
OPERATOR = "cluster.local/ns/operations/sa/anybody"
USER = {"iss": "https://login.example.com", "aud": "shop", "sub": "alice"}

Call = tuple[str | None, str, str, dict[str, str], int]


def _with(claims: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {token(claims)}"}


CALLS: dict[str, list[Call]] = {
    "only-page": [
        (PAGE, "GET", "/reviews/7", {}, 200),
        (PAGE, "DELETE", "/reviews/7", {}, 403),
        (PAGE, "GET", "/other", {}, 403),
        (MODERATOR, "DELETE", "/reviews/7", {}, 200),
        (MODERATOR, "DELETE", "/reviews/7/all", {}, 403),
        (OPERATOR, "GET", "/reviews/7", {}, 403),
        (None, "GET", "/reviews/7", {}, 403),
    ],
    "nothing-by-default": [
        (PAGE, "GET", "/", {}, 403),
        (None, "GET", "/health", {}, 200),
        (None, "PUT", "/health", {}, 403),
    ],
    "no-admin": [
        (PAGE, "GET", "/admin/users", {}, 403),
        (None, "GET", "/admin", {}, 403),
        (OPERATOR, "GET", "/admin/users", {}, 200),
        (PAGE, "GET", "/administration", {}, 200),
    ],
    "dry-run": [(None, "GET", "/", {}, 200), (PAGE, "GET", "/", {}, 200)],
    "tokens": [
        (PAGE, "GET", "/", {}, 200),
        (PAGE, "GET", "/", {"authorization": "Bearer x.y.z"}, 401),
        (PAGE, "GET", "/orders", {}, 403),
        (PAGE, "GET", "/orders", _with(USER), 200),
        (PAGE, "GET", "/orders", _with({**USER, "aud": "other"}), 403),
        (PAGE, "GET", "/orders/all", _with(USER), 403),
        (PAGE, "GET", "/orders/all", _with({**USER, "groups": ["clerks"]}), 200),
    ],
    "ask-another": [
        (PAGE, "GET", "/public", {}, 200),
        (PAGE, "GET", "/private/x", {"x-user": "bob"}, 401),
        (PAGE, "GET", "/private/x", {"x-user": "alice"}, 200),
    ],
}
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: opa, namespace: shop}
spec: {ports: [{name: http, port: 8181}], selector: {app: opa}}
"""


def _example(name: str, namespace: str) -> str:
    text = (EXAMPLES / f"{name}.yaml").read_text().replace("namespace: shop", f"namespace: {namespace}")
    return text.replace("jwksUri: https://login.example.com/keys", f"jwks: {json.dumps(key_set('one'))}")


@pytest.fixture(scope="module", params=PLANES)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    workloads = dict(zip(CALLS, some_workloads(len(CALLS)), strict=True))
    more = "---\n".join([SERVICE, *(_example(name, workload.namespace) for name, workload in workloads.items())])
    with asked_over_http() as (port, _):
        cluster = static_cluster("outbound|8181||opa.shop.svc.cluster.local", port)
        tables: dict[Workload, list[Any]] = {workload: [] for workload in workloads.values()}
        directory = tmp_path_factory.mktemp(request.param)
        settings: dict[str, Any] = {"mesh": _mesh(), "more": more, "clusters": [cluster], "app": "reviews"}
        with enforcing(request.param, tables, directory, **settings) as found:
            yield found, workloads


def _mesh() -> dict[str, Any]:
    """The mesh's configuration that the comment of ask-another.yaml asks for."""
    lines = (EXAMPLES / "ask-another.yaml").read_text().splitlines()
    found: dict[str, Any] = yaml.safe_load("\n".join(line[4:] for line in lines if line.startswith("#   ")))
    return found


@pytest.mark.parametrize(
    ("name", "call"),
    [
        pytest.param(name, call, id=f"{name}-{index}")
        for name, calls in CALLS.items()
        for index, call in enumerate(calls)
    ],
)
def test_examples(proxy: tuple[Enforcing, dict[str, Workload]], name: str, call: Call) -> None:
    enforced, workloads = proxy
    identity, method, path, headers, status = call
    facts = Facts(identity, host="reviews", method=method, path=path, headers=headers)
    assert enforced.answer(workloads[name], facts)[0] == status


def test_all_examples_are_here_and_on_the_page() -> None:
    page = (EXAMPLES.parents[1] / "docs" / "who-may-call-what.md").read_text()
    names = {path.stem for path in EXAMPLES.glob("*.yaml")}
    assert names == set(CALLS)
    assert {name for name in names if f"examples/policies/{name}.yaml" in page} == names
