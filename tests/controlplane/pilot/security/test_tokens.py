"""RequestAuthentication, and policies that rest on what tokens say, in real Envoy and in our sidecar."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.security.enforcing import Enforcing, Workload, at, enforcing, some_workloads
from tests.controlplane.pilot.security.policy_model import Facts, verdict
from tests.controlplane.pilot.security.random_policies import CLAIMS, ISSUER, facts, policy
from tests.controlplane.pilot.security.tokens import authentication, key_set, token

ONE = {"issuer": ISSUER, "jwks": key_set("one")}
ALICE = {"iss": ISSUER, "sub": "alice"}


class Ask(NamedTuple):
    """A request, and what comes of it: the status, and headers that the workload sees (None: it does not)."""

    what: str
    status: int
    headers: dict[str, str] = {}
    path: str = "/"
    sees: dict[str, str | None] = {}


def _bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def _altered(text: str) -> str:
    head, _, signature = text.split(".")
    claims = base64.urlsafe_b64encode(json.dumps({**ALICE, "sub": "mallory"}).encode()).rstrip(b"=").decode()
    return f"{head}.{claims}.{signature}"


def _unsigned() -> str:
    head, claims, _ = token(ALICE).split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return f"{head}.{claims}."


GOOD = token(ALICE)
OTHER_ISSUER = {"issuer": "other", "jwks": key_set("two")}
ONLY_WITH_TOKEN = {"action": "DENY", "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]}

TABLES: dict[str, tuple[list[dict[str, Any]], list[Ask]]] = {
    "one issuer": (
        [authentication(ONE)],
        [
            Ask("no token", 200),
            Ask("a good one", 200, _bearer(GOOD), sees={"authorization": None}),
            Ask("in the parameter", 200, path=f"/?access_token={GOOD}"),
            Ask("altered", 401, _bearer(_altered(GOOD))),
            Ask("unsigned", 401, _bearer(_unsigned())),
            Ask("no token at all", 401, _bearer("x.y.z")),
            Ask("another's key", 401, _bearer(token(ALICE, "two"))),
            Ask("another issuer", 401, _bearer(token({**ALICE, "iss": "other"}))),
            Ask("expired", 401, _bearer(token(ALICE, seconds=-300))),
        ],
    ),
    "audiences": (
        [authentication({**ONE, "audiences": ["web", "api"]})],
        [
            Ask("one of them", 200, _bearer(token({**ALICE, "aud": "api"}))),
            Ask("several", 200, _bearer(token({**ALICE, "aud": ["x", "web"]}))),
            Ask("another", 403, _bearer(token({**ALICE, "aud": "x"}))),
            Ask("none", 403, _bearer(GOOD)),
        ],
    ),
    "places": (
        [
            authentication(
                {
                    **ONE,
                    "fromHeaders": [{"name": "x-token", "prefix": "JWT "}],
                    "fromParams": ["t"],
                    "fromCookies": ["session"],
                }
            )
        ],
        [
            Ask("the header", 200, {"x-token": f"JWT {GOOD}"}, sees={"x-token": None}),
            Ask("a bad one in the header", 401, {"x-token": "JWT x.y.z"}),
            Ask("a bad one in the parameter", 401, path="/?t=x.y.z"),
            Ask("a bad one in the cookie", 401, {"cookie": "session=x.y.z"}),
            Ask("the cookie", 200, {"cookie": f"session={GOOD}"}),
            Ask("where nobody looks", 200, _bearer("x.y.z")),
        ],
    ),
    "what the workload sees": (
        [
            authentication(
                {
                    **ONE,
                    "forwardOriginalToken": True,
                    "outputPayloadToHeader": "x-payload",
                    "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}, {"header": "x-in", "claim": "a.b"}],
                }
            )
        ],
        [
            Ask(
                "a token",
                200,
                _bearer(inner := token({**ALICE, "a": {"b": "c"}})),
                sees={
                    "authorization": f"Bearer {inner}",
                    "x-payload": inner.split(".")[1],
                    "x-sub": "alice",
                    "x-in": "c",
                },
            ),
            Ask("headers of that name from outside", 200, {"x-sub": "mallory"}, sees={"x-sub": None}),
        ],
    ),
    "two issuers of two policies": (
        [authentication(ONE), authentication(OTHER_ISSUER)],
        [
            Ask("the first", 200, _bearer(GOOD)),
            Ask("the second", 200, _bearer(token({"iss": "other", "sub": "bob"}, "two"))),
            Ask("of the second by the first one's key", 401, _bearer(token({"iss": "other"}, "one"))),
            Ask("of a third", 401, _bearer(token({"iss": "third"}, "two"))),
            Ask("none", 200),
        ],
    ),
    "two issuers in two places": (
        [
            authentication(
                {**ONE, "fromHeaders": [{"name": "x-one"}]}, {**OTHER_ISSUER, "fromHeaders": [{"name": "x-two"}]}
            )
        ],
        [
            Ask("the one", 200, {"x-one": GOOD}),
            Ask("none", 200),
            Ask("a bad one", 401, {"x-two": "x.y.z"}),
        ],
    ),
    "a token is required": (
        [authentication(ONE), ONLY_WITH_TOKEN],
        [Ask("none", 403), Ask("one", 200, _bearer(GOOD)), Ask("a bad one", 401, _bearer("x.y.z"))],
    ),
    "claims": (
        [
            authentication({**ONE, "spaceDelimitedClaims": ["features"]}),
            {
                "rules": [
                    {"when": [{"key": "request.auth.claims[groups]", "values": ["admins"]}]},
                    {"when": [{"key": "request.auth.claims[scope]", "values": ["write"]}]},
                    {"when": [{"key": "request.auth.claims[features]", "values": ["beta"]}]},
                    {"when": [{"key": "request.auth.claims[realm][roles]", "values": ["op*"]}]},
                    {"from": [{"source": {"requestPrincipals": [f"{ISSUER}/root"]}}]},
                ]
            },
        ],
        [
            Ask("none", 403),
            Ask("without", 403, _bearer(GOOD)),
            Ask("a text", 200, _bearer(token({**ALICE, "groups": "admins"}))),
            Ask("a list", 200, _bearer(token({**ALICE, "groups": ["x", "admins"]}))),
            Ask("another list", 403, _bearer(token({**ALICE, "groups": ["x", "administrators"]}))),
            Ask("a part of a text with blanks", 200, _bearer(token({**ALICE, "scope": "read write"}))),
            Ask("of a claim named so", 200, _bearer(token({**ALICE, "features": "beta gamma"}))),
            Ask("of a claim within another", 200, _bearer(token({**ALICE, "realm": {"roles": ["operator"]}}))),
            Ask("a principal", 200, _bearer(token({**ALICE, "sub": "root"}))),
            Ask("a number", 403, _bearer(token({**ALICE, "groups": 5}))),
        ],
    ),
    "a rule for no issuer is for any that has the key": (
        [authentication({"jwksUri": "http://127.0.0.1:1/jwks"})],
        [Ask("none", 200), Ask("its keys cannot be had", 401, _bearer(GOOD))],
    ),
}


@pytest.fixture(scope="module", params=PLANES)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    workloads = dict(zip(TABLES, some_workloads(len(TABLES)), strict=True))
    tables = {workload: TABLES[name][0] for name, workload in workloads.items()}
    with enforcing(request.param, tables, tmp_path_factory.mktemp(request.param)) as found:
        yield found, workloads


@pytest.mark.parametrize(
    ("table", "ask"),
    [pytest.param(name, ask, id=f"{name}: {ask.what}") for name, (_, asks) in TABLES.items() for ask in asks],
)
def test_tokens(proxy: tuple[Enforcing, dict[str, Workload]], table: str, ask: Ask) -> None:
    enforced, workloads = proxy
    facts = Facts(host="own.example", path=ask.path, headers=ask.headers)
    status, headers, body = enforced.answer(workloads[table], facts)
    assert status == ask.status, (headers, body)
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer realm=")
    if ask.sees:
        seen = json.loads(body)["headers"]
        assert {name: seen.get(name) for name in ask.sees} == ask.sees


@pytest.mark.parametrize("kind", PLANES)
def test_random_policies_on_tokens(kind: str, tmp_path: Path) -> None:
    chance = random.Random(11)
    tables = {
        workload: [authentication(ONE)]
        + [policy(chance, tokens=True, ports=workload[1:]) for _ in range(chance.choice((1, 2)))]
        for workload in some_workloads(20)
    }
    signed = {index: token(claims) for index, claims in enumerate(CLAIMS) if claims is not None}
    with enforcing(kind, tables, tmp_path) as proxy:
        for workload, table in tables.items():
            named = [{**each, "namespace": workload.namespace} for each in table[1:]]
            for _ in range(20):
                call = at(workload, facts(chance, tokens=True))
                wanted = verdict(named, call)
                if call.http:
                    found = proxy.answer(workload, call, signed.get(CLAIMS.index(call.claims), ""))[0]
                    assert found == (200 if wanted else 403), (named, call)
                else:
                    assert proxy.ask(workload, call) == wanted, (named, call)
