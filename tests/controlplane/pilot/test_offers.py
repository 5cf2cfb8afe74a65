"""What connections with the mesh's mutual TLS offer by ALPN, and which routes say for themselves that they carry requests."""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from controlplane.pilot.generators import CLUSTER, LISTENER, ROUTES
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import change, decoded, mesh, proxy

FILTER = "envoy.filters.http.set_filter_state"
EITHER = ["istio-http/1.1", "istio-h2", "istio"]
SERVICES = """
kind: Service
metadata: shop/a
spec: {ports: [{name: http, port: 80}, {name: grpc, port: 81}, {name: any, port: 82}, {name: tcp, port: 83}]}
---
kind: ServiceEntry
metadata: shop/out
spec: {hosts: [out.example], location: MESH_EXTERNAL, resolution: STATIC, ports: [{number: 82, name: any}],
  endpoints: [{address: 10.0.0.9}]}
---
kind: VirtualService
metadata: shop/a
spec:
  hosts: [a]
  http:
  - match: [{uri: {exact: /split}}]
    route:
    - {destination: {host: a, port: {number: 82}}, weight: 1}
    - {destination: {host: a, subset: outer, port: {number: 82}}, weight: 1}
    - {destination: {host: a, port: {number: 80}}, weight: 1}
    - {destination: {host: out.example, port: {number: 82}}, weight: 1}
  - route: [{destination: {host: a}}]
---
kind: DestinationRule
metadata: shop/a
spec:
  host: a
  subsets: [{name: outer, labels: {v: outer}, trafficPolicy: {tls: {mode: SIMPLE}}}]
"""
KNOWN = proxy("known", "shop", SDS_AGENT="true", HTTP_PROXY_PORT="3128")
STRANGER = proxy("stranger", "shop", HTTP_PROXY_PORT="3128")


def offered(pilot: Pilot, port: int, host: str = "a.shop.svc.cluster.local") -> list[str]:
    made = decoded(pilot, KNOWN, CLUSTER)[f"outbound|{port}||{host}"]
    context = tls_pb2.UpstreamTlsContext.FromString(
        made.transport_socket_matches[0].transport_socket.typed_config.value
    )
    return list(context.common_tls_context.alpn_protocols)


def said(holder: Any) -> list[str]:
    """What a route or weighted cluster says is offered; empty where it says nothing."""
    if FILTER not in holder.typed_per_filter_config:
        return []
    config = set_filter_state_pb2.Config.FromString(holder.typed_per_filter_config[FILTER].value)
    (value,) = config.on_request_headers
    assert value.object_key == "envoy.network.application_protocols"
    return list(value.format_string.text_format_source.inline_string.split(","))


def routes(pilot: Pilot, node: Any, port: int, host: str = "a.shop.svc.cluster.local") -> list[Any]:
    """Of the forward proxy, without those for CONNECT."""
    (found,) = [one for one in decoded(pilot, node, ROUTES)["http_proxy"].virtual_hosts if one.name == f"{host}:{port}"]
    return [route for route in found.routes if not route.match.HasField("connect_matcher")]


def test_clusters_say_what_all_of_their_connections_carry() -> None:
    pilot = mesh(SERVICES)
    assert offered(pilot, 80) == ["istio-http/1.1", "istio", "http/1.1"]
    assert offered(pilot, 81) == ["istio-h2", "istio", "h2"]
    assert offered(pilot, 82) == offered(pilot, 83) == ["istio-peer-exchange", "istio"]
    change(
        pilot,
        "kind: DestinationRule\nmetadata: shop/a\n"
        "spec: {host: a, trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}}}\n",
    )
    assert offered(pilot, 80) == offered(pilot, 81) == EITHER


def test_routes_to_ports_whose_protocol_is_found_out_say_that_they_carry_requests() -> None:
    pilot = mesh(SERVICES)
    split, rest = routes(pilot, KNOWN, 82)
    assert said(rest) == EITHER and said(split) == []
    mine, outer, http, external = split.route.weighted_clusters.clusters
    assert said(mine) == EITHER
    assert said(outer) == said(http) == said(external) == []
    assert [said(route) for route in routes(pilot, KNOWN, 80)] == [[], []]
    assert [said(route) for route in routes(pilot, KNOWN, 82, "out.example")] == [[]]


def test_a_proxy_without_an_identity_has_nothing_to_say() -> None:
    pilot = mesh(SERVICES)
    for node, filters in ((KNOWN, [True]), (STRANGER, [])):
        listener = decoded(pilot, node, LISTENER)["127.0.0.1_3128"]
        manager = hcm_pb2.HttpConnectionManager.FromString(listener.filter_chains[0].filters[0].typed_config.value)
        assert [one.disabled for one in manager.http_filters if one.name == FILTER] == filters
    assert said(routes(pilot, KNOWN, 82)[1]) == EITHER
    assert [said(route) for route in routes(pilot, STRANGER, 82)] == [[], []]


def test_what_a_destination_rule_says_of_tls_holds() -> None:
    pilot = mesh(SERVICES)
    rule = "kind: DestinationRule\nmetadata: shop/a\nspec: {{host: a, trafficPolicy: {{tls: {{mode: {}}}}}}}\n"
    for mode, expected in (("SIMPLE", []), ("ISTIO_MUTUAL", EITHER), ("DISABLE", [])):
        change(pilot, rule.format(mode))
        assert said(routes(pilot, KNOWN, 82)[1]) == expected, mode
