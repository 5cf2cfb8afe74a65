"""Replies that the proxy makes itself: their head, and what ``local_reply_config`` makes of them.

Source: Envoy's "Local reply modification".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.config.core_types import SubstitutionFormatString
from sidecar.config.local_reply import LocalReplyConfig
from sidecar.core.grpc import CONVERTED, grpc_message, grpc_status_of, is_grpc
from sidecar.core.head import Field, ResponseHead
from sidecar.core.stream_info import StreamInfo

if TYPE_CHECKING:
    from sidecar.http.stream import Stream

Render = Callable[[StreamInfo, bytes], bytes]
"""Renders a reply's body from the stream and the body that the reply would have had."""
MakeReply = Callable[["Stream", int, bytes, Sequence[Field], "int | None"], tuple[ResponseHead, bytes]]
"""From stream, status, body, additional fields and the status of gRPC calls (None: by the HTTP status) to the reply."""

_TEXT = b"text/plain"
_JSON = b"application/json"
_OF_BODY = (b"content-type", b"content-length")


def plain_reply(
    stream: Stream, status: int, body: bytes, headers: Sequence[Field], grpc_status: int | None = None
) -> tuple[ResponseHead, bytes]:
    """A reply without any modification configured."""
    if _to_grpc(stream):
        return _trailers_only(stream, status, body, headers, grpc_status), b""
    return _head(status, body, headers, _TEXT), body


def _to_grpc(stream: Stream) -> bool:
    """Whether the client speaks gRPC: not where a filter does so in its stead."""
    return is_grpc(stream.request) and (stream.filter_data is None or CONVERTED not in stream.filter_data)


def _trailers_only(
    stream: Stream, status: int, body: bytes, headers: Sequence[Field], grpc_status: int | None
) -> ResponseHead:
    """The reply to a gRPC call, which finds its status in the fields and gets no body."""
    fields = [
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"%d" % (grpc_status_of(status) if grpc_status is None else grpc_status)),
    ]
    if body and stream.request.method != b"HEAD":
        fields.append((b"grpc-message", grpc_message(body)))
    fields += [field for field in headers if field[0] not in _OF_BODY]
    return ResponseHead(200, fields)


def _head(status: int, body: bytes, headers: Sequence[Field], content_type: bytes) -> ResponseHead:
    fields: list[Field] = []
    if body:
        fields.append((b"content-length", b"%d" % len(body)))
        if not any(name == b"content-type" for name, _ in headers):
            fields.append((b"content-type", content_type))
    fields += headers
    return ResponseHead(status, fields)


def compile_local_reply(
    config: LocalReplyConfig,
    compile_filter: Callable[[Any], Callable[[StreamInfo], bool]],
    compile_body: Callable[[SubstitutionFormatString], Render],
    compile_mutations: Callable[[Any], Callable[[ResponseHead, StreamInfo], None] | None],
) -> MakeReply:
    """The maker of replies under ``config``; the arguments compile filters, formats and header additions."""
    if not config.mappers and config.body_format is None:
        return plain_reply
    body_format = None if config.body_format is None else _format(config.body_format, compile_body)
    mappers = tuple(
        (
            None if mapper.filter is None else compile_filter(mapper.filter),
            mapper.status_code,
            mapper.body,
            body_format if mapper.body_format_override is None else _format(mapper.body_format_override, compile_body),
            compile_mutations(mapper.headers_to_add),
        )
        for mapper in config.mappers
    )

    def reply(
        stream: Stream, status: int, body: bytes, headers: Sequence[Field], grpc_status: int | None = None
    ) -> tuple[ResponseHead, bytes]:
        chosen, mutate = body_format, None
        stream.response_code = status
        stream.response = ResponseHead(status, list(headers))
        for matches, new_status, new_body, own_format, own_mutate in mappers:
            if matches is None or matches(stream):
                if new_body is not None:
                    body = new_body
                if new_status is not None:
                    status = new_status
                    stream.response_code = status
                    stream.response.status = status
                chosen, mutate = own_format, own_mutate
                break
        content_type = _TEXT
        if chosen is not None:
            render, content_type = chosen
            body = render(stream, body)
        stream.response = None
        if _to_grpc(stream):
            body = body.rstrip(b"\n") if content_type == _JSON else body
            head, body = _trailers_only(stream, status, body, headers, grpc_status), b""
        else:
            head = _head(status, body, headers, content_type)
        if mutate is not None:
            mutate(head, stream)
        return head, body

    return reply


def _format(
    config: SubstitutionFormatString, compile_body: Callable[[SubstitutionFormatString], Render]
) -> tuple[Render, bytes]:
    default = _JSON if config.json_format is not None else _TEXT
    return compile_body(config), config.content_type or default
