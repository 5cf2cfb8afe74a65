"""Calls by grpcio, without generated stubs."""

from __future__ import annotations

from typing import Any

import grpc

from tests.grpc import messages as m
from tests.grpc.service import METADATA, PLAIN_SERVICE, SIZES, TEST_SERVICE

_SETTINGS = [
    *SIZES,
    *METADATA,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 500),
]


def open_channel(
    port: int, *, authority: bytes | None = None, options: list[tuple[str, Any]] | None = None, **fields: Any
) -> grpc.Channel:
    """A channel with connections of its own; with TLS when it is given the PEM of an authority to trust."""
    settings = [*_SETTINGS, *(options or [])]
    if authority is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}", options=settings, **fields)
    settings.append(("grpc.ssl_target_name_override", "server.example"))
    return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority), options=settings, **fields)


class TestStub:
    """The calls of grpc.testing.TestService, and those that it does not have."""

    __test__ = False  # not one of pytest's

    def __init__(self, channel: grpc.Channel) -> None:
        def typed(kind: str, name: str, response: Any, service: str = TEST_SERVICE) -> Any:
            make = getattr(channel, kind)
            return make(
                f"/{service}/{name}",
                request_serializer=lambda one: one.SerializeToString(),
                response_deserializer=response.FromString,
            )

        self.empty_call = typed("unary_unary", "EmptyCall", m.Empty)
        self.unary_call = typed("unary_unary", "UnaryCall", m.SimpleResponse)
        self.streaming_output_call = typed("unary_stream", "StreamingOutputCall", m.StreamingOutputCallResponse)
        self.streaming_input_call = typed("stream_unary", "StreamingInputCall", m.StreamingInputCallResponse)
        self.full_duplex_call = typed("stream_stream", "FullDuplexCall", m.StreamingOutputCallResponse)
        self.half_duplex_call = typed("stream_stream", "HalfDuplexCall", m.StreamingOutputCallResponse)
        self.unimplemented_call = typed("unary_unary", "UnimplementedCall", m.Empty)
        self.unimplemented_service = typed(
            "unary_unary", "UnimplementedCall", m.Empty, "grpc.testing.UnimplementedService"
        )


class PlainStub:
    """The calls of ``PLAIN_SERVICE``: messages are bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.echo = channel.unary_unary(f"/{PLAIN_SERVICE}/Echo")
        self.metadata = channel.unary_unary(f"/{PLAIN_SERVICE}/Metadata")
        self.deadline = channel.unary_unary(f"/{PLAIN_SERVICE}/Deadline")
        self.forever = channel.unary_stream(f"/{PLAIN_SERVICE}/Forever")
        self.collect = channel.stream_unary(f"/{PLAIN_SERVICE}/Collect")
        self.converse = channel.stream_stream(f"/{PLAIN_SERVICE}/Converse")
        self.pour = channel.unary_stream(f"/{PLAIN_SERVICE}/Pour")
