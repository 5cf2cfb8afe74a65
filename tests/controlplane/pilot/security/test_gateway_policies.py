"""Policies of gateways: who may enter the mesh, in both data planes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import LISTENER
from tests.controlplane.pilot.behaviour import send
from tests.controlplane.pilot.planes import PLANES, Plane, running
from tests.controlplane.pilot.scene import Scene, gateway

EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 5432, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 5433, name: tcp-open, protocol: TCP}, hosts: ["*"]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: tcp, port: 5432}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
  tcp:
  - {match: [{port: 5432}], route: [{destination: {host: web, port: {number: 5432}}}]}
  - {match: [{port: 5433}], route: [{destination: {host: web, port: {number: 5432}}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  selector: {matchLabels: {istio: edge}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin*], notPorts: ["1"]}}]
  - to: [{operation: {methods: [NONE], notPorts: ["1"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: others, namespace: shop}
spec: {selector: {matchLabels: {app: web}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everywhere, namespace: istio-system}
spec: {action: DENY, rules: [{from: [{source: {remoteIpBlocks: [203.0.113.0/24]}}], to: [{operation: {paths: ["*"]}}]}]}
"""


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    scene = Scene(EDGE, mesh={"defaultConfig": {"gatewayTopology": {"numTrustedProxies": 1}}})
    with running(request.param, scene, gateway({"istio": "edge"}), tmp_path_factory.mktemp(request.param)) as found:
        yield found


def test_requests(plane: Plane) -> None:
    port = plane.ports["0.0.0.0_80"]
    assert send(port, "any.example", {"path": "/info"})[0] == 200
    assert send(port, "any.example", {"path": "/admin/x"})[0] == 403


def test_the_root_namespaces_policies_hold_too_and_know_who_stands_behind_proxies(plane: Plane) -> None:
    port = plane.ports["0.0.0.0_80"]
    assert send(port, "any.example", {"headers": {"x-forwarded-for": "10.0.0.1, 203.0.113.7"}})[0] == 403
    assert send(port, "any.example", {"headers": {"x-forwarded-for": "203.0.113.7, 10.0.0.1"}})[0] == 200


def test_connections(plane: Plane) -> None:
    # A rule to deny that speaks of requests denies the connections that meet the rest of it.
    with socket.create_connection(("127.0.0.1", plane.ports["0.0.0.0_5432"]), timeout=10) as client:
        client.sendall(b"\0")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_causes_of_a_gateways_listeners_are_its_policies() -> None:
    scene = Scene(EDGE)
    found = scene.pilot.causes(gateway({"istio": "edge"}), LISTENER, "0.0.0.0_80")
    policies = {key for key in found if key.kind == "AuthorizationPolicy"}
    assert policies == {
        ResourceKey("AuthorizationPolicy", "shop", "no-admin"),
        ResourceKey("AuthorizationPolicy", "istio-system", "everywhere"),
    }
