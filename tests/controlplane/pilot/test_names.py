"""Names as Istio gives them: dashboards and tools look for them."""

from __future__ import annotations

from tests.controlplane.pilot.behaviour import services
from tests.controlplane.pilot.scene import Scene, gateway, sidecar

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [a]
  http:
  - name: users
    match: [{name: jason, headers: {end-user: {exact: jason}}}, {uri: {exact: /x}}, {uri: {regex: "/r.*"}}]
    route: [{destination: {host: b, subset: v2}}]
  - route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 1}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}
  - port: {number: 443, name: secure, protocol: HTTPS}
    hosts: ["a.example"]
    tls: {mode: SIMPLE, serverCertificate: /a.pem, privateKey: /a.key}
"""


def test_routes_are_called_after_their_rules_and_conditions() -> None:
    found = Scene(services(), ROUTES).routes(sidecar())["http_proxy"]
    hosts = {host.name: host for host in found.virtual_hosts}
    assert {"a.shop.svc.cluster.local:80", "odd-port.shop.svc.cluster.local:9080", "allow_any"} <= hosts.keys()
    routes = hosts["a.shop.svc.cluster.local:80"].routes
    assert [route.name for route in routes] == ["users.jason", "users", "users", ""]
    assert [route.decorator.operation for route in routes] == [
        "b.shop.svc.cluster.local:80/*",
        "b.shop.svc.cluster.local:80/x",
        "b.shop.svc.cluster.local:80/r.*",
        "a:80/*",
    ]
    made_from = "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/a"
    assert all(route.metadata.filter_metadata["istio"]["config"] == made_from for route in routes)
    (default,) = hosts["b.shop.svc.cluster.local:80"].routes
    assert (default.name, default.decorator.operation) == ("default", "b.shop.svc.cluster.local:80/*")


def test_route_configurations_are_called_after_ports_and_servers() -> None:
    scene = Scene(services(), ROUTES)
    assert set(scene.routes(sidecar())) == {"http_proxy"}
    captured = set(scene.routes(sidecar(INTERCEPTION_MODE="REDIRECT")))
    assert captured == {"http_proxy", "80", "8080", "9080"}
    assert set(scene.routes(gateway({"app": "edge"}))) == {"http.8080", "https.443.secure.edge.shop"}
    assert set(scene.listeners(gateway({"app": "edge"}))) == {"0.0.0.0_8080", "0.0.0.0_443"}


def test_what_is_not_in_the_mesh_has_istios_names() -> None:
    *_, allow = Scene(services()).routes(sidecar(INTERCEPTION_MODE="REDIRECT"))["80"].virtual_hosts
    assert (allow.name, list(allow.domains), allow.routes[0].route.cluster) == (
        "allow_any",
        ["*"],
        "PassthroughCluster",
    )
    closed = Scene(services(), mesh={"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})
    *_, block = closed.routes(sidecar(INTERCEPTION_MODE="REDIRECT"))["80"].virtual_hosts
    assert (block.name, block.routes[0].direct_response.status) == ("block_all", 502)
    refused = closed.listeners(sidecar(INTERCEPTION_MODE="REDIRECT"))["virtualOutbound"].default_filter_chain
    assert b"BlackHoleCluster" in refused.filters[0].typed_config.value
