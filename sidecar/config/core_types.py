"""The small messages of `envoy.config.core.v3` and `envoy.type.v3` that many resources hold."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any, TypeAlias

from envoy.config.core.v3.base_pb2 import Metadata as Message

from sidecar.config.fields import Node, plain_struct

Metadata: TypeAlias = dict[str, dict[str, Any]]
"""`core.v3.Metadata.filter_metadata`: by filter name, what the Struct says, as plain Python. Never changed."""

Fraction: TypeAlias = tuple[int, int]
"""A `FractionalPercent` as (numerator, denominator); the denominator is 100, 10,000 or 1,000,000."""

NO_METADATA: Metadata = {}

RAW_BUFFER = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"


@dataclass(frozen=True, slots=True)
class Locality:
    """Where an endpoint or a proxy stands; empty strings for what is not said."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class HeaderValueOption:
    """A header to add. `key` is lower case, `value` a format string, `append_action` the name of Envoy's enum value."""

    key: bytes
    value: str
    append_action: str
    keep_empty_value: bool


@dataclass(frozen=True, slots=True)
class TcpKeepalive:
    """SO_KEEPALIVE with what is not None of: probes (count), time and interval (seconds)."""

    keepalive_probes: int | None
    keepalive_time: int | None
    keepalive_interval: int | None


@dataclass(frozen=True, slots=True)
class SocketOption:
    """One setsockopt. `value` is what setsockopt takes, `state` is STATE_PREBIND, STATE_BOUND or STATE_LISTENING."""

    level: int
    name: int
    value: int | bytes
    state: str


@dataclass(frozen=True, slots=True)
class SubstitutionFormatString:
    """How to render a log line or a reply: exactly one of `text_format` and `json_format` is not None.

    `content_type` is empty when the configuration does not name one.
    """

    text_format: str | None
    json_format: dict[str, Any] | None
    omit_empty_values: bool
    content_type: bytes


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """At most `max_tokens`, of which `tokens_per_fill` come back each `fill_interval` seconds."""

    max_tokens: int
    tokens_per_fill: int
    fill_interval: float


NO_LOCALITY = Locality()


def seconds(node: Node, name: str, default: float) -> float:
    """A Duration in seconds, where not set means `default`."""
    value = node.duration(name)
    return default if value is None else value


@lru_cache(maxsize=4096)
def _locality(region: str, zone: str, sub_zone: str) -> Locality:
    return Locality(intern(region), intern(zone), intern(sub_zone))


def parse_locality(node: Node | None) -> Locality:
    """`core.v3.Locality`; equal ones are one object."""
    return NO_LOCALITY if node is None else _locality(node.get("region"), node.get("zone"), node.get("sub_zone"))


def parse_metadata(node: Node | None) -> Metadata:
    """`core.v3.Metadata`, of which only `filter_metadata` is implemented; equal ones are mostly one object."""
    if node is None:
        return NO_METADATA
    node._take("filter_metadata")
    return _metadata(node.message.SerializeToString(deterministic=True))


@lru_cache(maxsize=4096)
def _metadata(serialized: bytes) -> Metadata:
    filter_metadata = Message.FromString(serialized).filter_metadata
    return {intern(name): plain_struct(struct) for name, struct in sorted(filter_metadata.items())}


def parse_header_value_option(node: Node, *, any_header: bool = False) -> HeaderValueOption:
    """`core.v3.HeaderValueOption`. Pseudo-headers and host are refused, as Envoy does, unless `any_header`."""
    header = node.child("header")
    if header is None:
        node.refuse("is required", "header", "name the header and its value")
        return HeaderValueOption(b"", "", "APPEND_IF_EXISTS_OR_ADD", False)
    key = header.get("key").lower().encode()
    if not any_header and (key.startswith(b":") or key == b"host"):
        header.refuse("may not be changed: it is a pseudo-header or host", "key", "use the host and path rewrites")
    append_action = node.enum("append_action")
    append = node.wrapped("append", None)
    if append is not None:
        if node.has("append_action"):
            node.refuse("is set together with append_action", "append", "keep append_action only")
        append_action = "APPEND_IF_EXISTS_OR_ADD" if append else "OVERWRITE_IF_EXISTS_OR_ADD"
    return HeaderValueOption(key, header.format("value"), append_action, node.get("keep_empty_value"))


def parse_data_source(node: Node) -> bytes:
    """The bytes of a `core.v3.DataSource`: read now, from the file or the environment if that is where they are."""
    match node.which("specifier"):
        case "filename":
            path = node.get("filename")
            try:
                with open(path, "rb") as file:
                    return file.read()
            except OSError as error:
                node.refuse(f"cannot be read: {error.strerror or error}", "filename", "name a file that can be read")
        case "environment_variable":
            name = node.get("environment_variable")
            value = os.environb.get(name.encode())
            if value is not None:
                return value
            node.refuse(f"names {name}, which is not set", "environment_variable", "set it, or write the value here")
        case "inline_bytes":
            return bytes(node.get("inline_bytes"))
        case "inline_string":
            return str(node.get("inline_string")).encode()
    return b""


def parse_tcp_keepalive(node: Node | None) -> TcpKeepalive | None:
    """`core.v3.TcpKeepalive`; None switches keep-alive off."""
    if node is None:
        return None
    return TcpKeepalive(
        node.wrapped("keepalive_probes", None),
        node.wrapped("keepalive_time", None),
        node.wrapped("keepalive_interval", None),
    )


def parse_socket_options(nodes: Iterable[Node]) -> tuple[SocketOption, ...]:
    """A list of `core.v3.SocketOption`. The description says nothing to the proxy."""
    options = []
    for node in nodes:
        node.get("description")
        value = node.get("buf_value") if node.which("value") == "buf_value" else node.get("int_value")
        options.append(SocketOption(node.get("level"), node.get("name"), value, node.enum("state")))
    return tuple(options)


def parse_substitution_format(node: Node) -> SubstitutionFormatString:
    """`core.v3.SubstitutionFormatString`; the text of a `text_format_source` is read now."""
    text: str | None = None
    json_format = None
    match node.which("format"):
        case "text_format":
            text = node.format("text_format")
        case "text_format_source":
            source = node.child("text_format_source")
            if source is not None:
                path = source.path_of(source.which("specifier"))
                text = parse_data_source(source).decode("utf-8", "replace")
                node.context.check_format(path, text)
        case "json_format":
            json_format = node.json_format("json_format")
    node.ignore("json_format_options", "properties are always sorted, as in Envoy")
    return SubstitutionFormatString(text, json_format, node.get("omit_empty_values"), node.get("content_type").encode())


def parse_token_bucket(node: Node) -> TokenBucket:
    """`type.v3.TokenBucket`."""
    return TokenBucket(node.get("max_tokens"), node.wrapped("tokens_per_fill", 1), seconds(node, "fill_interval", 0.0))


def has_plain_transport_socket(node: Node) -> bool:
    """Whether a filter chain or a cluster has no `transport_socket` or the plain one; another one is left to be read."""
    transport_socket = node.child("transport_socket")
    if transport_socket is None:
        return True
    message: Any = transport_socket.message
    if message.typed_config.type_url.rpartition("/")[2] != RAW_BUFFER:
        return False
    transport_socket.extension(known=(RAW_BUFFER,))
    return True
