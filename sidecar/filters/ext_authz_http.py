"""Asking an authorization service by HTTP: a request like the one that is asked about, and its response as an answer.

Source: Envoy's ``extensions.filters.http.ext_authz.v3.HttpService``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sidecar.config.filters.ext_authz import HttpAuthorization, Patterns
from sidecar.core.authorization import ADD, DENIED, FAILED, OK, SET, Answer, AnswerSink, Change
from sidecar.core.check_request import PARTIAL_BODY, Body, Wanted, headers_shown
from sidecar.core.client import ClientOptions, Exchange, RequestFailed
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.matching import compile_strings
from sidecar.core.sanitized_text import text_of
from sidecar.filters.context import FilterContext

HEADERS_TO_REMOVE: Final = b"x-envoy-auth-headers-to-remove"
"""In which the service names headers that the upstream is not to see."""

_ALWAYS_SHOWN: Final = frozenset((b":method", b":path", b":authority", b"authorization"))
_ALWAYS_FOR_CLIENTS: Final = frozenset((b"content-length", b"www-authenticate", b"location"))
_OF_THE_BODY: Final = frozenset((b"content-length", b"transfer-encoding"))

ReadResponse = Callable[[ResponseHead, bytes], Answer]


class HttpAuthorizationService:
    """A service at the end of a cluster. ``wanted`` says which headers it is shown."""

    __slots__ = ("_client", "_mutate", "_prefix", "_read", "_wanted")

    def __init__(self, context: FilterContext, config: HttpAuthorization, wanted: Wanted | None) -> None:
        self._client = context.clients().http(
            config.cluster_name,
            ClientOptions(timeout=config.timeout, retry=config.retry_policy, send_x_forwarded_for=False),
        )
        self._mutate = context.header_mutation(config.headers_to_add)
        self._prefix = config.path_prefix.encode()
        self._read = compile_response(config)
        self._wanted = wanted

    def ask(self, stream: Any, body: Body | None, sink: AnswerSink) -> Exchange:
        """Send the request; the answer may arrive before this returns, and does not after the exchange is cancelled."""
        request: RequestHead = stream.request
        data = b"" if body is None else body.data
        fields: list[Field] = [(b"content-length", b"%d" % len(data))]
        for name, value in headers_shown(request, self._wanted):
            if not name.startswith(b":") and name not in _OF_THE_BODY:
                fields.append((name, value))
        if body is not None:
            fields.append((PARTIAL_BODY, b"true" if body.partial else b"false"))
        head = RequestHead(request.method, self._prefix + request.path, request.authority, fields, 11, request.scheme)
        if self._mutate is not None:
            self._mutate(head, stream)
        return self._client.request(head, data, _Response(self._read, sink))

    def __repr__(self) -> str:
        return f"<HttpAuthorizationService by {self._client!r}>"


class _Response:
    """The ``ResponseSink`` of one request."""

    __slots__ = ("_read", "_sink")

    def __init__(self, read: ReadResponse, sink: AnswerSink) -> None:
        self._read = read
        self._sink = sink

    def on_response(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> None:
        self._sink.on_answer(self._read(head, body))

    def on_failure(self, failure: RequestFailed) -> None:
        self._sink.on_answer(FAILED)


def always_shown(patterns: Patterns) -> Wanted:
    """Whether a header is shown to an HTTP service: those that every one gets, and those that ``patterns`` name."""
    named = compile_strings(patterns)
    return lambda name: name in _ALWAYS_SHOWN or named(name)


def compile_response(config: HttpAuthorization) -> ReadResponse:
    """What a response means, and which of its headers go where."""
    for_client = compile_strings(config.allowed_client_headers) if config.allowed_client_headers else None
    to_upstream = compile_strings(config.allowed_upstream_headers)
    to_upstream_too = compile_strings(config.allowed_upstream_headers_to_append)
    on_success = compile_strings(config.allowed_client_headers_on_success)
    to_metadata = compile_strings(config.dynamic_metadata_from_headers)

    def read(head: ResponseHead, body: bytes) -> Answer:
        status = head.status
        if status >= 500:
            return FAILED
        metadata = {text_of(name): text_of(value) for name, value in head.fields if to_metadata(name)} or None
        if status != 200:
            reply = tuple(
                (name, value)
                for name, value in head.fields
                if name != HEADERS_TO_REMOVE and (for_client is None or name in _ALWAYS_FOR_CLIENTS or for_client(name))
            )
            return Answer(DENIED, status, body, reply_headers=reply, dynamic_metadata=metadata)
        to_remove = tuple(
            name.strip().lower() for value in head.get_all(HEADERS_TO_REMOVE) for name in value.split(b",")
        )
        head.remove(HEADERS_TO_REMOVE)
        changes = [Change(name, value, SET) for name, value in head.fields if to_upstream(name)]
        changes += [Change(name, value, ADD) for name, value in head.fields if to_upstream_too(name)]
        return Answer(
            OK,
            request_headers=tuple(changes),
            headers_to_remove=tuple(filter(None, to_remove)),
            response_headers=tuple(Change(name, value, ADD) for name, value in head.fields if on_success(name)),
            dynamic_metadata=metadata,
        )

    return read
