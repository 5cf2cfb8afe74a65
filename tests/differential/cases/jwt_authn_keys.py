"""The jwt_authn filter with keys from servers, good, ill and slow; and what is decided behind it by what a token says."""

from __future__ import annotations

import time
from typing import Any

from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    to,
)
from tests.differential.case import Delay, ReadBody, Reply, Table, reply, request, turns
from tests.tokens import jwk, jwks, token

KEYS = jwks(jwk("one", "RS256"))
OTHER = jwks(jwk("two", "RS256"))
RULES = [{"match": {"prefix": "/"}, "requires": {"provider_name": "one"}}]


def remote(cluster: str = "c", **fields: Any) -> Message:
    """Keys that are too old at once, so that every case asks for them."""
    uri = {"uri": "http://issuer.test/keys?x=1", "cluster": cluster, "timeout": "2s"}
    provider = {"issuer": "one", "remote_jwks": {"http_uri": uri, "cache_duration": "0.001s", **fields}}
    return {"providers": {"one": provider}, "rules": RULES}


def only_sub(name: str, action: str = "ALLOW") -> Message:
    """Rules for one subject."""
    principal = {
        "metadata": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "payload"}, {"key": "sub"}],
            "value": {"string_match": {"exact": name}},
        }
    }
    return {"rules": {"action": action, "policies": {"p": {"permissions": [{"any": True}], "principals": [principal]}}}}


def jwt_authn_keys(site: Site) -> Message:
    quick = {"http_uri": {"uri": "http://issuer.test/keys", "cluster": "c", "timeout": "0.3s"}}
    by_claims = {
        "issuer": "one",
        "local_jwks": {"inline_string": KEYS},
        "payload_in_metadata": "payload",
        "claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}],
    }
    listeners: dict[str, list[Message]] = {
        "http": [http_filter("jwt_authn", "JwtAuthentication", **remote())],
        "quick": [http_filter("jwt_authn", "JwtAuthentication", **remote(**quick))],
        "again": [http_filter("jwt_authn", "JwtAuthentication", **remote(retry_policy={"num_retries": 1,
            "retry_back_off": {"base_interval": "0.01s", "max_interval": "2s"}}))],
        "refused": [http_filter("jwt_authn", "JwtAuthentication", **remote("refused"))],
        "empty": [http_filter("jwt_authn", "JwtAuthentication", **remote("empty"))],
        "rbac": [
            http_filter("jwt_authn", "JwtAuthentication", providers={"one": by_claims}, rules=RULES),
            http_filter("rbac", "RBAC", **only_sub("alice")),
        ],
        **{
            name: [
                http_filter("jwt_authn", "JwtAuthentication", rules=RULES,
                            providers={"one": {**by_claims, "clear_route_cache": clears}}),
                http_filter("rbac", "RBAC"),
            ]
            for name, clears in (("clears", True), ("keeps", False))
        },
    }  # fmt: skip

    def of_user(name: str) -> Message:
        return {"prefix": "/", "headers": [{"name": "x-user", "string_match": {"exact": name}}]}

    routes = [
        route(of_user("alice"), to("b")),
        route(of_user("carol"), to("b"), typed_per_filter_config=per_filter(
            "rbac", "RBACPerRoute", rbac=only_sub("carol", "DENY"))),
        route(of_user("dave"), {"direct_response": {"status": 418}}),
        route("/"),
    ]  # fmt: skip
    logged = {**LOGGED, "said": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%"}
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(site, routes, stat_prefix=name, filters=filters, access_log=[access_log(site, logged)]),
            )
            for name, filters in listeners.items()
        ],
    )


BOOTSTRAPS = {"jwt-authn-keys": jwt_authn_keys}

table = Table("jwt-authn-keys", "jwt-authn-keys")
CASES = table.cases


def bearer(text: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {text}")]


GOOD = token("one")
HAS_KEYS = reply(200, KEYS.encode())
ANSWERS: dict[str, Reply] = {
    "good": HAS_KEYS,
    "chunked": reply(200, chunks=[KEYS.encode()[:50], KEYS.encode()[50:]]),
    "other-keys": reply(200, OTHER.encode()),
    "status-500": reply(500, KEYS.encode()),
    "status-404": reply(404, b"no"),
    "status-204": reply(204, b"", length=False),
    "status-302": reply(302, b"", [("location", "/x")]),
    "empty": reply(200, b""),
    "not-json": reply(200, b"<html>"),
    "no-keys": reply(200, b"{}"),
    "empty-keys": reply(200, b'{"keys": []}'),
    "bad-keys": reply(200, b'{"keys": [{"kty": "RSA"}]}'),
    "slow": reply(200, KEYS.encode(), delay=0.1),
}
for _name, _answer in ANSWERS.items():
    table.get(f"answer-{_name}", headers=bearer(GOOD), upstream={"c": (_answer,)})
table.get("answer-slow-post", headers=bearer(GOOD), method="POST", body=b"x" * 3000, upstream={"c": (ANSWERS["slow"],)})
table.get("never", headers=bearer(GOOD), listener="quick", upstream={"c": (Reply((ReadBody(), Delay(2.0))),)})
table.get("again", headers=bearer(GOOD), listener="again", upstream={"c": (ANSWERS["status-500"], HAS_KEYS)})
table.get("again-in-vain", headers=bearer(GOOD), listener="again", upstream={"c": (ANSWERS["status-500"],)})
for _listener in ("refused", "empty"):
    table.get(_listener, headers=bearer(GOOD), listener=_listener)
table.get("missing", upstream={"c": (HAS_KEYS,)})
table.get("expired", headers=bearer(token("one", exp=int(time.time()) - 3600)), upstream={"c": (HAS_KEYS,)})
table.get("issuer", headers=bearer(token("two")), upstream={"c": (HAS_KEYS,)})
table.add(
    "rotated",
    *turns(
        *(
            request("GET", "/", bearer(one))
            for one in (GOOD, token("two", iss="one"), token("one", sub="x"), token("two", iss="one", sub="x"))
        ),
        pause=0.05,
    ),
    upstream={"c": (HAS_KEYS, reply(200, OTHER.encode()))},
)
for _sub in ("alice", "bob", "carol", "dave"):
    for _listener in ("rbac", "clears", "keeps"):
        table.get(f"by-claim-{_sub}-{_listener}", headers=bearer(token("one", sub=_sub)), listener=_listener)
        table.get(
            f"by-claim-{_sub}-{_listener}-post",
            headers=[*bearer(token("one", sub=_sub)), ("x-user", "alice")],
            method="POST",
            body=b"x" * 2000,
            listener=_listener,
        )
for _listener in ("http", "quick", "again", "refused", "empty", "clears"):
    table.get(f"counted-{_listener}", f"/stats?filter=http.{_listener}.jwt_authn.*(fetch|allowed|denied)",
              listener="admin", access_log=False)  # fmt: skip
