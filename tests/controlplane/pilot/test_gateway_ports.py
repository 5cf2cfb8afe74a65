"""Gateways behind a Service: they listen where it leads, and their routes know the port that the Gateway says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import LISTENER
from tests.controlplane.pilot.behaviour import send, services, short
from tests.controlplane.pilot.planes import PLANES, Plane, running
from tests.controlplane.pilot.scene import Scene, gateway
from tests.controlplane.pilot.test_listeners import raw

EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example]}
  - {port: {number: 8080, name: http-own, protocol: HTTP}, hosts: [own.example]}
  - {port: {number: 81, name: http-other, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 5432, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: shop}
spec:
  hosts: [shop.example, own.example]
  gateways: [edge]
  http:
  - match: [{port: 80}]
    route: [{destination: {host: a}}]
  - match: [{port: 81}]
    route: [{destination: {host: c}}]
  - route: [{destination: {host: b}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: stream, namespace: shop}
spec:
  hosts: ["*"]
  gateways: [edge]
  tcp: [{match: [{port: 5432}], route: [{destination: {host: d}}]}]
"""
ROUTER = gateway({"app": "edge", "tier": "front"})


def service(
    name: str, ports: str, selector: str = "{app: edge}", created: str = "2026-01-01", namespace: str = "shop"
) -> str:
    return (
        "apiVersion: v1\nkind: Service\n"
        f"metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{created}T00:00:00Z'}}\n"
        f"spec: {{selector: {selector}, ports: {ports}}}\n"
    )


FRONT = service("front", "[{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 5432, targetPort: 15432}]")


def listeners(scene: Scene) -> set[str]:
    return set(scene.listeners(ROUTER))


@pytest.mark.parametrize("kind", PLANES)
def test_it_listens_where_the_service_leads(kind: str, tmp_path: Path) -> None:
    scene = Scene(services(), EDGE, FRONT)
    assert listeners(scene) == {"0.0.0.0_8080", "0.0.0.0_81", "0.0.0.0_15432"}
    (shared,) = (one for one in scene.routes(ROUTER).values() if one.name == "http.8080")
    assert {host.name for host in shared.virtual_hosts} == {"shop.example:80", "own.example:80"}
    with running(kind, scene, ROUTER, tmp_path) as plane:
        assert _answers(plane, "0.0.0.0_8080") == "a"
        assert _answers(plane, "0.0.0.0_81") == "c"
        assert short(raw(plane, "0.0.0.0_15432", b"\0")) == "d"


def _answers(plane: Plane, listener: str) -> str:
    status, _, body = send(plane.ports[listener], "shop.example", {})
    assert status == 200
    return short(json.loads(body)["from"])


def test_without_a_service_it_listens_on_the_ports_of_the_gateway() -> None:
    own = {"0.0.0.0_80", "0.0.0.0_8080", "0.0.0.0_81", "0.0.0.0_5432"}
    assert listeners(Scene(services(), EDGE)) == own
    other = [
        service("elsewhere", "[{name: http, port: 80, targetPort: 9090}]", namespace="away"),
        service("not-ours", "[{name: http, port: 80, targetPort: 9091}]", "{app: edge, tier: back}"),
        service("nobody", "[{name: http, port: 80, targetPort: 9092}]", "{}"),
        service("same", "[{name: http, port: 80}]"),
    ]
    assert listeners(Scene(services(), EDGE, *other)) == own


def test_of_several_services_the_oldest_that_has_the_port_counts() -> None:
    scene = Scene(
        services(),
        EDGE,
        service(
            "young",
            "[{name: http, port: 80, targetPort: 9001}, {name: b, port: 81, targetPort: 9081}]",
            created="2026-03-01",
        ),
        service("old", "[{name: http, port: 80, targetPort: 9000}]", "{tier: front}", created="2026-02-01"),
    )
    assert listeners(scene) == {"0.0.0.0_9000", "0.0.0.0_8080", "0.0.0.0_9081", "0.0.0.0_5432"}


def test_it_follows_the_service() -> None:
    scene = Scene(services(), EDGE, FRONT)
    before = listeners(scene)
    scene.apply(service("front", "[{name: http, port: 80, targetPort: 8000}]"))
    assert listeners(scene) == {"0.0.0.0_8000", "0.0.0.0_8080", "0.0.0.0_81", "0.0.0.0_5432"}
    scene.remove(FRONT)
    scene.apply(FRONT)
    assert listeners(scene) == before
    keys = scene.pilot.causes(ROUTER, LISTENER, "0.0.0.0_8080")
    assert ResourceKey("Gateway", "shop", "edge") in keys


def test_names_of_target_ports_are_those_of_workloads() -> None:
    named = service("front", "[{name: http, port: 80, targetPort: web}]")
    scene = Scene(services(), EDGE, named)
    assert "0.0.0.0_80" in listeners(scene)
    entry = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: edge-1.shop, namespace: shop}\nspec: "
    scene.apply(entry + "{address: 127.0.0.1, labels: {app: edge, tier: front}, ports: {web: 8088}}\n")
    assert listeners(scene) == {"0.0.0.0_8088", "0.0.0.0_8080", "0.0.0.0_81", "0.0.0.0_5432"}
