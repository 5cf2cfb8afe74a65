"""Services that the sidecar calls by gRPC on its own account: `core.v3.GrpcService`, over a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.retry_policy import RetryPolicy, parse_core_retry_policy


@dataclass(frozen=True, slots=True)
class GrpcService:
    """Whom to call and how. `authority` is the cluster's name where it is empty.

    Names of `initial_metadata` are in lower case. A message from the service that is larger than
    `max_receive_message_length` bytes ends the call; None leaves that to the client.
    """

    cluster_name: str
    authority: str = ""
    initial_metadata: tuple[tuple[bytes, bytes], ...] = ()
    retry_policy: RetryPolicy | None = None
    max_receive_message_length: int | None = None


def parse_grpc_service(node: Node, *, timed: bool = False) -> GrpcService:
    """`core.v3.GrpcService` with `envoy_grpc`; the other kind has channels and credentials of its own, and is refused.

    Its `timeout` is read by a caller who says that calls are `timed` by it.
    """
    if not timed:
        node.ignore("timeout", "the one who calls has a timeout of its own for it")
    retry = node.child("retry_policy")
    metadata = tuple(map(_parse_metadatum, node.children("initial_metadata")))
    retry_policy = None if retry is None else parse_core_retry_policy(retry)
    envoy = node.child("envoy_grpc")
    if envoy is None:
        return GrpcService("", initial_metadata=metadata, retry_policy=retry_policy)
    cluster = envoy.get("cluster_name")
    envoy.context.reference("cluster", cluster, envoy, "cluster_name")
    return GrpcService(
        cluster,
        envoy.get("authority"),
        metadata,
        retry_policy,
        envoy.wrapped("max_receive_message_length", None),
    )


def parse_rate_limit_service(node: Node | None) -> GrpcService:
    """The service of a `ratelimit.v3.RateLimitServiceConfig`, which speaks version 3 of the protocol."""
    if node is None:
        return GrpcService("")
    if node.enum("transport_api_version") == "V2":
        node.refuse("names a version that is no more", "transport_api_version", "set it to V3")
    service = node.child("grpc_service")
    return GrpcService("") if service is None else parse_grpc_service(service)


def _parse_metadatum(node: Node) -> tuple[bytes, bytes]:
    value: str = node.get("value")
    if "%" in value:
        node.refuse("has a format, and metadata of our own calls are constant", "value", "write the value itself")
    return node.get("key").lower().encode(), value.encode()
