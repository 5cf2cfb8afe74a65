"""Routes by dynamic metadata: what a token says, after the filter that reads it has the route looked up again."""

from __future__ import annotations

from collections.abc import Mapping
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
    route,
    say,
)
from tests.differential.case import Table
from tests.tokens import jwk, jwks, token

JWT = "envoy.filters.http.jwt_authn"
KEYS = jwks(jwk("one", "RS256", kid="k1"))


def condition(*path: str, value: Message, **fields: Any) -> Message:
    return {"filter": JWT, "path": [{"key": key} for key in path], "value": value, **fields}


def exact(text: str) -> Message:
    return {"string_match": {"exact": text}}


def one_of(value: Message) -> Message:
    return {"list_match": {"one_of": value}}


PRESENT: Message = {"present_match": True}

CONDITIONS: dict[str, list[Message]] = {
    "sub": [condition("payload", "sub", value=exact("alice"))],
    "group": [condition("payload", "groups", value=one_of(exact("admins")))],
    "scope": [condition("payload", "scope", value=one_of({"string_match": {"prefix": "write:"}}))],
    "either": [condition("payload", "role", value={"or_match": {"value_matchers": [exact("a"), one_of(exact("a"))]}})],
    "nested": [condition("payload", "realm", "name", value={"string_match": {"safe_regex": {"regex": "op.*"}}})],
    "number": [condition("payload", "level", value={"double_match": {"range": {"start": 3, "end": 5}}})],
    "exactly": [condition("payload", "level", value={"double_match": {"exact": 7}})],
    "truth": [condition("payload", "staff", value={"bool_match": True})],
    "null": [condition("payload", "deep", "nothing", value={"null_match": {}})],
    "two": [condition("payload", "a", value=exact("1")), condition("payload", "b", value=exact("2"))],
    "folded": [condition("payload", "nick", value={"string_match": {"exact": "BOB", "ignore_case": True}})],
    "header": [condition("header", "kid", value=exact("k1")), condition("payload", "by-kid", value=PRESENT)],
    "kid": [condition("header", "kid", value=exact("k1"))],
    "failed": [condition("failed", "code", value=PRESENT)],
    "without": [condition("payload", "sub", value=PRESENT, invert=True)],
    "never": [condition("payload", "sub", value={"present_match": False})],
    "elsewhere": [{"filter": "nobody", "path": [{"key": "x"}], "value": PRESENT}],
}
PLACES: Mapping[str, Message] = {
    "payload": {"payload_in_metadata": "payload", "clear_route_cache": True},
    "both": {"payload_in_metadata": "payload", "header_in_metadata": "header", "clear_route_cache": True},
    "head": {"header_in_metadata": "header", "clear_route_cache": True},
    "failed": {"payload_in_metadata": "payload", "failed_status_in_metadata": "failed", "clear_route_cache": True},
    "kept": {"payload_in_metadata": "payload"},
    "none": {"clear_route_cache": True},
    "normal": {
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]},
        "clear_route_cache": True,
    },
}
MANY = "many"
"""Its routes are so many that they are indexed."""


def metadata_routes(site: Site) -> Message:
    routes = [
        route({"prefix": "/", "dynamic_metadata": conditions}, say(200, name), name=name)
        for name, conditions in CONDITIONS.items()
    ]
    routes.insert(0, route({"path": "/exact", "dynamic_metadata": CONDITIONS["sub"]}, say(200, "exact"), name="exact"))
    routes.append(route("/", say(200, "rest"), name="rest"))
    filler = [route({"path": f"/filler/{number}"}, say(404), name=f"filler-{number}") for number in range(20)]
    logged = {**LOGGED, "route": "%ROUTE_NAME%", "said": f"%DYNAMIC_METADATA({JWT})%"}

    def served(name: str, provider: Message, taken: list[Message]) -> Message:
        fields = {"issuer": "one", "local_jwks": {"inline_string": KEYS}, "jwt_cache_config": {}, **provider}
        requires = {"requires_any": {"requirements": [{"provider_name": "one"}, {"allow_missing_or_failed": {}}]}}
        filters = [
            http_filter(
                "jwt_authn",
                "JwtAuthentication",
                providers={"one": fields},
                rules=[{"match": {"prefix": "/"}, "requires": requires}],
            )
        ]
        return listener(
            site, name, manager(site, taken, stat_prefix=name, filters=filters, access_log=[access_log(site, logged)])
        )

    return bootstrap(
        site,
        [
            *(served(name, provider, routes) for name, provider in PLACES.items()),
            served(MANY, PLACES["normal"], [*filler, *routes]),
        ],
    )


BOOTSTRAPS = {"metadata-routes": metadata_routes}

CLAIMS: Mapping[str, Mapping[str, Any]] = {
    "sub": {"sub": "alice"},
    "group": {"groups": ["users", "admins"]},
    "groups-without": {"groups": ["users"]},
    "group-as-text": {"groups": "admins"},
    "scope-as-text": {"scope": "read:x write:y"},
    "scope-as-list": {"scope": ["read:x", "write:y"]},
    "either-text": {"role": "a"},
    "either-list": {"role": ["b", "a"]},
    "nested": {"realm": {"name": "operator"}},
    "nested-otherwise": {"realm": {"name": "user"}},
    "nested-not": {"realm": "operator"},
    "number": {"level": 4},
    "number-end": {"level": 5},
    "number-as-text": {"level": "4"},
    "exactly": {"level": 7.0},
    "truth": {"staff": True},
    "untruth": {"staff": False},
    "truth-as-text": {"staff": "true"},
    "null": {"deep": {"nothing": None}},
    "two": {"a": "1", "b": "2"},
    "one-of-two": {"a": "1"},
    "folded": {"nick": "bob"},
    "header": {"by-kid": "x"},
    "plain": {},
}

table = Table("metadata-routes", "metadata-routes")
CASES = table.cases


def _bearer(text: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {text}")]


for _name, _claims in CLAIMS.items():
    _headers = _bearer(token("one", **{"sub": "somebody", **_claims}))
    for _listener in (*PLACES, MANY) if _name in ("sub", "scope-as-text", "header", "plain") else ("normal", MANY):
        table.get(f"{_name}-{_listener}", headers=_headers, listener=_listener)
for _listener in (*PLACES, MANY):
    table.get(f"missing-{_listener}", listener=_listener)
    table.get(f"bad-{_listener}", headers=_bearer("x.y.z"), listener=_listener)
    table.get(f"exact-{_listener}", "/exact", headers=_bearer(token("one", sub="alice")), listener=_listener)
    table.get(f"exact-not-{_listener}", "/exact", headers=_bearer(token("one", sub="bob")), listener=_listener)
    table.get(
        f"post-{_listener}",
        headers=_bearer(token("one", sub="alice")),
        method="POST",
        body=b"x" * 2000,
        listener=_listener,
    )
