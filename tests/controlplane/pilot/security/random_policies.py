"""Policies and callers by chance, of few words, so that they meet each other."""

from __future__ import annotations

import random
from typing import Any

from tests.controlplane.pilot.security.policy_model import Facts

IDENTITIES = (
    None,
    "cluster.local/ns/shop/sa/page",
    "cluster.local/ns/shop/sa/reviews",
    "cluster.local/ns/shop-two/sa/page",
    "old.example/ns/shop/sa/page",
    "other.example/ns/shop/sa/page",
    "cluster.local/ns/case-1/sa/page",
)
HOSTS = ("shop.example", "Shop.Example", "api.shop.example", "other.example:8080")
PATHS = ("/", "/info", "/info?x=1", "/v1/users/7", "/v1/users/7/cart", "/admin/x", "/v1/users/")
METHODS = ("GET", "POST", "DELETE")
HEADERS: tuple[dict[str, str], ...] = ({}, {"x-role": "admin"}, {"x-role": "viewer"}, {"x-forwarded-for": "10.1.2.3"})
ISSUER = "https://issuer.example"
CLAIMS: tuple[dict[str, Any] | None, ...] = (
    None,
    {
        "iss": ISSUER,
        "sub": "alice",
        "aud": ["web", "api"],
        "azp": "app-1",
        "groups": ["a", "ab"],
        "scope": "read write",
    },
    {"iss": ISSUER, "sub": "bob", "aud": "web", "realm": {"roles": ["admin"], "name": "x"}},
)

_FIELDS = {
    "principals": ("*", "cluster.local/ns/shop/sa/page", "cluster.local/ns/shop/*", "*/sa/page", "old.example/ns/shop/sa/page"),
    "namespaces": ("*", "shop", "shop*", "*-two", "other"),
    "ipBlocks": ("127.0.0.1", "10.0.0.0/8", "127.0.0.0/8", "::1"),
    "remoteIpBlocks": ("10.1.0.0/16", "127.0.0.1"),
    "serviceAccounts": ("page", "shop/page", "shop/reviews", "shop-two/page"),
    "requestPrincipals": ("*", f"{ISSUER}/alice", f"{ISSUER}/*", "*/bob", "*ice", "https*", "nobody"),
}  # fmt: skip
_OPERATIONS = {
    "hosts": ("shop.example", "*.example", "api*", "*"),
    "methods": ("GET", "P*", "*E", "*"),
    "paths": ("/info", "/v1/*", "*/cart", "*", "/v1/users/{*}", "/v1/{**}", "/{*}/x"),
}
_KEYS = {
    "source.ip": _FIELDS["ipBlocks"],
    "remote.ip": _FIELDS["remoteIpBlocks"],
    "source.namespace": _FIELDS["namespaces"],
    "source.principal": _FIELDS["principals"],
    "source.serviceAccount": _FIELDS["serviceAccounts"],
    "request.headers[X-Role]": ("admin", "v*", "*er", "*"),
    "destination.ip": ("127.0.0.1", "10.0.0.0/8"),
    "connection.sni": ("*",),
}
_TOKEN_KEYS = {
    "request.auth.principal": _FIELDS["requestPrincipals"],
    "request.auth.audiences": ("web", "api", "w*"),
    "request.auth.presenter": ("app-1", "*"),
    "request.auth.claims[groups]": ("a", "ab", "a*", "*"),
    "request.auth.claims[scope]": ("read", "write"),
    "request.auth.claims[realm][roles]": ("admin", "*"),
    "request.auth.claims[realm][name]": ("x",),
}


def policy(chance: random.Random, *, tokens: bool, ports: tuple[int, int] = (1, 2)) -> dict[str, Any]:
    """An AuthorizationPolicy to allow or deny; with ``tokens`` it may ask for what they say."""
    rules = [_rule(chance, tokens, ports) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
    action = chance.choice(("ALLOW", "ALLOW", "DENY"))
    if action == "DENY" and not rules:
        rules = [{}]
    return {"action": action, "rules": rules, **({"dryRun": True} if chance.random() < 0.1 else {})}


def facts(chance: random.Random, *, tokens: bool) -> Facts:
    """A request, or now and then a connection."""
    identity = chance.choice(IDENTITIES)
    if chance.random() < 0.25:
        return Facts(identity, http=False)
    headers = chance.choice(HEADERS)
    return Facts(
        identity,
        host=chance.choice(HOSTS),
        method=chance.choice(METHODS),
        path=chance.choice(PATHS),
        headers=headers,
        claims=chance.choice(CLAIMS) if tokens else None,
        remote=headers.get("x-forwarded-for", "127.0.0.1"),
    )


def _some(chance: random.Random, values: tuple[str, ...]) -> list[str]:
    return chance.sample(values, min(len(values), chance.choice((1, 1, 2))))


def _negated(chance: random.Random, name: str) -> str:
    return name if chance.random() < 0.7 else f"not{name[0].upper()}{name[1:]}"


def _rule(chance: random.Random, tokens: bool, ports: tuple[int, int]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if chance.random() < 0.6:
        made["from"] = [{"source": _source(chance, tokens)} for _ in range(chance.choice((1, 1, 2)))]
    if chance.random() < 0.6:
        made["to"] = [{"operation": _operation(chance, ports)} for _ in range(chance.choice((1, 1, 2)))]
    if chance.random() < 0.4:
        keys = {**_KEYS, "destination.port": tuple(map(str, ports)), **(_TOKEN_KEYS if tokens else {})}
        made["when"] = [_condition(chance, keys) for _ in range(chance.choice((1, 1, 2)))]
    return made


def _condition(chance: random.Random, keys: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    key = chance.choice(sorted(keys))
    names = chance.choice((("values",), ("values",), ("notValues",), ("values", "notValues")))
    return {"key": key, **{name: _some(chance, keys[key]) for name in names}}


def _source(chance: random.Random, tokens: bool) -> dict[str, list[str]]:
    names = [name for name in _FIELDS if tokens or name != "requestPrincipals"]
    chosen = set(chance.sample(names, chance.choice((1, 1, 2))))
    if "serviceAccounts" in chosen:
        chosen -= {"principals", "namespaces"}  # the two exclude each other
    return {_negated(chance, name): _some(chance, _FIELDS[name]) for name in sorted(chosen)}


def _operation(chance: random.Random, ports: tuple[int, int]) -> dict[str, list[str]]:
    fields = {**_OPERATIONS, "ports": tuple(map(str, ports))}
    chosen = chance.sample(sorted(fields), chance.choice((1, 1, 2)))
    return {_negated(chance, name): _some(chance, fields[name]) for name in chosen}
