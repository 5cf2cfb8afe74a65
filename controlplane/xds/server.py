"""Discovery over gRPC: the aggregated service, and one for each type, in both dialects.

15010 is for loopback and plaintext and never carries secrets; 15012 is TLS, for those who prove who they are. Source: Envoy's
"xDS REST and gRPC protocol"; ports and names are Istio's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from controlplane.model.accepting import TlsListener, bound_sockets, share_of_descriptors
from controlplane.model.grpc_calls import PATIENCE, bound_requests, first_request
from controlplane.model.proxy import Proxy
from controlplane.xds import type_urls
from controlplane.xds.admission import Admit, Admitted, admission, while_admitted
from controlplane.xds.hub import Hub
from controlplane.xds.node import InvalidNode, parse_node
from controlplane.xds.session import Session

log = logging.getLogger("controlplane.xds")

_MOST_CONNECTIONS: Final = 20_000
_MOST_ASKED: Final = 50_000  # names in one request

_BACKLOG: Final = 1024  # all proxies of a mesh may come at once

_AGGREGATED: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/%sAggregatedResources"
_BY_TYPE: Final = {
    type_urls.CLUSTER: ("cluster", "Cluster", "Clusters"),
    type_urls.ENDPOINTS: ("endpoint", "Endpoint", "Endpoints"),
    type_urls.LISTENER: ("listener", "Listener", "Listeners"),
    type_urls.ROUTES: ("route", "Route", "Routes"),
    type_urls.SECRET: ("secret", "Secret", "Secrets"),
}

# A peer that is gone is noticed in half a minute, also by us: grpclib does not look unless it is told to.
_KEEPALIVE: Final = Configuration(
    _keepalive_time=20.0,
    _keepalive_timeout=10.0,
    _keepalive_permit_without_calls=True,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=10.0,
)


class Raw(CodecBase):
    """Requests are parsed, responses are bytes already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The bytes themselves."""
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """A message; what is no message ends the call."""
        try:
            return message_type.FromString(data)
        except Exception as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"not a {message_type.DESCRIPTOR.full_name}") from error


class NotAdmitted(Exception):
    """A proxy cannot be served as it is; the message tells it what to do."""


class DiscoveryService:
    """The handlers of one address. ``admit`` is None where everybody on this machine may ask (plaintext on loopback).

    ``on_connected`` is awaited before a proxy is answered, may raise NotAdmitted, and says whether the proxy is a workload of
    the mesh: then ``on_disconnected`` is called when its stream is over, and ``on_health`` when it tells whether it is well,
    and if not why.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        admit: Admit | None,
        on_connected: Callable[[Proxy], Awaitable[bool]],
        on_disconnected: Callable[[Proxy], Awaitable[None]],
        on_health: Callable[[Proxy, bool, str], Awaitable[bool]],
    ) -> None:
        self.hub = hub
        self.admit = admit
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        self.on_health = on_health

    def __mapping__(self) -> dict[str, Handler]:
        """grpclib's table of methods."""
        return dict(self._methods())

    def _methods(self) -> Iterator[tuple[str, Handler]]:
        yield _AGGREGATED % "Stream", self._handler("", incremental=False)
        yield _AGGREGATED % "Delta", self._handler("", incremental=True)
        for type_url, (package, service, plural) in _BY_TYPE.items():
            start = f"/envoy.service.{package}.v3.{service}DiscoveryService/"
            yield f"{start}Stream{plural}", self._handler(type_url, incremental=False)
            yield f"{start}Delta{plural}", self._handler(type_url, incremental=True)

    def _handler(self, type_url: str, *, incremental: bool) -> Handler:
        async def serve(stream: Stream[Any, Any]) -> None:
            await self._serve(stream, type_url, incremental)

        request: type = DeltaDiscoveryRequest if incremental else DiscoveryRequest
        return Handler(serve, Cardinality.STREAM_STREAM, request, bytes)

    async def _serve(self, stream: Stream[Any, Any], type_url: str, incremental: bool) -> None:
        bound_requests(stream)
        first = await first_request(stream)
        if first is None:
            return
        try:
            proxy = parse_node(first.node)
        except InvalidNode as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        admitted = await admission(stream, proxy, self.admit)
        proxy = admitted.proxy
        session = Session(
            self.hub,
            proxy,
            first.node,
            stream.send_message,
            incremental=incremental,
            confidential=self.admit is not None,
        )
        try:
            registered = await self.on_connected(proxy)
        except NotAdmitted as error:
            log.warning("%s", error)
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from error
        self.hub.joined(session)
        try:
            await self._converse(stream, session, admitted, first, type_url, registered)
        finally:
            self.hub.left(session)
            if registered:
                await self.on_disconnected(proxy)

    async def _converse(
        self,
        stream: Stream[Any, Any],
        session: Session,
        admitted: Admitted,
        first: Any,
        type_url: str,
        registered: bool,
    ) -> None:
        async def listen() -> None:
            request = first
            while request is not None:
                if request.type_url == type_urls.HEALTH:  # no subscription: an error says that the workload is ill
                    healthy = not request.HasField("error_detail")
                    if registered:
                        await self.on_health(session.proxy, healthy, request.error_detail.message)
                    request = await stream.recv_message()
                    continue
                if type_url:
                    request.type_url = request.type_url or type_url
                if not request.type_url or (type_url and request.type_url != type_url):
                    raise GRPCError(Status.INVALID_ARGUMENT, f"type URL {request.type_url!r} is not of this service")
                if request.type_url not in type_urls.IN_ORDER:
                    # Istio's agent asks for types of its own: it goes on without them.
                    log.debug("%s asks for %s, which is not served", session.proxy.id, request.type_url)
                    request = await stream.recv_message()
                    continue
                asked = request.resource_names_subscribe if session.incremental else request.resource_names
                if len(asked) > _MOST_ASKED:
                    raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{len(asked)} names; the limit is {_MOST_ASKED}")
                session.on_request(request)
                request = await stream.recv_message()

        await while_admitted(admitted, session.speak(), listen())


