"""Commands about messages: headers, trailers, the path and its query, gRPC's status."""

from __future__ import annotations

import re
from typing import Any

from sidecar.core.grpc import grpc_status_of, is_grpc, parse_grpc_status
from sidecar.core.head import Field, Head, RequestHead, ResponseHead
from sidecar.core.matching import path_only

from ..format_code import Value, any_value, constant, keyed, octets
from ..format_syntax import Command
from .base import FormatContext, Operator, plain

_HEADER_NAME = re.compile(r":?[A-Za-z0-9!#$&'*+.^_`|~-]*")

_REPEATING = frozenset(
    b"accept accept-encoding accept-language cache-control connection content-encoding content-language content-type"
    b" grpc-encoding grpc-message grpc-status host origin sec-fetch-dest sec-fetch-mode sec-fetch-site server te"
    b" user-agent vary via x-envoy-attempt-count x-envoy-decorator-operation x-envoy-downstream-service-cluster"
    b" x-envoy-downstream-service-node x-envoy-external-address x-envoy-internal x-envoy-peer-metadata-id"
    b" x-envoy-upstream-service-time x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port"
    b" x-forwarded-proto x-real-ip :authority :method :scheme".split()
)
"""Headers whose values are mostly those of other requests, and worth remembering how to escape."""

_PSEUDO = {
    b":path": "request.path or None",
    b":method": "request.method or None",
    b":authority": "request.authority or None",
    b"host": "request.authority or None",
    b":scheme": "request.scheme or None",
}

_GRPC = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
]


def header_names(command: Command) -> tuple[bytes, bytes | None]:
    """The header of `X?Y`, and the one to take when it is missing, in lower case."""
    names = command.arguments.split("?")
    if len(names) > 2:
        raise command.error("takes one alternative header at most")
    for text in names:
        if not _HEADER_NAME.fullmatch(text):
            raise command.error(f"{text!r} is not the name of a header")
    name, *alternative = (text.lower().encode() for text in names)
    return name, alternative[0] if alternative and alternative[0] else None


def _either(names: tuple[bytes, bytes | None], lookup: Any) -> str:
    name, alternative = names
    if alternative is None:
        return f"({lookup(name)})"
    return f"(({lookup(alternative)}) if (found := ({lookup(name)})) is None else found)"


def _in_request(name: bytes) -> str:
    return _PSEUDO.get(name, f"index.get({name!r})")


def _in_response(name: bytes) -> str:
    if name == b":status":
        return "(b'%d' % response.status if response.status else None)"
    return f"response_index.get({name!r})"


def _repeats(names: tuple[bytes, bytes | None]) -> bool:
    return all(name is None or name in _REPEATING for name in names)


def _request_header(command: Command, context: FormatContext) -> Value:
    names = header_names(command)
    return octets(_either(names, _in_request), repeats=_repeats(names))


def _response_header(command: Command, context: FormatContext) -> Value:
    names = header_names(command)
    return octets(_either(names, _in_response), repeats=_repeats(names))


def _trailer(command: Command, context: FormatContext) -> Value:
    names = [name for name in header_names(command) if name is not None]

    def find(trailers: list[Field] | None) -> bytes | None:
        for wanted in names:
            for name, value in trailers or ():
                if name == wanted:
                    return value
        return None

    return octets("$0(stream.response_trailers)", find)


_PATHS = {
    "": "(request.path or None)",
    "PATH": "(request.path or None)",
    "ORIG": "index.get(b'x-envoy-original-path')",
    "ORIG_OR_PATH": "(index.get(b'x-envoy-original-path') or request.path or None)",
}


def _path(command: Command, context: FormatContext) -> Value:
    query, _, which = command.arguments.partition(":")
    if query not in ("", "WQ", "NQ"):
        raise command.error("the first argument is WQ (with the query) or NQ (without)")
    if which not in _PATHS:
        raise command.error("the second argument is ORIG, PATH or ORIG_OR_PATH")
    expression = _PATHS["ORIG_OR_PATH" if which == "" else which]
    if query != "NQ":
        return octets(expression)
    return octets(f"(path if (path := {expression}) is None else $0(path))", path_only)


