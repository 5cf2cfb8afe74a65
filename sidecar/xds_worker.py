"""The composition root's part for listeners that one of several workers discovers: its parent makes their sockets."""

from __future__ import annotations

from typing import Any

from sidecar.config.context import Context
from sidecar.config.extensions import message_class
from sidecar.config.fields import Node
from sidecar.config.listener import Listener, parse_listener

_LISTENER = "envoy.config.listener.v3.Listener"
_DIRECT_RESPONSE = "envoy.extensions.filters.network.direct_response.v3.Config"
_OF_SOCKETS = (
    "name",
    "address",
    "additional_addresses",
    "bind_to_port",
    "enable_reuse_port",
    "freebind",
    "transparent",
    "socket_options",
    "tcp_backlog_size",
    "tcp_fast_open_queue_length",
)


def describe_addresses(message: Any) -> bytes:
    """As much of a listener as its sockets are made of, and a filter chain, without which it is none."""
    bare: Any = message_class(_LISTENER)()
    for field, value in message.ListFields():
        if field.name not in _OF_SOCKETS:
            continue
        if field.message_type is None:
            setattr(bare, field.name, value)
        elif field.is_repeated:
            getattr(bare, field.name).extend(value)
        else:
            getattr(bare, field.name).CopyFrom(value)
    only = bare.filter_chains.add().filters.add()
    only.name = "none"
    only.typed_config.Pack(message_class(_DIRECT_RESPONSE)())
    return bytes(bare.SerializeToString())


def parse_addresses(listener: bytes) -> Listener:
    """The listener that ``describe_addresses`` has described. Raises ConfigurationError."""
    message: Any = message_class(_LISTENER)()
    message.ParseFromString(listener)
    with Context("listener") as context:
        return parse_listener(Node(message, "", context))
