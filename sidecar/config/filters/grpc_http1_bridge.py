"""gRPC for HTTP/1.1 clients that cannot read trailers: `extensions.filters.http.grpc_http1_bridge.v3.Config`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node

TYPE = "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config"


@dataclass(frozen=True, slots=True)
class GrpcHttp1Bridge:
    """`upgrade_protobuf_to_grpc`: requests of `application/x-protobuf` become calls of one message.

    `ignore_query_parameters`: the query is cut off the paths of calls.
    """

    upgrade_protobuf_to_grpc: bool = False
    ignore_query_parameters: bool = False


def parse_grpc_http1_bridge(node: Node) -> GrpcHttp1Bridge:
    """`Config`."""
    return GrpcHttp1Bridge(node.get("upgrade_protobuf_to_grpc"), node.get("ignore_query_parameters"))
