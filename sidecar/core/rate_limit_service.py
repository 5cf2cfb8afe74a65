"""The protocol by which a rate limit service is asked: one unary call, and what its answer says.

Source: Envoy's ``service.ratelimit.v3.RateLimitService`` and the client of its rate limit filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse

from sidecar.config.fields import plain_struct
from sidecar.config.grpc_service import GrpcService
from sidecar.core.client import Clients, Exchange, GrpcError, GrpcReply
from sidecar.core.head import Field
from sidecar.core.rate_limits import Descriptor
from sidecar.core.sanitized_text import text_of
from sidecar.core.service_calls import options_of

PATH: Final = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

OK: Final = "ok"
OVER_LIMIT: Final = "over_limit"
ERROR: Final = "error"

_SECONDS: Final = {1: 1, 2: 60, 3: 3600, 4: 86400, 7: 7 * 86400, 5: 30 * 86400, 6: 365 * 86400}  # by unit: WEEK is 7
_UNITS: Final = RateLimitRequest.DESCRIPTOR.fields_by_name["descriptors"].message_type.fields_by_name[
    "limit"
].message_type.fields_by_name["unit"].enum_type.values_by_name  # fmt: skip


class Status(NamedTuple):
    """What became of one descriptor that has a limit: so many requests in a window of seconds (0: not known)."""

    name: str
    requests_per_unit: int
    window: int
    limit_remaining: int
    seconds_until_reset: int


class Decision(NamedTuple):
    """An answer. ``statuses`` are of the descriptors that have a limit, in the order of the request's."""

    outcome: str
    statuses: tuple[Status, ...] = ()
    response_headers: tuple[Field, ...] = ()
    request_headers: tuple[Field, ...] = ()
    body: bytes = b""
    dynamic_metadata: dict[str, Any] | None = None


FAILED: Final = Decision(ERROR)
"""There is no answer, or none that can be read."""


class DecisionSink(Protocol):
    """Who has asked."""

    def on_decision(self, decision: Decision) -> None: ...


class RateLimitService:
    """A service at the end of a cluster. ``timeout`` is in seconds, 0 for none."""

    __slots__ = ("_client",)

    def __init__(self, clients: Clients, service: GrpcService, timeout: float) -> None:
        self._client = clients.grpc(service.cluster_name, options_of(service, timeout))

    def ask(self, domain: str, descriptors: Sequence[Descriptor], hits_addend: int, sink: DecisionSink) -> Exchange:
        """Ask; the decision may arrive before this returns, and does not after the exchange is cancelled."""
        return self._client.unary(PATH, encode(domain, tuple(descriptors), hits_addend), _Reply(sink))

    def __repr__(self) -> str:
        return f"<RateLimitService by {self._client!r}>"


class _Reply:
    """The ``UnarySink`` of one call."""

    __slots__ = ("_sink",)

    def __init__(self, sink: DecisionSink) -> None:
        self._sink = sink

    def on_reply(self, reply: GrpcReply) -> None:
        self._sink.on_decision(decode(reply.message))

    def on_error(self, error: GrpcError) -> None:
        self._sink.on_decision(FAILED)


@lru_cache(maxsize=1024)
def encode(domain: str, descriptors: tuple[Descriptor, ...], hits_addend: int) -> bytes:
    """The request; the same ones come again and again. Octets that are no UTF-8 become ``!``, as elsewhere in Envoy."""
    request = RateLimitRequest(domain=domain, hits_addend=hits_addend)
    for entries, hits, limit in descriptors:
        descriptor = request.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=text_of(key), value=text_of(value))
        if limit is not None:
            descriptor.limit.requests_per_unit, unit = limit[0], _UNITS[limit[1]].number
            descriptor.limit.unit = unit
        if hits is not None:
            descriptor.hits_addend.value = hits
    return bytes(request.SerializeToString(deterministic=True))


@lru_cache(maxsize=256)
def decode(message: bytes) -> Decision:
    """The answer; one that is no such message, or that decides nothing it must, is ``FAILED``."""
    response = RateLimitResponse()
    try:
        response.ParseFromString(message)
    except Exception:  # protobuf's own error, which is loaded with it
        return FAILED
    return Decision(
        OVER_LIMIT if response.overall_code == RateLimitResponse.OVER_LIMIT else OK,
        tuple(
            Status(
                status.current_limit.name,
                status.current_limit.requests_per_unit,
                _SECONDS.get(status.current_limit.unit, 0),
                status.limit_remaining,
                max(0, status.duration_until_reset.seconds),
            )
            for status in response.statuses
            if status.HasField("current_limit")
        ),
        _fields(response.response_headers_to_add),
        _fields(response.request_headers_to_add),
        response.raw_body,
        plain_struct(response.dynamic_metadata) if response.HasField("dynamic_metadata") else None,
    )


def _fields(headers: Any) -> tuple[Field, ...]:
    return tuple((header.key.lower().encode(), header.value.encode()) for header in headers)
