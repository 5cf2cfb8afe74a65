"""The sidecar's own client, as every stage sees it: requests and gRPC calls to a cluster, by its name.

What asks an upstream on its own account (active health checks, xDS, ext_authz, rate limiting, log sinks) is handed a
``Clients`` and makes from it, once for each configured service, an ``HttpClient`` or a ``GrpcClient``. Every request
that these send is balanced, retried, limited by circuit breakers and counted as any other request of the cluster, with
``x-envoy-internal`` so that the cluster counts it as one from inside. Source: Envoy's ``Http::AsyncClient`` and
``Grpc::AsyncClient``.

Callbacks arrive on the event loop; they may arrive before the call that starts the exchange returns (no host is
healthy, say). Nothing arrives after ``cancel``, and nothing after the callback that ends the exchange. A callback that
raises ends its exchange alone: the exception is logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sidecar.config.hash_policy import HashPolicy
from sidecar.config.retry_policy import RetryPolicy
from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.stream_info import StreamInfo


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client asks. Times are in seconds, 0 for no limit; sizes are in bytes.

    ``timeout`` is from the end of the request to the end of the response, as a route's; a stream of gRPC messages has
    none. ``max_duration`` is from the beginning to the end, whatever happens; gRPC streams tell it to the server as their
    deadline. ``max_response_bytes`` bounds the body of a response that is collected.
    """

    timeout: float = 15.0
    max_duration: float = 0.0
    retry: RetryPolicy | None = None
    hash_policy: tuple[HashPolicy, ...] = ()
    high_priority: bool = False
    send_x_forwarded_for: bool = True
    max_response_bytes: int = 4 << 20


@dataclass(frozen=True, slots=True)
class GrpcOptions(ClientOptions):
    """How a gRPC client asks. ``timeout`` is told to the server as the deadline of unary calls.

    ``authority`` is the cluster's name where it is empty. ``initial_metadata`` goes with every call. A message from the
    server that is larger than ``max_message_bytes`` ends the call with RESOURCE_EXHAUSTED.
    """

    authority: bytes = b""
    initial_metadata: tuple[Field, ...] = ()
    user_agent: bytes = b"grpc-python-mizzen"
    max_message_bytes: int = 4 << 20


class RequestFailed(Exception):
    """There is no response, or not all of one.

    ``status`` and ``message`` are what a downstream would have been answered (503 and "upstream connect error ...",
    504 and "upstream request timeout"); ``details`` are Envoy's response code details, with the reason of a reset as in
    ``core.upstream``; ``flags`` are response flags.
    """

    def __init__(self, status: int, message: str, details: str, flags: int) -> None:
        super().__init__(message or details)
        self.status = status
        self.message = message
        self.details = details
        self.flags = flags

    def __repr__(self) -> str:
        return f"<RequestFailed {self.status} {self.details}>"


class GrpcError(Exception):
    """A call that did not end with OK.

    ``status`` is gRPC's number, ``message`` the server's words, percent-decoded, or ours; ``trailers`` are empty where
    the server sent none. ``failure`` is what broke where it was not the server that said so.
    """

    def __init__(
        self, status: int, message: str, trailers: Sequence[Field] = (), failure: RequestFailed | None = None
    ) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.trailers = trailers
        self.failure = failure

    def __repr__(self) -> str:
        return f"<GrpcError {self.status} {self.message!r}>"


class Response(NamedTuple):
    """A whole response, from an upstream: a failure to get one is a ``RequestFailed``, an error status is not."""

    head: ResponseHead
    body: bytes
    trailers: list[Field] | None


class GrpcReply(NamedTuple):
    """The one message of a unary call that ended with OK, and what came around it."""

    message: bytes
    initial_metadata: list[Field]
    trailers: Sequence[Field]


class ResponseSink(Protocol):
    """Who wants a response whole."""

    def on_response(self, head: ResponseHead, body: bytes, trailers: list[Field] | None) -> None: ...

    def on_failure(self, failure: RequestFailed) -> None: ...


class StreamSink(Protocol):
    """Who wants a response as it comes. Its end is an ``end`` that is True, ``on_trailers`` or ``on_failure``."""

    def on_head(self, head: ResponseHead, end: bool) -> None: ...

    def on_data(self, data: bytes, end: bool) -> None: ...

    def on_trailers(self, trailers: list[Field]) -> None: ...

    def on_failure(self, failure: RequestFailed) -> None: ...

    def on_full(self) -> None:
        """Send no more of the request until ``on_writable``."""
        ...

    def on_writable(self) -> None: ...


