"""Configurations whose filters take fields from requests and add some, and tokens of one length that are not equally good."""

from __future__ import annotations

from typing import Any, Final

from tests import tokens
from tests.sidecar.http.running import bootstrap, http_filter

_LATER, _BEFORE = 9_999_999_999, 1_000_000_000


def token(subject: str = "u0", key: str = "one", until: int = _LATER) -> bytes:
    """A token as ``authorization`` has it; they are the same at every time."""
    claims = {"iss": "one", "sub": subject, "exp": until}
    return f"Bearer {tokens.assemble({'alg': 'HS256'}, claims, key, 'HS256')}".encode()


GOOD: Final = token()
TOKENS: Final = (
    token("u1"),
    token("u2"),
    token("u2"),
    token(until=_BEFORE),
    token(key="two"),
    token("é\n"),
    token("u 3"),
)
"""Two that are good, one that has expired, one of another key, and two of which not every value can be a field's."""


def jwt(asks: dict[str, Any] | None = None, **provider: Any) -> dict[str, Any]:
    """The filter with one provider, of whom every request needs a token; it leaves ``authorization`` out."""
    login = {"issuer": "one", "local_jwks": {"inline_string": tokens.jwks(tokens.jwk("one", "HS256"))}, **provider}
    requires = asks or {"provider_name": "login"}
    return http_filter(
        "jwt_authn.v3.JwtAuthentication",
        providers={"login": login},
        rules=[{"match": {"prefix": "/"}, "requires": requires}],
    )


def mutation(*mutations: dict[str, Any], name: str = "header_mutation") -> dict[str, Any]:
    """A filter that changes the fields of requests."""
    return {
        **http_filter("header_mutation.v3.HeaderMutation", mutations={"request_mutations": list(mutations)}),
        "name": name,
    }


def added(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    """One mutation that adds a field, or sets it."""
    return {"append": {"header": {"key": key, "value": value}, "append_action": action}}


_OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"
_OR_NONE = {"requires_any": {"requirements": [{"provider_name": "login"}, {"allow_missing": {}}]}}
_CLAIMS = [{"header_name": "x-user", "claim_name": "sub"}, {"header_name": "x-until", "claim_name": "exp"}]
_BY_USER = [
    {
        "match": {"prefix": "/", "headers": [{"name": "x-user", "string_match": {"exact": "u1"}}]},
        "route": {"cluster": "v2"},
    },
    {
        "match": {"prefix": "/"},
        "route": {"cluster": "up", "retry_policy": {"retry_on": "5xx,reset", "num_retries": 1}, "timeout": "0.2s"},
    },
]
CONFIGURATIONS: Final = (
    bootstrap(filters=[jwt()]),
    bootstrap(filters=[jwt(_OR_NONE, payload_in_metadata="payload")], routes=_BY_USER, clusters={"up": {}, "v2": {}}),
    bootstrap(
        filters=[jwt(_OR_NONE, claim_to_headers=_CLAIMS, forward_payload_header="x-payload")],
        manager={"use_remote_address": True, "normalize_path": True},
        routes=_BY_USER,
        clusters={"up": {"outlier_detection": {"consecutive_5xx": 2}}, "v2": {}},
    ),
    bootstrap(
        filters=[jwt(_OR_NONE, claim_to_headers=_CLAIMS[:1], clear_route_cache=True)],
        routes=_BY_USER,
        clusters={"up": {}, "v2": {}},
    ),
    bootstrap(
        filters=[
            jwt(_OR_NONE, forward=True, forward_payload_header="x-request-id"),
            mutation({"remove": "x-user"}, added("x-user", "%REQ(:path)%"), added("x-empty", "")),
        ]
    ),
    bootstrap(
        filters=[
            mutation({"remove": "authorization"}, added("authorization", "%REQ(X-USER)% x", _OVERWRITE)),
            mutation(
                {"remove": "x-request-id"}, {"remove": "accept"}, added("x-100%", "%START_TIME(%s)% 100%%"), name="more"
            ),
        ],
        manager={"preserve_external_request_id": True},
    ),
    bootstrap(filters=[mutation({"remove": "cookie"}, added("cookie", "%REQ(X-MORE)%"), added("traceparent", "00-1"))]),
    bootstrap(
        filters=[
            mutation({"remove": "user-agent"}, added("x-envoy-upstream-rq-timeout-ms", "50")),
            mutation({"remove": "content-type"}, added("content-type", "%REQ(X-USER)%"), name="more"),
        ]
    ),
    bootstrap(
        filters=[mutation({"remove": "content-length"}), mutation(added("x-user", "%REQ(cookie)%"), name="more")]
    ),
)
"""Filters of jwt_authn that take, add or do both, with routes that look at what was added; and changes without a reason."""
