"""gRPC-Web for browsers: `extensions.filters.http.grpc_web.v3.GrpcWeb`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node

TYPE = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"


@dataclass(frozen=True, slots=True)
class GrpcWeb:
    """There is nothing to configure."""


def parse_grpc_web(node: Node) -> GrpcWeb:
    """`GrpcWeb`."""
    return GrpcWeb()
