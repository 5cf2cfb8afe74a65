"""A route by a token's claims is explained as the one that is taken, after the filter that reads the token."""

from __future__ import annotations

import asyncio

from sidecar.core.explanation import TAKEN, Step
from sidecar.core.question import question_of
from sidecar.server import Server
from tests.sidecar.explain_scene import address, cluster, manager
from tests.tokens import jwk, jwks, token

JWT = "envoy.filters.http.jwt_authn"
SUB = {"filter": JWT, "path": [{"key": "payload"}, {"key": "sub"}], "value": {"string_match": {"exact": "alice"}}}


def explained(sub: str) -> list[Step]:
    provider = {
        "issuer": "one",
        "local_jwks": {"inline_string": jwks(jwk("one", "RS256"))},
        "payload_in_metadata": "payload",
        "clear_route_cache": True,
    }
    reads = {
        "name": JWT,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"one": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "one"}}],
        },
    }
    routes = [
        {"name": "alice's", "match": {"prefix": "/", "dynamic_metadata": [SUB]}, "route": {"cluster": "b"}},
        {"name": "rest", "match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]
    chain = {"name": "plain", "filters": [manager(routes, [reads])]}
    document = {
        "static_resources": {
            "listeners": [{"name": "in", **address(0), "filter_chains": [chain]}],
            "clusters": [cluster("a", 1), cluster("b", 2)],
        }
    }
    bearer = f"authorization: Bearer {token('one', sub=sub)}"

    async def explain() -> list[Step]:
        return await Server(document).explain(question_of("GET", "http://a.test/", (bearer,)))

    return asyncio.run(explain())


def test_the_route_of_the_claims_is_the_one_that_counts() -> None:
    taken = [step.name for step in explained("alice") if step.stage == "route" and step.outcome == TAKEN]
    assert taken == ["rest", "alice's"]  # at first nothing is known of the token
    assert explained("alice")[-1].text == "verdict: the request goes to cluster 'b'"
    steps = explained("bob")
    assert steps[-1].text == "verdict: the request goes to cluster 'a'"
    assert any("payload/sub is missing and must be 'alice'" in step.text for step in steps)
