"""Whether an authorization service would be asked, and which; by which condition not."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.core.explanation import ENDS, OPEN, PASSES, Step
from sidecar.core.question import question_of
from sidecar.server import Server
from tests.sidecar.explain_scene import address, cluster, manager, policy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
NETWORK = "type.googleapis.com/envoy.extensions.filters.network."
MARKED = {
    "filter": "envoy.filters.http.rbac",
    "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
    "value": {"string_match": {"prefix": "istio-ext-authz"}},
}
SHADOW = {
    "name": "mark",
    "typed_config": {
        "@type": HTTP + "rbac.v3.RBAC",
        "shadow_rules": {
            "action": "DENY",
            "policies": {"istio-ext-authz-1": policy({"url_path": {"path": {"prefix": "/asked"}}})},
        },
        "shadow_rules_stat_prefix": "istio_ext_authz_",
    },
}
GRPC = {"envoy_grpc": {"cluster_name": "authz"}}


def explained(path: str, **fields: Any) -> Step:
    """What the step of the filter called `ask` says."""
    ask = {"name": "ask", "typed_config": {"@type": HTTP + "ext_authz.v3.ExtAuthz", "grpc_service": GRPC, **fields}}
    off = {"ask": {"@type": HTTP + "ext_authz.v3.ExtAuthzPerRoute", "disabled": True}}
    more = {"context_extensions": {"who": "route"}, "http_service": {"server_uri": {
        "uri": "http://x", "cluster": "a", "timeout": "1s"}}}  # fmt: skip
    own = {"ask": {"@type": HTTP + "ext_authz.v3.ExtAuthzPerRoute", "check_settings": more}}
    routes = [
        {"match": {"prefix": "/off"}, "route": {"cluster": "a"}, "typed_per_filter_config": off},
        {"match": {"prefix": "/own"}, "route": {"cluster": "a"}, "typed_per_filter_config": own},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]
    chain = {"name": "plain", "filters": [manager(routes, [SHADOW, ask])]}
    document = {
        "static_resources": {
            "listeners": [{"name": "in", **address(0), "filter_chains": [chain]}],
            "clusters": [cluster("a", 1), cluster("authz", 2)],
        }
    }

    async def explain() -> list[Step]:
        return await Server(document).explain(question_of("GET", f"http://a.test{path}", ()))

    (step,) = (one for one in asyncio.run(explain()) if one.name == "ask")
    return step


def test_whom_it_asks() -> None:
    step = explained("/")
    assert (step.outcome, step.text) == (OPEN, "http filter ask: asks the gRPC service at cluster 'authz'")
    assert step.details == ("without an answer it gets 403",)
    assert explained("/", failure_mode_allow=True).details == ("without an answer the request passes",)


def test_by_which_condition_it_does_not_ask() -> None:
    asked, passed = (explained(path, filter_enabled_metadata=MARKED) for path in ("/asked", "/other"))
    assert asked.outcome == OPEN and "fits" in asked.details[0]
    assert passed.outcome == PASSES
    assert "istio_ext_authz_shadow_effective_policy_id does not fit" in passed.text
    closed = explained(
        "/other", filter_enabled_metadata=MARKED, deny_at_disable={"default_value": True, "runtime_key": "k"}
    )
    assert closed.outcome == ENDS and "deny_at_disable" in closed.text
    never = explained("/", filter_enabled={"default_value": {"numerator": 0}})
    assert never.outcome == PASSES and "filter_enabled is 0" in never.text


def test_routes_of_their_own() -> None:
    assert explained("/off").text == "http filter ask: passes: does not ask: it is disabled for this route"
    own = explained("/own")
    assert own.text == "http filter ask: asks the HTTP service at cluster 'a'"
    assert "tells context extensions who" in own.details


def test_connections() -> None:
    ask = {"name": "ask", "typed_config": {"@type": NETWORK + "ext_authz.v3.ExtAuthz", "stat_prefix": "s",
        "grpc_service": GRPC}}  # fmt: skip

    async def explain() -> list[Step]:
        chain = {"filters": [ask, manager([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}], [])]}
        document = {
            "static_resources": {
                "listeners": [{"name": "in", **address(0), "filter_chains": [chain]}],
                "clusters": [cluster("a", 1), cluster("authz", 2)],
            }
        }
        return await Server(document).explain(question_of("GET", "http://a.test/", ()))

    (step,) = (one for one in asyncio.run(explain()) if one.name == "ask")
    assert step.text == "network filter ask: asks the gRPC service at cluster 'authz' about the connection"
