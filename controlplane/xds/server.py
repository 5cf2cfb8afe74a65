"""Discovery over gRPC: the aggregated service, and one for each type, in both dialects.

15010 is for loopback and plaintext and never carries secrets; 15012 is TLS, for those who prove who they are. Source: Envoy's
"xDS REST and gRPC protocol"; ports and names are Istio's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
import ssl
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from controlplane.model.proxy import Proxy
from controlplane.xds import type_urls
from controlplane.xds.hub import Hub
from controlplane.xds.node import InvalidNode, parse_node
from controlplane.xds.session import Session

log = logging.getLogger("controlplane.xds")

MAX_REQUEST: Final = 4 << 20  # bytes of one request: names and versions of all that a proxy has

_PATIENCE: Final = 15.0  # seconds for somebody to say what they want
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


# Who may be this proxy: it as far as it is believed; raises PermissionError with the reason. Called with the call's metadata
# and the peer's certificate (DER), None on plaintext connections.
Admit = Callable[[Proxy, Mapping[str, Any], Any], Awaitable[Proxy]]


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
        try:
            async with asyncio.timeout(_PATIENCE):
                first = await stream.recv_message()
        except TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"nothing was asked in {_PATIENCE:.0f} s") from error
        if first is None:
            return
        try:
            proxy = parse_node(first.node)
        except InvalidNode as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        if self.admit is not None:
            try:
                proxy = await self.admit(proxy, dict(stream.metadata or {}), certificate_of(stream))
            except PermissionError as error:
                raise GRPCError(Status.PERMISSION_DENIED, str(error)) from error
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
            await self._converse(stream, session, first, type_url, registered)
        finally:
            self.hub.left(session)
            if registered:
                await self.on_disconnected(proxy)

    async def _converse(
        self, stream: Stream[Any, Any], session: Session, first: Any, type_url: str, registered: bool
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

        speaking = asyncio.create_task(session.speak())
        listening = asyncio.create_task(listen())
        try:
            done, _ = await asyncio.wait((speaking, listening), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(StreamTerminatedError, ConnectionError):
                    task.result()
        finally:
            for task in (speaking, listening):
                task.cancel()
            await asyncio.gather(speaking, listening, return_exceptions=True)


def certificate_of(stream: Stream[Any, Any]) -> bytes | None:
    """The certificate that the client has shown, DER; grpclib itself tells but what it has found in it."""
    peer = stream.peer
    tls = None if peer is None else peer._transport.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(binary_form=True)


def bound_requests(stream: Stream[Any, Any]) -> None:
    """grpclib takes messages of any size: refuse what is too large before it is read."""
    below = stream._stream
    receive = below.recv_data

    async def bounded(size: int) -> bytes:
        if size > MAX_REQUEST:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a request of {size} bytes; the limit is {MAX_REQUEST}")
        return await receive(size)

    below.recv_data = bounded  # type: ignore[method-assign]


class _Connection(H2Protocol):
    """A connection that has to be for something: one on which nobody asks for anything does not stay."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(_PATIENCE, self._used)

    def connection_lost(self, exc: Any) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _used(self) -> None:
        if not self.processor.streams:
            self.processor.close("nothing was asked")


class _Refused(asyncio.Protocol):
    """There are as many connections as there may be."""

    def connection_made(self, transport: Any) -> None:
        transport.abort()


class _ClosingServer(Server):
    """grpclib's server leaves connections open when it is closed, and a proxy that waits on one never comes back; and it takes
    any number of them.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()
        self.most = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 2 // 5)

    def _protocol_factory(self) -> Any:
        if len(self._protocols) >= self.most:
            log.warning("%d connections: no more are taken", len(self._protocols))
            return _Refused()
        made = super()._protocol_factory()
        protocol = _Connection(made.handler, made.config, made.h2_config)
        self._protocols.add(protocol)
        return protocol

    def close_connections(self) -> None:
        """End every connection that was made."""
        for protocol in list(self._protocols):
            if hasattr(protocol, "processor"):
                protocol.processor.close("the server stops")


class DiscoveryServer:
    """Serves on one address: `start`, `address`, `stop`. Without ``tls`` the address must be a loopback one."""

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
        await self.server.start(self.host, self.port, ssl=self.tls, backlog=_BACKLOG)

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