def _query(command: Command, context: FormatContext) -> Value:
    if command.arguments not in ("", "ORIG", "DECODED"):
        raise command.error("the argument is ORIG or DECODED")

    def find(path: bytes) -> bytes | None:
        return path.partition(b"?")[2] or None

    return octets("$0(request.path)", find)


def _query_parameter(command: Command, context: FormatContext) -> Value:
    from urllib.parse import unquote_to_bytes  # half a megabyte that few formats need

    wanted = command.arguments.encode()

    def find(path: bytes) -> bytes | None:
        for pair in path.partition(b"?")[2].split(b"&"):
            name, _, value = pair.partition(b"=")
            if unquote_to_bytes(name) == wanted:
                return unquote_to_bytes(value)
        return None

    return octets("$0(request.path)", find)


def grpc_status(request: RequestHead, response: ResponseHead, trailers: list[Field] | None, code: int) -> int | None:
    """The gRPC status of a response: from its trailers, its head, or else what its HTTP status stands for.

    None unless the request is one of gRPC, -1 when the status that was sent is no number.
    Source: the gRPC document "HTTP to gRPC Status Code Mapping".
    """
    return status_for_grpc(response, trailers, code) if is_grpc(request) else None


def status_for_grpc(response: ResponseHead, trailers: list[Field] | None, code: int) -> int | None:
    """As `grpc_status`, whatever the request was; None only without a response."""
    sent = (dict(trailers).get(b"grpc-status") if trailers else None) or response.index.get(b"grpc-status")
    if not sent:
        return grpc_status_of(code) if code else None
    return parse_grpc_status(sent)


_GRPC_EXPRESSION = "$0(request, response, stream.response_trailers, stream.response_code)"


def _grpc_status(command: Command, context: FormatContext) -> Value:
    style = command.arguments or "CAMEL_STRING"
    if style == "NUMBER":
        return _GRPC_NUMBER
    if style not in ("CAMEL_STRING", "SNAKE_STRING"):
        raise command.error("the argument is CAMEL_STRING, SNAKE_STRING or NUMBER")
    names = _GRPC
    if style == "SNAKE_STRING":
        names = ["OK", "CANCELLED"] + [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() for name in _GRPC[2:]]

    def convert(status: int | None) -> str | None:
        if status is None:
            return None
        return names[status] if 0 <= status < len(names) else str(status)

    return keyed(_GRPC_EXPRESSION, convert, grpc_status)


_GRPC_NUMBER = keyed(_GRPC_EXPRESSION, lambda status: status, grpc_status)


def _head_size(head: Head) -> int:
    return sum([len(name) + len(value) for name, value in head.fields])


def _request_size(request: RequestHead) -> int:
    if not request.method:
        return 0
    size = _head_size(request)
    for name, value in ((":method", request.method), (":path", request.path), (":authority", request.authority),
                        (":scheme", request.scheme)):  # fmt: skip
        if value:
            size += len(name) + len(value)
    return size


def _response_size(response: ResponseHead) -> int:
    return _head_size(response) + len(":status200") if response.status else 0


def _trailers_size(trailers: list[Field] | None) -> int:
    return sum([len(name) + len(value) for name, value in trailers or ()])


HTTP = {
    "REQ": Operator(_request_header, "required", True),
    "RESP": Operator(_response_header, "required", True),
    "TRAILER": Operator(_trailer, "required", True),
    "PATH": Operator(_path, "optional", True),
    "QUERY_PARAM": Operator(_query_parameter, "required", True),
    "QUERY_PARAMS": Operator(_query, "optional", True),
    "REQUEST_HEADERS_BYTES": plain(any_value("$0(request)", _request_size)),
    "RESPONSE_HEADERS_BYTES": plain(any_value("$0(response)", _response_size)),
    "RESPONSE_TRAILERS_BYTES": plain(any_value("$0(stream.response_trailers)", _trailers_size)),
    "GRPC_STATUS": Operator(_grpc_status, "optional"),
    "GRPC_STATUS_NUMBER": plain(_GRPC_NUMBER),
    "LOCAL_REPLY_BODY": plain(octets("body")),
    "TRACE_ID": plain(constant(None)),
    "SPAN_ID": plain(constant(None)),
}
