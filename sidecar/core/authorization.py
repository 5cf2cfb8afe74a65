"""An authorization service's answer, and the gRPC protocol by which it is asked.

Source: Envoy's ``service.auth.v3.Authorization`` and the client of its ext_authz filters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse

from sidecar.config.fields import plain_struct
from sidecar.config.filters.ext_authz import GrpcAuthorization
from sidecar.core.client import Clients, Exchange, GrpcError, GrpcReply
from sidecar.core.head import Field
from sidecar.core.service_calls import options_of

PATH: Final = b"/envoy.service.auth.v3.Authorization/Check"

OK: Final = "ok"
DENIED: Final = "denied"
ERROR: Final = "error"

SET: Final = 0
ADD: Final = 1
JOIN: Final = 2
ADD_IF_ABSENT: Final = 3
OVERWRITE: Final = 4
"""What is done with a header, in the order in which it is done: SET and OVERWRITE take the place of one that is there, and
OVERWRITE does nothing without; the value joins that of a header that is there for JOIN, which does nothing without."""

_FORBIDDEN: Final = 403
_OF_RESPONSES: Final = {
    HeaderValueOption.APPEND_IF_EXISTS_OR_ADD: ADD,
    HeaderValueOption.ADD_IF_ABSENT: ADD_IF_ABSENT,
    HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD: SET,
    HeaderValueOption.OVERWRITE_IF_EXISTS: OVERWRITE,
}


class Change(NamedTuple):
    """One header to change; ``name`` is in lower case."""

    name: bytes
    value: bytes
    action: int


class Answer(NamedTuple):
    """What the service says. ``status`` is the HTTP status of a refusal, or of an error, 0 where the filter chooses it.

    ``request_headers`` and what follows up to the query are changes of the request that may pass, ``response_headers`` those
    of its response, ``reply_headers`` are the headers of a refusal or an error. ``unknown_action``: there is a change that
    asks for an action that there is not.
    """

    outcome: str
    status: int = 0
    body: bytes = b""
    request_headers: tuple[Change, ...] = ()
    headers_to_remove: tuple[bytes, ...] = ()
    query_to_set: tuple[tuple[bytes, bytes], ...] = ()
    query_to_remove: tuple[bytes, ...] = ()
    response_headers: tuple[Change, ...] = ()
    reply_headers: tuple[Field, ...] = ()
    dynamic_metadata: dict[str, Any] | None = None
    unknown_action: bool = False

    @property
    def changes_request(self) -> bool:
        """Whether another route may fit the request afterwards."""
        return bool(self.request_headers or self.headers_to_remove or self.query_to_set or self.query_to_remove)


FAILED: Final = Answer(ERROR)
"""There is no answer, or none that can be read."""


class AnswerSink(Protocol):
    """Who has asked."""

    def on_answer(self, answer: Answer) -> None: ...


class AuthorizationService:
    """A service at the end of a cluster."""

    __slots__ = ("_client",)

    def __init__(self, clients: Clients, config: GrpcAuthorization) -> None:
        service = config.service
        self._client = clients.grpc(service.cluster_name, options_of(service, config.timeout))

    def ask(self, message: bytes, sink: AnswerSink) -> Exchange:
        """Send a ``CheckRequest``; the answer may arrive before this returns, and does not after the exchange is cancelled."""
        return self._client.unary(PATH, message, _Reply(sink))

    def __repr__(self) -> str:
        return f"<AuthorizationService by {self._client!r}>"


class _Reply:
    """The ``UnarySink`` of one call."""

    __slots__ = ("_sink",)

    def __init__(self, sink: AnswerSink) -> None:
        self._sink = sink

    def on_reply(self, reply: GrpcReply) -> None:
        self._sink.on_answer(decode(reply.message))

    def on_error(self, error: GrpcError) -> None:
        self._sink.on_answer(FAILED)


def decode(message: bytes) -> Answer:
    """The answer; one that is no ``CheckResponse`` is ``FAILED``."""
    response = CheckResponse()
    try:
        response.ParseFromString(message)
    except Exception:  # protobuf's own error, which is loaded with it
        return FAILED
    kind = response.WhichOneof("http_response")
    metadata = plain_struct(response.dynamic_metadata) or None
    if kind == "ok_response" and response.ok_response.HasField("dynamic_metadata"):
        metadata = plain_struct(response.ok_response.dynamic_metadata) or None
    if response.status.code == 0:
        if kind != "ok_response":
            return Answer(OK, dynamic_metadata=metadata)
        ok = response.ok_response
        to_response, unknown = _changes_of_response(ok.response_headers_to_add)
        return Answer(
            OK,
            request_headers=_changes_of_request(ok.headers),
            headers_to_remove=tuple(name.lower().encode() for name in ok.headers_to_remove),
            query_to_set=tuple((one.key.encode(), one.value.encode()) for one in ok.query_parameters_to_set),
            query_to_remove=tuple(name.encode() for name in ok.query_parameters_to_remove),
            response_headers=to_response,
            dynamic_metadata=metadata,
            unknown_action=unknown,
        )
    if kind not in ("denied_response", "error_response"):
        return Answer(DENIED, _FORBIDDEN, dynamic_metadata=metadata)
    reply = response.error_response if kind == "error_response" else response.denied_response
    status = max(0, reply.status.code)
    return Answer(
        ERROR if kind == "error_response" else DENIED,
        status if status or kind == "error_response" else _FORBIDDEN,
        reply.body.encode(),
        reply_headers=tuple(_field(one) for one in reply.headers if not one.append.value),
        dynamic_metadata=metadata,
    )


def in_order(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes in the order in which they are made."""
    return tuple(sorted(changes, key=lambda change: change.action))


def _field(option: Any) -> Field:
    header = option.header
    return header.key.lower().encode(), header.value.encode()


def _changes_of_request(options: Any) -> tuple[Change, ...]:
    """Envoy looks at the older `append` alone here, whatever `append_action` says."""
    return in_order(Change(*_field(one), JOIN if one.append.value else SET) for one in options)


def _changes_of_response(options: Any) -> tuple[tuple[Change, ...], bool]:
    changes = []
    unknown = False
    for option in options:
        if option.HasField("append"):
            action: int | None = ADD if option.append.value else SET
        else:
            action = _OF_RESPONSES.get(option.append_action)
        if action is None:
            unknown = True
        else:
            changes.append(Change(*_field(option), action))
    return in_order(changes), unknown
