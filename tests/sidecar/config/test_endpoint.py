"""Endpoints: defaults, every field, what is shared, and what ten thousand of them cost."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

import pytest

from sidecar.config.address import Pipe, SocketAddress
from sidecar.config.bootstrap import Bootstrap, parse_bootstrap
from sidecar.config.core_types import Locality
from sidecar.config.endpoint import (
    ClusterLoadAssignment,
    LbEndpoint,
    LocalityLbEndpoints,
    Policy,
    parse_load_assignment,
)
from sidecar.config.extensions import message_class
from sidecar.config.fields import Context, Node
from tests.sidecar.config.building import build, problems
from tests.sidecar.config.resources import Document, socket_address

ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"


def assignment(*endpoints: Document, **fields: Any) -> Document:
    return {"cluster_name": "c", "endpoints": list(endpoints), **fields}


def test_an_endpoint_with_little_has_the_defaults_of_envoy() -> None:
    document = assignment({"lb_endpoints": [{"endpoint": {"address": socket_address("10.0.0.1", 80)}}]})
    built = build(ASSIGNMENT, document, parse_load_assignment)
    endpoint = LbEndpoint(SocketAddress("10.0.0.1", 80), "", "UNKNOWN", {}, 1)
    group = LocalityLbEndpoints((endpoint,), Locality("", "", ""), 0, 0)
    assert built == ClusterLoadAssignment("c", (group,), Policy(140))


def test_every_field() -> None:
    endpoint = {
        "endpoint": {"address": {"pipe": {"path": "/run/a"}}, "hostname": "a.internal"},
        "health_status": "DRAINING",
        "metadata": {"filter_metadata": {"envoy.lb": {"version": "v1"}}},
        "load_balancing_weight": 9,
    }
    group = {
        "locality": {"region": "r", "zone": "z", "sub_zone": "s"},
        "priority": 2,
        "load_balancing_weight": 3,
        "lb_endpoints": [endpoint],
    }
    built = build(ASSIGNMENT, assignment(group, policy={"overprovisioning_factor": 100}), parse_load_assignment)
    parsed = LbEndpoint(Pipe("/run/a"), "a.internal", "DRAINING", {"envoy.lb": {"version": "v1"}}, 9)
    assert built == ClusterLoadAssignment(
        "c", (LocalityLbEndpoints((parsed,), Locality("r", "z", "s"), 3, 2),), Policy(100)
    )


def test_equal_localities_and_metadata_are_one_object() -> None:
    endpoint = {
        "endpoint": {"address": socket_address(port=1)},
        "metadata": {"filter_metadata": {"envoy.lb": {"a": "b"}}},
    }
    group = {"locality": {"region": "r"}, "lb_endpoints": [endpoint, endpoint]}
    first, second = build(ASSIGNMENT, assignment(group, group), parse_load_assignment).endpoints
    assert first.locality is second.locality
    assert first.lb_endpoints[0].metadata is second.lb_endpoints[1].metadata


@pytest.mark.parametrize(
    ("endpoint", "path", "problem"),
    [
        ({}, "", "has no address"),
        ({"endpoint": {}}, "", "has no address"),
        ({"endpoint_name": "named"}, "", "has no address"),
        (
            {"endpoint": {"address": socket_address(port=1), "additional_addresses": [{}]}},
            ".endpoint.additional_addresses",
            "is not implemented by Mizzen",
        ),
    ],
)
def test_what_is_wrong_is_refused(endpoint: Document, path: str, problem: str) -> None:
    found = problems(ASSIGNMENT, assignment({"lb_endpoints": [endpoint]}), parse_load_assignment)
    assert (f"endpoints[0].lb_endpoints[0]{path}", problem) in found


def test_weights_fit_into_32_bits() -> None:
    endpoint = {"endpoint": {"address": socket_address(port=1)}, "load_balancing_weight": 0x80000000}
    group = {"lb_endpoints": [endpoint, endpoint], "load_balancing_weight": 0x80000000}
    found = problems(ASSIGNMENT, assignment(group, {**group, "lb_endpoints": []}), parse_load_assignment)
    assert [path for path, _ in found] == ["endpoints[0].lb_endpoints", "endpoints"]


@pytest.fixture(scope="module")
def large() -> Any:
    """A Bootstrap message with 1,000 clusters of 10 endpoints."""
    message: Any = message_class("envoy.config.bootstrap.v3.Bootstrap")()
    for number in range(1000):
        cluster = message.static_resources.clusters.add(name=f"cluster-{number}")
        cluster.load_assignment.cluster_name = cluster.name
        cluster.circuit_breakers.thresholds.add().max_connections.value = 10
        endpoints = cluster.load_assignment.endpoints.add()
        endpoints.locality.zone = f"zone-{number % 3}"
        for position in range(10):
            endpoint = endpoints.lb_endpoints.add()
            endpoint.endpoint.address.socket_address.address = f"10.{number // 250}.{number % 250}.{position}"
            endpoint.endpoint.address.socket_address.port_value = 8080
            endpoint.metadata.filter_metadata["envoy.lb"].update({"version": f"v{position % 2}"})
    return message


def build_all(message: Any) -> Bootstrap:
    with Context() as context:
        return parse_bootstrap(Node(message, "", context))


def test_ten_thousand_endpoints_are_converted_quickly(large: Any) -> None:
    def cpu_seconds() -> float:
        started = time.process_time()
        build_all(large)
        return time.process_time() - started

    assert min(cpu_seconds() for _ in range(3)) < 0.8  # 0.3 on an idle core; the goal of 0.4 with room for a busy one


def test_ten_thousand_endpoints_take_little_memory(large: Any) -> None:
    tracemalloc.start()
    try:
        built = build_all(large)
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(built.static_resources.clusters) == 1000
    assert held < 5_000_000
    assert peak < 8_000_000
