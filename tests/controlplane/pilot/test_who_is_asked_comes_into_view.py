"""A Sidecar hides a provider or a server of keys, and a VirtualService that leads to it lets it in, and out again."""

from __future__ import annotations

import pytest

from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import CLUSTER, LISTENER, TYPES
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import change, mesh, proxy

BASE = """
kind: Service
metadata: shop/reviews
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
kind: Service
metadata: shop/auth
spec: {selector: {app: auth}, ports: [{name: http, port: 8000}]}
---
kind: ConfigMap
metadata: istio-system/istio
data:
  mesh: |
    extensionProviders:
    - {name: ask, envoyExtAuthzHttp: {service: auth.shop.svc.cluster.local, port: 8000}}
---
kind: Sidecar
metadata: shop/default
spec: {egress: [{hosts: [./front.test, shop/reviews.shop.svc.cluster.local]}]}
---
"""
POLICIES = {
    "provider": """
kind: AuthorizationPolicy
metadata: shop/asking
spec: {action: CUSTOM, provider: {name: ask}, rules: [{}]}
""",
    "keys": """
kind: RequestAuthentication
metadata: shop/tokens
spec: {jwtRules: [{issuer: a, jwksUri: "http://auth.shop.svc.cluster.local:8000/keys"}]}
""",
}
ROUTE = """
kind: VirtualService
metadata: shop/front
spec: {hosts: [front.test], http: [{route: [{destination: {host: auth.shop.svc.cluster.local, port: {number: 8000}}}]}]}
"""
NODE = proxy("r-1", "shop", labels={"app": "reviews"}, SDS_AGENT="true")


def _resources(pilot: Pilot) -> dict[str, dict[str, str]]:
    return {url: {name: one.version for name, one in pilot.resources(NODE, url).items()} for url in TYPES}


@pytest.mark.parametrize("policy", POLICIES)
def test_step_by_step_is_at_once(policy: str) -> None:
    hidden, seen = (mesh(BASE + POLICIES[policy] + more) for more in ("", f"---\n{ROUTE}"))
    without, with_it = _resources(hidden), _resources(seen)
    assert without[LISTENER] != with_it[LISTENER]
    for pilot, changes, expected in (
        (hidden, change(hidden, ROUTE), with_it),
        (seen, change(seen, gone=[ResourceKey("VirtualService", "shop", "front")]), without),
    ):
        assert {LISTENER, CLUSTER} <= set(pilot.affected(changes, NODE))
        assert _resources(pilot) == expected
