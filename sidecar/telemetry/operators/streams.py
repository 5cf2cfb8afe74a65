"""Commands about how a request went: codes, flags, sizes, names, identities."""

from __future__ import annotations

import os
import socket
from typing import Any

from sidecar.core.response_flags import long_names, short_names

from ..format_code import Value, any_value, constant, keyed, number, octets, text
from ..format_syntax import Command
from .base import FormatContext, Operator, plain

_PROTOCOLS = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2", 30: "HTTP/3"}


_SNI = "connection.requested_server_name"
_HOSTS = {
    "": "request.authority",
    "HOST": "request.authority",
    "ORIG": "index.get(b'x-envoy-original-host')",
    "ORIG_OR_HOST": "(index.get(b'x-envoy-original-host') or request.authority)",
}


def _protocol(version: int) -> str | None:
    return _PROTOCOLS.get(version)


def _without_spaces(details: str) -> str | None:
    return "_".join(details.split()) if details else None


def _code_details(command: Command, context: FormatContext) -> Value:
    if command.arguments == "ALLOW_WHITESPACES":
        return text("stream.response_code_details")
    return keyed("stream.response_code_details", _without_spaces)


def _stat_name(command: Command, context: FormatContext) -> Value:
    find = context.cluster_stat_name
    return keyed(
        "stream.cluster_name or (stream.route and stream.route.cluster_name)", lambda name: find(name) if name else None
    )


def _environment(command: Command, context: FormatContext) -> Value:
    return constant(os.environ.get(command.arguments, "-"))


def _hostname(command: Command, context: FormatContext) -> Value:
    return constant(socket.gethostname() or "-")


def _log_type(command: Command, context: FormatContext) -> Value:
    return constant(context.access_log_type)


def _server_name(command: Command, context: FormatContext) -> Value:
    order, _, host = command.arguments.partition(":")
    if order in ("", "SNI_ONLY"):
        return text(_SNI)
    if host not in _HOSTS:
        raise command.error("the second argument is ORIG, HOST or ORIG_OR_HOST")
    match order:
        case "SNI_FIRST":
            return octets(f"({_SNI}.encode() or {_HOSTS[host]} or None)", repeats=True)
        case "HOST_FIRST":
            return octets(f"({_HOSTS[host]} or {_SNI}.encode() or None)", repeats=True)
        case _:
            raise command.error("the first argument is SNI_ONLY, SNI_FIRST or HOST_FIRST")


def _unique_id() -> str:
    import uuid  # half a megabyte that few formats need

    return str(uuid.uuid4())


def _protocol_of(expression: str) -> Operator:
    return plain(keyed(expression, _protocol))


def _sum(*slots: str) -> Operator:
    return plain(number(" + ".join(f"stream.{slot}" for slot in slots)))


_FLAGS: Any = keyed("stream.response_flags", short_names)
_LONG_FLAGS: Any = keyed("stream.response_flags", long_names)

STREAMS = {
    "PROTOCOL": _protocol_of("request.version"),
    "UPSTREAM_PROTOCOL": _protocol_of("stream.request and stream.upstream_first_tx and stream.upstream_version"),
    "RESPONSE_CODE": _sum("response_code"),
    "RESPONSE_CODE_DETAILS": Operator(_code_details, "optional"),
    "RESPONSE_FLAGS": plain(_FLAGS),
    "RESPONSE_FLAGS_LONG": plain(_LONG_FLAGS),
    "CUSTOM_FLAGS": plain(constant("")),
    "CONNECTION_TERMINATION_DETAILS": plain(text("connection.termination_details")),
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON": plain(text("connection.transport_failure_reason")),
    "BYTES_RECEIVED": _sum("bytes_received"),
    "BYTES_SENT": _sum("bytes_sent"),
    "BYTES_RETRANSMITTED": plain(constant(0)),
    "PACKETS_RETRANSMITTED": plain(constant(0)),
    "DOWNSTREAM_WIRE_BYTES_RECEIVED": _sum("request_head_size", "bytes_received"),
    "DOWNSTREAM_WIRE_BYTES_SENT": _sum("response_head_size", "bytes_sent"),
    "DOWNSTREAM_HEADER_BYTES_RECEIVED": _sum("request_head_size"),
    "DOWNSTREAM_HEADER_BYTES_SENT": _sum("response_head_size"),
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED": _sum("request_head_size"),
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT": _sum("response_head_size"),
    "UPSTREAM_WIRE_BYTES_SENT": _sum("upstream_bytes_sent"),
    "UPSTREAM_WIRE_BYTES_RECEIVED": _sum("upstream_head_received", "upstream_bytes_received"),
    "UPSTREAM_HEADER_BYTES_RECEIVED": _sum("upstream_head_received"),
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED": _sum("upstream_head_received"),
    "UPSTREAM_CLUSTER": Operator(_stat_name),
    "UPSTREAM_CLUSTER_RAW": plain(text("stream.cluster_name")),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": plain(keyed("stream.upstream_failure_reason", _without_spaces)),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": _sum("attempt_count"),
    "UPSTREAM_CONNECTION_ID": _sum("upstream_connection_id"),
    "CONNECTION_ID": plain(number("connection.id")),
    "STREAM_ID": plain(octets("(stream.request_id or request.index.get(b'x-request-id'))")),
    "UNIQUE_ID": plain(any_value("$0()", _unique_id)),
    "ROUTE_NAME": plain(text("stream.route and stream.route.name")),
    "VIRTUAL_CLUSTER_NAME": plain(constant(None)),
    "REQUESTED_SERVER_NAME": Operator(_server_name, "optional"),
    "FILTER_CHAIN_NAME": plain(text("connection.filter_chain_name")),
    "HOSTNAME": Operator(_hostname),
    "ENVIRONMENT": Operator(_environment, "required", True),
    "ACCESS_LOG_TYPE": Operator(_log_type),
}
