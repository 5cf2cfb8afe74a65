"""Every setting of the filters for gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.filters import grpc_http1_bridge, grpc_stats
from sidecar.config.filters.grpc_http1_bridge import GrpcHttp1Bridge
from sidecar.config.filters.grpc_stats import GrpcStats
from tests.sidecar.config.building import build, problems


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, GrpcStats()),
        ({"stats_for_all_methods": True}, GrpcStats(all_methods=True)),
        ({"stats_for_all_methods": False}, GrpcStats()),
        (
            {
                "individual_method_stats_allowlist": {
                    "services": [
                        {"name": "a", "method_names": ["x", "y"]},
                        {"name": "b", "method_names": ["x"]},
                        {"name": "a", "method_names": ["z"]},
                    ]
                }
            },
            GrpcStats(methods={"a": frozenset("xyz"), "b": frozenset("x")}),
        ),
        (
            {"emit_filter_state": True, "enable_upstream_stats": True, "replace_dots_in_grpc_service_name": True},
            GrpcStats(emit_filter_state=True, upstream_stats=True, replace_dots=True),
        ),
    ],
)
def test_grpc_stats(document: dict[str, Any], expected: GrpcStats) -> None:
    assert build(grpc_stats.TYPE, document, grpc_stats.parse_grpc_stats) == expected


def test_a_service_needs_methods() -> None:
    document = {"individual_method_stats_allowlist": {"services": [{"name": "a"}]}}
    found = problems(grpc_stats.TYPE, document, grpc_stats.parse_grpc_stats)
    assert [path for path, _ in found] == ["individual_method_stats_allowlist.services[0].method_names"]


def test_grpc_http1_bridge() -> None:
    document = {"upgrade_protobuf_to_grpc": True, "ignore_query_parameters": True}
    built = build(grpc_http1_bridge.TYPE, document, grpc_http1_bridge.parse_grpc_http1_bridge)
    assert built == GrpcHttp1Bridge(True, True)
