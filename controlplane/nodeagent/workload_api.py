"""The SPIFFE Workload API over a workload's socket: certificates, tokens and bundles for any program.

Source: SPIFFE Workload API, sections 4 to 6, and the SPIFFE Workload Endpoint, section 6.1 (the security header).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream

from controlplane.nodeagent.control_plane import ControlPlaneError
from controlplane.nodeagent.current import Current, Material
from controlplane.nodeagent.jwt_svids import BadToken, JwtSvids, validate
from controlplane.nodeagent.metrics import Metrics
from controlplane.nodeagent.peers import Peers
from controlplane.nodeagent.spiffe import workload_pb2 as messages

log = logging.getLogger("controlplane.nodeagent")

_SERVICE: Final = "/SpiffeWorkloadAPI/"
_MOST_AUDIENCES: Final = 32
_LONGEST_AUDIENCE: Final = 1024


class WorkloadApi:
    """The five methods of one workload's socket."""

    def __init__(self, current: Current, tokens: JwtSvids, peers: Peers, metrics: Metrics) -> None:
        self.current = current
        self.tokens = tokens
        self.peers = peers
        self.metrics = metrics

    def __mapping__(self) -> dict[str, Handler]:
        """grpclib's table of methods."""
        stream, one = Cardinality.UNARY_STREAM, Cardinality.UNARY_UNARY
        m = messages
        methods = (
            ("FetchX509SVID", self._x509_svid, stream, m.X509SVIDRequest, m.X509SVIDResponse),
            ("FetchX509Bundles", self._x509_bundles, stream, m.X509BundlesRequest, m.X509BundlesResponse),
            ("FetchJWTSVID", self._jwt_svid, one, m.JWTSVIDRequest, m.JWTSVIDResponse),
            ("FetchJWTBundles", self._jwt_bundles, stream, m.JWTBundlesRequest, m.JWTBundlesResponse),
            ("ValidateJWTSVID", self._validate, one, m.ValidateJWTSVIDRequest, m.ValidateJWTSVIDResponse),
        )
        return {
            _SERVICE + name: Handler(self._guarded(serve), cardinality, request, response)
            for name, serve, cardinality, request, response in methods
        }

    def _guarded(
        self, serve: Callable[[Stream[Any, Any]], Awaitable[None]]
    ) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def guarded(stream: Stream[Any, Any]) -> None:
            metadata = dict(stream.metadata or {})
            if metadata.get("workload.spiffe.io") != "true":
                raise GRPCError(
                    Status.INVALID_ARGUMENT, "security header missing: send the metadata workload.spiffe.io: true"
                )
            self.peers.admit(stream)
            await serve(stream)

        return guarded

    async def _x509_svid(self, stream: Stream[Any, Any]) -> None:
        def response(material: Material) -> Any:
            svid, bundle = material.svid, material.bundle
            if svid is None:
                raise GRPCError(Status.UNAVAILABLE, material.reason)
            one = messages.X509SVID(
                spiffe_id=svid.spiffe_id, x509_svid=svid.der, x509_svid_key=svid.key_der, bundle=bundle.roots_der
            )
            return messages.X509SVIDResponse(svids=[one], crl=bundle.crl_der)

        await self._follow(stream, "x509", response)

    async def _x509_bundles(self, stream: Stream[Any, Any]) -> None:
        def response(material: Material) -> Any:
            bundle = material.bundle
            return messages.X509BundlesResponse(crl=bundle.crl_der, bundles={bundle.spiffe_id: bundle.roots_der})

        await self._follow(stream, "x509-bundles", response)

    async def _jwt_bundles(self, stream: Stream[Any, Any]) -> None:
        def response(material: Material) -> Any:
            bundle = material.bundle
            return messages.JWTBundlesResponse(bundles={bundle.spiffe_id: bundle.jwks.encode()})

        await self._follow(stream, "jwt-bundles", response)

    async def _follow(self, stream: Stream[Any, Any], kind: str, response: Callable[[Material], Any]) -> None:
        """Tell what there is, and again whenever it has changed, until the caller has gone."""
        await stream.recv_message()
        wake = asyncio.Event()
        wake.set()

        async def speak() -> None:
            told = None
            while True:
                await wake.wait()
                wake.clear()
                message = response(self.current.material)
                if message != told:
                    await stream.send_message(message)
                    self.metrics.pushes.labels(self.peers.workload, kind).inc()
                    told = message

        self.current.listeners.add(wake.set)
        streams = self.metrics.streams.labels(self.peers.workload, kind)
        streams.inc()
        try:
            with contextlib.suppress(StreamTerminatedError, ConnectionError):
                await speak()
        finally:
            streams.dec()
            self.current.listeners.discard(wake.set)

    async def _jwt_svid(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        if request is None:
            return
        audience = list(request.audience)
        if not audience or not all(audience):
            raise GRPCError(Status.INVALID_ARGUMENT, "audience: must be one or more names")
        if len(audience) > _MOST_AUDIENCES or max(map(len, audience)) > _LONGEST_AUDIENCE:
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"audience: at most {_MOST_AUDIENCES} names of at most {_LONGEST_AUDIENCE} characters",
            )
        own = f"{self.current.material.bundle.spiffe_id}/ns/{self._namespace}/sa/{self._account}"
        if request.spiffe_id not in ("", own):
            raise GRPCError(
                Status.PERMISSION_DENIED, f"{request.spiffe_id} is not the identity of this socket: {own} is"
            )
        try:
            token = await self.tokens.fetch(audience)
        except ControlPlaneError as error:
            log.warning("%s: no JWT-SVID: %s", self.peers.workload, error)
            status = Status.INVALID_ARGUMENT if error.status in (400, 422) else Status.UNAVAILABLE
            raise GRPCError(status, str(error)) from None
        self.metrics.tokens.labels(self.peers.workload).inc()
        await stream.send_message(messages.JWTSVIDResponse(svids=[messages.JWTSVID(spiffe_id=own, svid=token)]))

    async def _validate(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        if request is None or not request.audience or not request.svid:
            raise GRPCError(Status.INVALID_ARGUMENT, "audience, svid: both are required")
        try:
            claims = validate(request.svid, request.audience, self.current.material.bundle, time.time())
            found = ParseDict(claims, Struct())
        except BadToken as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        except (ParseError, ValueError):
            raise GRPCError(Status.INVALID_ARGUMENT, "the token has claims that are no JSON values") from None
        await stream.send_message(messages.ValidateJWTSVIDResponse(spiffe_id=claims["sub"], claims=found))

    @property
    def _namespace(self) -> str:
        return self.peers.workload.partition("/")[0]

    @property
    def _account(self) -> str:
        return self.peers.workload.partition("/")[2]
