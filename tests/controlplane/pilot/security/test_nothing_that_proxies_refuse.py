"""Policies that are valid, and would make proxies refuse a whole listener if they were translated word by word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from controlplane.pilot.security.usable_keys import usable_keys
from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.security.enforcing import Enforcing, Workload, enforcing, some_workloads
from tests.controlplane.pilot.security.policy_model import Facts

GOOD = {"kty": "oct", "alg": "HS256", "k": "c2VjcmV0"}
POINT = {"x": "Vuhle75ZD7_P6u1fwxoK0I-lK4BpLGLCO9RBHnHBALg", "y": "UgcM0_4baQKtwgNOqaBid5oWHVJepNRGvU3Ob1BzfyI"}
KEY_SETS: list[tuple[list[Any], list[int]]] = [
    ([], []),
    ([1, None, "x", []], []),
    ([GOOD], [0]),
    ([1, GOOD, {"kty": "x"}], [1]),
    ([{**GOOD, "alg": "none"}, {"kty": "oct"}, {**GOOD, "k": 5}, {**GOOD, "k": "!"}], []),
    ([{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "RSA", "n": "!!", "e": "AQAB"}, {"kty": "RSA", "e": 3}], []),
    ([{"kty": "EC", "crv": "P-256", **POINT}, {"kty": "EC", "crv": "P-256", **POINT, "alg": "ES384"}], [0]),
    ([{"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}, {"kty": "EC", "crv": "secp256k1", **POINT}], []),
    ([{"kty": "OKP", "crv": "Ed25519", "x": POINT["x"]}], [0]),
    ([{"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}, {"kty": "OKP", "crv": "X25519", "x": POINT["x"]}], []),
    ([{**GOOD, "kid": 7}, {**GOOD, "kid": "a"}], [1]),
]


@pytest.mark.parametrize("number", range(len(KEY_SETS)))
def test_usable_keys(number: int) -> None:
    keys, kept = KEY_SETS[number]
    found = usable_keys(json.dumps({"keys": keys}))
    assert (json.loads(found)["keys"] if found else []) == [keys[index] for index in kept]


def _issuer(keys: list[Any]) -> dict[str, Any]:
    jwks = json.dumps({"keys": keys})
    return {"kind": "RequestAuthentication", "jwtRules": [{"issuer": "a", "jwks": jwks}]}


LONG = f"{'n' * 63}/{'s' * 63}"
ACCOUNTS = {"action": "ALLOW", "rules": [{"from": [{"source": {"serviceAccounts": [LONG]}}]}]}
TEMPLATES = [*("/", "/{*}", "/{**}", "/a/{*}", "/{*}/", "/a~%20!$&'()+,;:@=-._/{*}"), "/{*}/{*}/{*}/{*}/{*}/{*}/{**}"]
PATHS = {"action": "DENY", "rules": [{"to": [{"operation": {"paths": TEMPLATES}}]}]}
TABLES: list[list[dict[str, Any]]] = [[ACCOUNTS], [PATHS], *([_issuer(keys)] for keys, _ in KEY_SETS)]


class Setting(NamedTuple):
    proxy: Enforcing
    workloads: list[Workload]


@pytest.fixture(scope="module", params=PLANES)
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    workloads = some_workloads(len(TABLES))
    tables = dict(zip(workloads, TABLES, strict=True))
    with enforcing(request.param, tables, tmp_path_factory.mktemp(request.param)) as proxy:
        yield Setting(proxy, workloads)


def test_proxies_take_them_all(setting: Setting) -> None:
    """Who has a token is refused, and who has none gets in: issuers without usable keys verify nothing."""
    token = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.AAAA"
    for workload in setting.workloads[2:]:
        call = Facts(host="own.example", path="/")
        assert setting.proxy.answer(workload, call)[0] == 200
        assert setting.proxy.answer(workload, call, token)[0] == 401


@pytest.mark.parametrize(
    ("identity", "status"),
    [
        (f"cluster.local/ns/{'n' * 63}/sa/{'s' * 63}", 200),
        (f"other/ns/{'n' * 63}/sa/{'s' * 63}/x", 200),
        (f"cluster.local/ns/{'n' * 63}/sa/{'s' * 62}", 403),
        (f"cluster.local/ns/{'n' * 62}/sa/{'s' * 63}", 403),
        (f"cluster.local/ns/{'n' * 63}/sa/{'s' * 63}s", 403),
        (None, 403),
    ],
)
def test_accounts_of_long_names(setting: Setting, identity: str | None, status: int) -> None:
    call = Facts(host="own.example", path="/", identity=identity)
    assert setting.proxy.answer(setting.workloads[0], call)[0] == status
