"""Consistent hashing: what a DestinationRule says of it is said by the routes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from tests.controlplane.pilot.behaviour import services
from tests.controlplane.pilot.scene import Scene, sidecar

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hashed, namespace: shop}
spec:
  host: a
  %s
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [a]
  http:
  - match: [{uri: {prefix: /v1}}]
    route: [{destination: {host: a, subset: v1}}]
  - match: [{uri: {prefix: /both}}]
    route: [{destination: {host: a, subset: v1}, weight: 1}, {destination: {host: a, subset: v2}, weight: 1}]
  - route: [{destination: {host: a}}]
"""


def policies(rule: str, *texts: str) -> list[list[Any]]:
    """The hash policies of each route to a service."""
    found = Scene(services(), RULE % rule, *texts).routes(sidecar())["http_proxy"]
    (host,) = [each for each in found.virtual_hosts if each.name.startswith("a.shop.")]
    return [
        [MessageToDict(each, preserving_proto_field_name=True) for each in route.route.hash_policy]
        for route in host.routes
    ]


@pytest.mark.parametrize(
    ("consistent", "expected"),
    [
        ("{httpHeaderName: x-user}", {"header": {"header_name": "x-user"}}),
        ("{useSourceIp: true}", {"connection_properties": {"source_ip": True}}),
        ("{httpQueryParameterName: user}", {"query_parameter": {"name": "user"}}),
        ("{httpCookie: {name: c, ttl: 0s, path: /p}}", {"cookie": {"name": "c", "ttl": "0s", "path": "/p"}}),
    ],
)
def test_requests_are_hashed_by_what_the_rule_names(consistent: str, expected: dict[str, Any]) -> None:
    rule = f"trafficPolicy: {{loadBalancer: {{consistentHash: {consistent}}}}}"
    assert policies(rule) == [[expected]]
    assert policies(rule, ROUTES) == [[expected], [expected, expected], [expected]]


def test_a_subsets_policy_goes_before_a_ports_and_a_ports_before_the_rules() -> None:
    def hashed(name: str) -> str:
        return f"loadBalancer: {{consistentHash: {{httpHeaderName: {name}}}}}"

    rule = (
        f"trafficPolicy: {{{hashed('all')}, portLevelSettings: [{{port: {{number: 80}}, {hashed('port')}}}]}}\n"
        f"  subsets: [{{name: v1, trafficPolicy: {{{hashed('subset')}}}}}, {{name: v2}}]"
    )
    names = [[each["header"]["header_name"] for each in route] for route in policies(rule, ROUTES)]
    assert names == [["subset"], ["subset", "port"], ["port"]]


def test_a_ports_settings_stand_in_place_of_the_rules() -> None:
    rule = (
        "trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}},"
        " portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 3}}}]}"
    )
    assert policies(rule) == [[]]


def test_a_repeated_request_that_is_hashed_may_go_where_it_was() -> None:
    def predicates(rule: str) -> int:
        found = Scene(services(), RULE % rule).routes(sidecar())["http_proxy"]
        (host,) = [each for each in found.virtual_hosts if each.name.startswith("a.shop.")]
        return len(host.routes[0].route.retry_policy.retry_host_predicate)

    assert predicates("trafficPolicy: {loadBalancer: {simple: RANDOM}}") == 1
    assert predicates("trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}") == 0