class UnarySink(Protocol):
    """Who wants the reply to a unary call."""

    def on_reply(self, reply: GrpcReply) -> None: ...

    def on_error(self, error: GrpcError) -> None: ...


class GrpcSink(Protocol):
    """Who wants the messages of a call as they come. Its end is ``on_close``."""

    def on_initial_metadata(self, fields: list[Field]) -> None: ...

    def on_message(self, message: bytes) -> None: ...

    def on_close(self, error: GrpcError | None, trailers: Sequence[Field]) -> None:
        """The call is over; ``error`` is None for the status OK."""
        ...

    def on_full(self) -> None:
        """Send no more messages until ``on_writable``."""
        ...

    def on_writable(self) -> None: ...


class Exchange(Protocol):
    """A request under way."""

    @property
    def over(self) -> bool: ...

    @property
    def info(self) -> StreamInfo:
        """What is known of the exchange: host, times, flags, attempts."""
        ...

    def cancel(self) -> None:
        """Nobody wants the response any more. Does nothing when the exchange is over."""
        ...


class StreamedExchange(Exchange, Protocol):
    """A request that is sent, and whose response arrives, in pieces. What is sent when it is over is dropped."""

    @property
    def full(self) -> bool:
        """Whether ``on_full`` was the last that was said of the way to the upstream."""
        ...

    def send_data(self, data: bytes, end: bool) -> None: ...

    def send_trailers(self, trailers: list[Field]) -> None: ...

    def pause_response(self) -> None:
        """Read no more of the response until ``resume_response``; what has been read already still comes."""
        ...

    def resume_response(self) -> None: ...


class GrpcStream(Protocol):
    """A call under way, both directions open. What is sent when it is over is dropped."""

    @property
    def over(self) -> bool: ...

    @property
    def info(self) -> StreamInfo: ...

    @property
    def full(self) -> bool:
        """Whether ``on_full`` was the last that was said of the way to the server."""
        ...

    def send(self, message: bytes) -> None: ...

    def half_close(self) -> None:
        """No further message is sent."""
        ...

    def cancel(self) -> None: ...

    def pause(self) -> None:
        """Deliver no more messages until ``resume``, and read no more of them; the end waits behind those that are held."""
        ...

    def resume(self) -> None: ...


class HttpClient(Protocol):
    """Asks one cluster. A head belongs to the client once it is handed over: it is changed on its way."""

    def request(self, head: RequestHead, body: bytes, sink: ResponseSink) -> Exchange:
        """Send a whole request; the response is collected."""
        ...

    def stream(self, head: RequestHead, sink: StreamSink, end: bool = False) -> StreamedExchange:
        """Send a head; unless ``end``, the body follows with ``send_data``."""
        ...

    async def fetch(self, head: RequestHead, body: bytes = b"") -> Response:
        """As ``request``, for those who may wait. Raises RequestFailed; to cancel the task cancels the request."""
        ...


class GrpcClient(Protocol):
    """Calls the methods of one cluster, each named by its path: ``b"/package.Service/Method"``.

    Metadata is in the form of the wire: values of names that end in ``-bin`` are in base64.
    """

    def unary(self, path: bytes, message: bytes, sink: UnarySink, metadata: Sequence[Field] = ()) -> Exchange: ...

    def stream(self, path: bytes, sink: GrpcSink, metadata: Sequence[Field] = ()) -> GrpcStream: ...

    async def call(self, path: bytes, message: bytes, metadata: Sequence[Field] = ()) -> GrpcReply:
        """As ``unary``, for those who may wait. Raises GrpcError; to cancel the task cancels the call."""
        ...


class HostClients(Protocol):
    """Makes clients of one host, for those who look after its health. They ask it whatever state it is in, over
    connections of their own; what they send says nothing of us, and nothing of it is counted at the cluster.
    """

    def http(self, options: ClientOptions = ...) -> HttpClient: ...

    def grpc(self, options: GrpcOptions = ...) -> GrpcClient: ...

    def close(self) -> None:
        """Fail what is under way and end the connections; the next request makes new ones."""
        ...


class Clients(Protocol):
    """Makes clients. A cluster is looked for when a request is sent: it need not exist when its client is made."""

    def http(self, cluster_name: str, options: ClientOptions = ...) -> HttpClient: ...

    def grpc(self, cluster_name: str, options: GrpcOptions = ...) -> GrpcClient: ...

    def to_host(self, cluster: Any, address: Address, hostname: str = "") -> HostClients:
        """For a host of ``cluster``, which need not be known yet: its transport socket and protocol are used."""
        ...