class _Connection(H2Protocol):
    """A connection that has to be for something: one on which nobody asks for anything does not stay."""

    def __init__(self, server: _ClosingServer, made: H2Protocol) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._server = server
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        if len(self._server.connections) >= self._server.most:
            log.warning("%d connections: no more are taken", self._server.most)
            self.handler.close()
            transport.abort()
            return
        self._server.connections.add(self)
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(PATIENCE, self._used)

    def connection_lost(self, exc: Any) -> None:
        if self._deadline is None or self not in self._server.connections:
            self.handler.close()  # it was never served
            return
        self._deadline.cancel()
        self._server.connections.discard(self)
        super().connection_lost(exc)

    def _used(self) -> None:
        if not self.processor.streams:
            self.processor.close("nothing was asked")


class _ClosingServer(Server):
    """grpclib's server leaves connections open when it is closed, and a proxy that waits on one never comes back; and it takes
    any number of them.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.most = share_of_descriptors(0.25, 16, _MOST_CONNECTIONS)
        self.connections: set[_Connection] = set()

    async def start_tls(self, host: str, port: int, context: ssl.SSLContext, patience: float) -> None:
        """As `start`, with TLS whose handshakes are bounded."""
        self._server = TlsListener(  # type: ignore[assignment]
            await bound_sockets(host, port), self._protocol_factory, context, backlog=_BACKLOG, patience=patience
        )
        self._server_closed_fut = asyncio.get_running_loop().create_future()

    def _protocol_factory(self) -> Any:
        return _Connection(self, super()._protocol_factory())

    def close_connections(self) -> None:
        """End every connection that was made."""
        for connection in list(self.connections):
            connection.processor.close("the server stops")


class DiscoveryServer:
    """Serves on one address: `start`, `address`, `stop`. Without ``tls`` the address must be a loopback one."""

    handshake_patience = 10.0  # seconds

    def __init__(self, services: Collection[Any], host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        if tls is None and not is_loopback(host):
            raise ValueError(
                f"xDS on {host}:{port} would be plaintext beyond this machine: use the TLS address (--secure-xds-address)"
            )
        self.host = host
        self.port = port
        self.tls = tls
        self.server = _ClosingServer(services, codec=Raw(), config=_KEEPALIVE)

    async def start(self) -> None:
        """Listen. OSError if the address cannot be bound."""
        if self.tls is None:
            await self.server.start(self.host, self.port, backlog=_BACKLOG)
        else:
            await self.server.start_tls(self.host, self.port, self.tls, self.handshake_patience)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        sockets = self.server._server.sockets  # type: ignore[union-attr]
        host, port = sockets[0].getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """End all streams; proxies go on with what they have, and come back."""
        if self.server._server is None:
            return
        self.server.close()
        self.server.close_connections()
        await self.server.wait_closed()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
