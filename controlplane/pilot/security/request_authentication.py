"""RequestAuthentication: which tokens are accepted, as Envoy's filter for JSON Web Tokens.

Requests without a token pass, those with one that no rule accepts get 401; what a token says is for the rules of
AuthorizationPolicies. Source: https://istio.io/latest/docs/reference/config/security/request_authentication/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from controlplane.model.proxy import ProxyType
from controlplane.model.resource import Resource
from controlplane.pilot.scope import Scope
from controlplane.pilot.security.key_sets import cluster_for
from controlplane.pilot.security.matchers import JWT_FILTER, JWT_PAYLOAD
from controlplane.pilot.security.usable_keys import usable_keys

Requirement = config_pb2.JwtRequirement
_SPACE_DELIMITED = ("scope", "permission")  # by RFC 8693 section 4.2, and by custom
_PATIENCE = 5.0  # seconds, Istio's default
NO_KEYS = (
    '{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "not-known-yet", '
    '"x": "Vuhle75ZD7_P6u1fwxoK0I-lK4BpLGLCO9RBHnHBALg", "y": "UgcM0_4baQKtwgNOqaBid5oWHVJepNRGvU3Ob1BzfyI"}]}'
)
"""Keys that verify nothing, for issuers that have not said where theirs are: proxies refuse a set without any. The point's x
is the SHA-256 of a sentence, so that nobody has its private key."""

_KEPT = 300  # seconds for which keys are kept, Istio's default


def token_filter(scope: Scope, policies: Sequence[Resource]) -> Any:
    """The `HttpFilter` for the rules of all policies together; None if there are none."""
    rules = [rule for policy in policies for rule in policy.spec.jwt_rules]
    if not rules:
        return None
    rules.sort(key=lambda rule: rule.issuer or "")
    clusters = tuple(cluster_for(scope, rule.jwks_uri) if rule.jwks_uri else "" for rule in rules)
    edge = scope.proxy.type is ProxyType.ROUTER
    return scope.memo.get(
        ("token filter", tuple(policies), clusters, edge), lambda: _filter(rules, clusters, clear_routes=edge)
    )


def _filter(rules: Sequence[Any], clusters: Sequence[str], *, clear_routes: bool) -> Any:
    made = config_pb2.JwtAuthentication(bypass_cors_preflight=True)
    names = []
    for index, (rule, cluster) in enumerate(zip(rules, clusters, strict=True)):
        names.append(f"origins-{index}")
        made.providers[names[-1]].CopyFrom(_provider(rule, cluster, clear_routes))
    only = made.rules.add()
    only.match.prefix = "/"
    only.requires.CopyFrom(_requirement(names))
    found = hcm_pb2.HttpFilter(name=JWT_FILTER)
    found.typed_config.Pack(made, deterministic=True)
    return found


def _requirement(names: Sequence[str]) -> Any:
    """Whatever tokens there are must be right. Rules may look for theirs in one place, where one of them will do: Istio's way."""
    each = [_any_of(Requirement(provider_name=name), Requirement(allow_missing={})) for name in names]
    if len(each) == 1:
        return each[0]
    together = Requirement()
    together.requires_all.requirements.extend(each)
    return _any_of(*(Requirement(provider_name=name) for name in names), together)


def _any_of(*requirements: Any) -> Any:
    made = Requirement()
    made.requires_any.requirements.extend(requirements)
    return made


def _provider(rule: Any, cluster: str, clear_routes: bool) -> Any:
    made = config_pb2.JwtProvider(
        issuer=rule.issuer or "",
        audiences=rule.audiences,
        forward=bool(rule.forward_original_token),
        forward_payload_header=rule.output_payload_to_header or "",
        payload_in_metadata=JWT_PAYLOAD,
        from_params=rule.from_params,
        from_cookies=rule.from_cookies,
        clear_route_cache=clear_routes,
    )
    made.normalize_payload_in_metadata.space_delimited_claims.extend(
        dict.fromkeys((*_SPACE_DELIMITED, *rule.space_delimited_claims))
    )
    for place in rule.from_headers:
        made.from_headers.add(name=place.name, value_prefix=place.prefix or "")
    for output in rule.output_claim_to_headers:
        made.claim_to_headers.add(header_name=output.header, claim_name=output.claim)
    if rule.jwks_uri:
        remote = made.remote_jwks
        remote.http_uri.uri = rule.jwks_uri
        remote.http_uri.cluster = cluster
        remote.http_uri.timeout.FromNanoseconds(round((rule.timeout or _PATIENCE) * 1e9))
        remote.cache_duration.seconds = _KEPT
        remote.async_fetch.fast_listener = True
    else:
        made.local_jwks.inline_string = (rule.jwks and usable_keys(rule.jwks)) or NO_KEYS
    return made
