"""Routes of gateways by what tokens say, in real Envoy and in our sidecar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.controlplane.pilot.behaviour import send
from tests.controlplane.pilot.planes import PLANES, running
from tests.controlplane.pilot.scene import Scene, gateway
from tests.controlplane.pilot.security.tokens import key_set, token

EDGE = f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{istio: edge}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}, {{name: http-admin, port: 81}}, {{name: http-out, port: 82}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: shop}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match:
    - headers: {{"@request.auth.claims.groups": {{exact: admins}}}}
    - headers: {{"@request.auth.claims[realm][name]": {{prefix: op}}}}
    route: [{{destination: {{host: web, port: {{number: 81}}}}}}]
  - match: [{{withoutHeaders: {{"@request.auth.claims.sub": {{}}}}}}]
    route: [{{destination: {{host: web, port: {{number: 82}}}}}}]
  - route: [{{destination: {{host: web, port: {{number: 80}}}}}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec: {{selector: {{matchLabels: {{istio: edge}}}}, jwtRules: [{{issuer: i, jwks: {json.dumps(key_set("one"))}}}]}}
"""


@pytest.mark.parametrize("kind", PLANES)
def test_routes(kind: str, tmp_path: Path) -> None:
    with running(kind, Scene(EDGE), gateway({"istio": "edge"}), tmp_path) as plane:

        def port(**claims: object) -> str:
            headers = {"authorization": f"Bearer {token({'iss': 'i', **claims})}"} if claims else {}
            status, _, body = send(plane.ports["0.0.0.0_80"], "any.example", {"headers": headers})
            assert status == 200
            return str(json.loads(body)["from"]).split("|")[1]

        assert port() == "82"
        assert port(sub="alice") == "80"
        assert port(sub="alice", groups="admins") == "81"
        assert port(sub="alice", groups=["users", "admins"]) == "81"
        assert port(sub="alice", groups=["users"]) == "80"
        assert port(sub="alice", realm={"name": "operator"}) == "81"
