"""The jwt_authn filter's configuration: each setting, its defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.filters.jwt_authn import (
    TYPE,
    TYPE_PER_ROUTE,
    AllowMissing,
    AllowMissingOrFailed,
    JwksAsyncFetch,
    JwtAuthentication,
    JwtCacheConfig,
    JwtHeader,
    JwtPerRoute,
    JwtProvider,
    LocalJwks,
    RemoteJwks,
    RequireAll,
    RequireAny,
    RequirementRule,
    RequireNothing,
    RequireProvider,
    parse_jwt_authn,
    parse_jwt_per_route,
)
from sidecar.config.matcher import StringMatcher
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from sidecar.config.route_match import RouteMatch
from tests.sidecar.config.building import build, problems

KEYS = {"inline_string": "{}"}
URI = {"uri": "https://issuer.test/keys?x=1", "cluster": "a", "timeout": "2s"}


def read(**fields: Any) -> JwtAuthentication:
    return build(TYPE, fields, parse_jwt_authn)


def provider(**fields: Any) -> JwtProvider:
    if "remote_jwks" not in fields:
        fields.setdefault("local_jwks", KEYS)
    return read(providers={"p": fields}).providers["p"]


def test_defaults() -> None:
    found = provider()
    assert found == JwtProvider("p", LocalJwks(b"{}"))
    assert (found.clock_skew_seconds, found.jwt_cache_config) == (60, JwtCacheConfig(100, 4096))
    assert (found.max_lifetime, found.forward) == (None, False)


def test_every_setting_of_a_provider() -> None:
    assert provider(
        issuer="i",
        audiences=["a", "b"],
        subjects={"suffix": "s"},
        require_expiration=True,
        max_lifetime="90s",
        forward=True,
        from_headers=[{"name": "X-Token", "value_prefix": "T "}],
        from_params=["p"],
        from_cookies=["c"],
        forward_payload_header="X-Payload",
        pad_forward_payload_header=True,
        payload_in_metadata="payload",
        header_in_metadata="header",
        failed_status_in_metadata="failed",
        normalize_payload_in_metadata={"space_delimited_claims": ["scope"]},
        claim_to_headers=[{"header_name": "X-User", "claim_name": "sub"}],
        clear_route_cache=True,
        clock_skew_seconds=5,
        jwt_cache_config={"jwt_cache_size": 7, "jwt_max_token_size": 99},
    ) == JwtProvider(
        "p",
        LocalJwks(b"{}"),
        "i",
        ("a", "b"),
        StringMatcher("suffix", b"s"),
        True,
        90.0,
        True,
        (JwtHeader(b"x-token", b"T "),),
        (b"p",),
        (b"c",),
        b"x-payload",
        True,
        "payload",
        "header",
        "failed",
        ("scope",),
        ((b"x-user", "sub"),),
        True,
        5,
        JwtCacheConfig(7, 99),
    )


def test_keys_of_servers() -> None:
    assert provider(remote_jwks={"http_uri": URI}).jwks == RemoteJwks("a", b"issuer.test", b"/keys?x=1", 2.0)
    assert provider(
        remote_jwks={
            "http_uri": {**URI, "uri": "http://issuer.test:81"},
            "cache_duration": "30s",
            "async_fetch": {"fast_listener": True, "failed_refetch_duration": "3s"},
            "retry_policy": {"num_retries": 4},
        }
    ).jwks == RemoteJwks(
        "a",
        b"issuer.test:81",
        b"/",
        2.0,
        30.0,
        JwksAsyncFetch(True, 3.0),
        RetryPolicy(
            frozenset({"5xx", "gateway-error", "connect-failure", "reset"}), 4, retry_back_off=RetryBackOff(1.0, 10.0)
        ),
    )


def test_keys_of_files() -> None:
    assert provider(local_jwks={"filename": "/k"}).jwks == LocalJwks(filename="/k")
    watched = {"filename": "/d/k", "watched_directory": {"path": "/d"}}
    assert provider(local_jwks=watched).jwks == LocalJwks(filename="/d/k", watched=True, watched_directory="/d")


def test_keys_are_in_no_repr() -> None:
    assert "secret" not in repr(provider(local_jwks={"inline_string": "secret"}))


ONE = {"provider_name": "p"}
REQUIREMENTS: list[tuple[dict[str, Any], Any]] = [
    (ONE, RequireProvider("p")),
    ({"provider_and_audiences": {"provider_name": "p", "audiences": ["x"]}}, RequireProvider("p", ("x",))),
    (
        {"requires_any": {"requirements": [ONE, {"allow_missing": {}}]}},
        RequireAny((RequireProvider("p"), AllowMissing())),
    ),
    (
        {"requires_all": {"requirements": [ONE, {"requires_any": {"requirements": [ONE, ONE]}}]}},
        RequireAll((RequireProvider("p"), RequireAny((RequireProvider("p"), RequireProvider("p"))))),
    ),
    ({"allow_missing_or_failed": {}}, AllowMissingOrFailed()),
    ({}, RequireNothing()),
]


@pytest.mark.parametrize(("requirement", "expected"), REQUIREMENTS)
def test_requirements(requirement: dict[str, Any], expected: Any) -> None:
    found = read(
        providers={"p": {"local_jwks": KEYS}},
        requirement_map={"named": requirement},
        rules=[
            {"match": {"prefix": "/a"}, "requires": requirement},
            {"match": {"path": "/b"}, "requirement_name": "named"},
            {"match": {"prefix": "/c"}},
        ],
        filter_state_rules={"name": "state", "requires": {"v": requirement}},
        bypass_cors_preflight=True,
        strip_failure_response=True,
        stat_prefix="s",
    )
    assert found.rules == (
        RequirementRule(RouteMatch("prefix", b"/a"), expected),
        RequirementRule(RouteMatch("path", b"/b"), expected),
        RequirementRule(RouteMatch("prefix", b"/c"), None),
    )
    assert (found.filter_state_name, found.filter_state_rules) == ("state", {"v": expected})
    assert (found.bypass_cors_preflight, found.strip_failure_response, found.stat_prefix) == (True, True, "s")


def test_per_route() -> None:
    assert build(TYPE_PER_ROUTE, {"disabled": True}, parse_jwt_per_route) == JwtPerRoute(disabled=True)
    named = build(TYPE_PER_ROUTE, {"requirement_name": "n"}, parse_jwt_per_route)
    assert named == JwtPerRoute(requirement_name="n")


PROVIDERS = {"p": {"local_jwks": KEYS}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "q"}}]}, "rules[0].requires.provider_name",
     "there is no provider 'q'"),
    ({"rules": [{"match": {"prefix": "/"}, "requirement_name": "q"}]}, "rules[0].requirement_name",
     "'q' is not in requirement_map"),
    ({"rules": [{"match": {"prefix": "/", "grpc": {}}}]}, "rules[0].match.grpc", "has no effect in rules for tokens"),
    ({"providers": {"p": {"remote_jwks": {"http_uri": {**URI, "uri": "issuer"}}}}},
     'providers["p"].remote_jwks.http_uri.uri', "is no URL"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "path", "problem"), REFUSED)
def test_what_is_refused(fields: dict[str, Any], path: str, problem: str) -> None:
    found = problems(TYPE, {"providers": PROVIDERS, **fields}, parse_jwt_authn)
    assert (path, problem) in found, found


def test_cluster_must_be_there() -> None:
    remote = {"http_uri": {**URI, "cluster": "none"}}
    ((path, _),) = problems(TYPE, {"providers": {"p": {"remote_jwks": remote}}}, parse_jwt_authn)
    assert path.endswith("http_uri.cluster")
