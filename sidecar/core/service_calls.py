"""How filters call the gRPC services that configuration names: authorization and rate limits."""

from __future__ import annotations

from dataclasses import replace

from sidecar.config.grpc_service import GrpcService
from sidecar.core.client import GrpcOptions


def options_of(service: GrpcService, timeout: float) -> GrpcOptions:
    """``timeout`` is in seconds, 0 for none. As Envoy, no user agent is told."""
    options = GrpcOptions(
        timeout=timeout,
        retry=service.retry_policy,
        authority=service.authority.encode(),
        initial_metadata=service.initial_metadata,
        user_agent=b"",
    )
    if service.max_receive_message_length is None:
        return options
    return replace(options, max_message_bytes=service.max_receive_message_length)
