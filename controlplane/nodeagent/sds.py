"""SDS: a proxy's certificate, key and roots over the workload's socket, anew whenever they change.

Source: Envoy's "Secret discovery service" and "xDS REST and gRPC protocol"; the names are Istio's (`default`, `ROOTCA`) and
SPIFFE's (the SPIFFE IDs of the workload and of its trust domain), as those of SPIRE's agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final

from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)
from google.protobuf.any_pb2 import Any as Packed
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream

from controlplane.nodeagent.current import Current, Material
from controlplane.nodeagent.metrics import Metrics
from controlplane.nodeagent.peers import Peers
from controlplane.nodeagent.svid import Svid
from controlplane.nodeagent.trust_bundle import TrustBundle

log = logging.getLogger("controlplane.nodeagent")

CERTIFICATE: Final = "default"
ROOTS: Final = "ROOTCA"
TYPE_URL: Final = "type.googleapis.com/" + Secret.DESCRIPTOR.full_name
_SERVICE: Final = "/envoy.service.secret.v3.SecretDiscoveryService/"
_MOST_NAMES: Final = 100  # of one stream


class SecretService:
    """The three methods of one workload's socket."""

    def __init__(self, current: Current, peers: Peers, metrics: Metrics) -> None:
        self.current = current
        self.peers = peers
        self.metrics = metrics

    def __mapping__(self) -> dict[str, Handler]:
        """grpclib's table of methods."""
        both, one = Cardinality.STREAM_STREAM, Cardinality.UNARY_UNARY
        return {
            _SERVICE + "StreamSecrets": Handler(self._stream, both, DiscoveryRequest, DiscoveryResponse),
            _SERVICE + "DeltaSecrets": Handler(self._delta, both, DeltaDiscoveryRequest, DeltaDiscoveryResponse),
            _SERVICE + "FetchSecrets": Handler(self._fetch, one, DiscoveryRequest, DiscoveryResponse),
        }

    async def _stream(self, stream: Stream[Any, Any]) -> None:
        await self._serve(stream, StateOfTheWorld(self))

    async def _delta(self, stream: Stream[Any, Any]) -> None:
        await self._serve(stream, Delta(self))

    async def _fetch(self, stream: Stream[Any, Any]) -> None:
        self.peers.admit(stream)
        request = await stream.recv_message()
        if request is None:
            return
        conversation = StateOfTheWorld(self)
        conversation.on_request(request)
        await stream.send_message(conversation.response(self.current.material))

    async def _serve(self, stream: Stream[Any, Any], conversation: Conversation) -> None:
        self.peers.admit(stream)
        wake, current = asyncio.Event(), self.current

        async def listen() -> None:
            while (request := await stream.recv_message()) is not None:
                if conversation.on_request(request):
                    current.acknowledged()
                wake.set()

        async def speak() -> None:
            while True:
                await wake.wait()
                wake.clear()
                conversation.tell_subscription()
                response = conversation.response(current.material)
                if response is not None:
                    await stream.send_message(response)
                    self.metrics.pushes.labels(self.peers.workload, "sds").inc()

        current.listeners.add(wake.set)
        streams = self.metrics.streams.labels(self.peers.workload, "sds")
        streams.inc()
        tasks = [asyncio.create_task(listen()), asyncio.create_task(speak())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(StreamTerminatedError, ConnectionError):
                    task.result()
        finally:
            streams.dec()
            current.listeners.discard(wake.set)
            current.subscribers.discard(conversation)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            current.acknowledged()  # one less to wait for


class Conversation(ABC):
    """What both dialects have in common. ``names`` are those that the proxy asks for."""

    def __init__(self, service: SecretService) -> None:
        self.names: dict[str, None] = {}
        self.service = service
        self._asked = False
        self._nonce = 0
        self._taken: TrustBundle | None = None
        self._offered: dict[str, TrustBundle] = {}  # by nonce
        self._logged: set[str] = set()

    def on_request(self, request: Any) -> bool:
        """Somebody asks, acknowledges or refuses; whether it was an acknowledgement. Raises GRPCError."""
        if request.type_url not in ("", TYPE_URL):
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"type URL {request.type_url!r} is not served here: only {TYPE_URL} is"
            )
        acknowledges = False
        if request.response_nonce:
            acknowledges = self._on_answer(request)
        self._subscribe(request)
        if not self._asked and not self.names:
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"no secret is named: this socket has {', '.join(self._all_names())}"
            )
        self._asked = True
        if len(self.names) > _MOST_NAMES:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{len(self.names)} names; the limit is {_MOST_NAMES}")
        return acknowledges

    @abstractmethod
    def _subscribe(self, request: Any) -> None: ...

    @abstractmethod
    def response(self, material: Material) -> Any | None:
        """What the proxy is to hear now, None if it knows all. Raises GRPCError when it can have nothing of what it asks."""

    def has_taken(self, bundle: TrustBundle) -> bool:
        """See Subscriber."""
        return self._taken is not None and self._taken.digest == bundle.digest

    def tell_subscription(self) -> None:
        """Those who ask for the roots are waited for when these change."""
        current = self.service.current
        bundle = current.material.bundle
        if ROOTS in self.names or bundle.spiffe_id in self.names:
            current.subscribers.add(self)
        else:
            current.subscribers.discard(self)

    def _on_answer(self, request: Any) -> bool:
        workload, metrics = self.service.peers.workload, self.service.metrics
        offered = self._offered.pop(request.response_nonce, None)
        if request.HasField("error_detail"):
            metrics.refused.labels(workload).inc()
            log.warning(
                "%s: a proxy refuses %s: %s", workload, ", ".join(self.names), request.error_detail.message[:1000]
            )
            return False
        if offered is None:
            return False  # of what it has been told before the last, or said once already
        metrics.acknowledged.labels(workload).inc()
        self._taken = offered
        return True

    def _secrets(self, material: Material, errors: Any) -> Iterator[tuple[str, str, Secret]]:
        """Name, version and content of what is asked for; what there is not goes into ``errors``."""
        certificates, roots = self._names(material)
        known = 0
        for name in self.names:
            if name in roots:
                known += 1
                yield name, material.bundle.digest, _roots(name, material.bundle)
            elif name in certificates and material.svid is not None:
                known += 1
                yield name, material.svid.serial, _certificate(name, material.svid)
            elif name in certificates:
                _add_error(errors, name, Status.UNAVAILABLE, material.reason)
            else:
                message = f"there is no secret {name!r} here: this socket has {', '.join(self._all_names())}"
                _add_error(errors, name, Status.NOT_FOUND, message)
                if name not in self._logged:
                    self._logged.add(name)
                    log.warning("%s: a proxy asks for a secret %r that is not here", self.service.peers.workload, name)
        if self.names and not known:
            raise GRPCError(Status(errors[0].error_detail.code), errors[0].error_detail.message)

    def _names(self, material: Material) -> tuple[tuple[str, str], tuple[str, str]]:
        return (CERTIFICATE, f"{material.bundle.spiffe_id}{self._path}"), (ROOTS, material.bundle.spiffe_id)

    @property
    def _path(self) -> str:
        namespace, account = self.service.peers.workload.split("/")
        return f"/ns/{namespace}/sa/{account}"

    def _all_names(self) -> list[str]:
        certificates, roots = self._names(self.service.current.material)
        return [*certificates, *roots]

    def _next_nonce(self, material: Material) -> str:
        self._nonce += 1
        self._offered = {str(self._nonce): material.bundle}
        return str(self._nonce)


class StateOfTheWorld(Conversation):
    """All that is asked for, whenever some of it has changed."""

    def __init__(self, service: SecretService) -> None:
        super().__init__(service)
        self._told: tuple[tuple[str, str], ...] | None = None
        self._errors: list[str] = []

    def _subscribe(self, request: Any) -> None:
        if not request.response_nonce or request.response_nonce == str(self._nonce):
            self.names = dict.fromkeys(request.resource_names)

    def response(self, material: Material) -> Any | None:
        """See Conversation."""
        response = DiscoveryResponse(type_url=TYPE_URL)
        found = list(self._secrets(material, response.resource_errors))
        told = tuple((name, version) for name, version, _ in found)
        errors = [one.resource_name.name for one in response.resource_errors]
        if (told, errors) == (self._told, self._errors) or not self.names:
            return None
        self._told, self._errors = told, errors
        response.version_info = "/".join(dict.fromkeys(version for _, version in told))
        response.nonce = self._next_nonce(material)
        for _, _, secret in found:
            response.resources.append(_packed(secret))
        return response


class Delta(Conversation):
    """Only what the proxy does not have."""

    def __init__(self, service: SecretService) -> None:
        super().__init__(service)
        self._told: dict[str, str] = {}
        self._errors: list[str] = []

    def _subscribe(self, request: Any) -> None:
        for name in request.resource_names_unsubscribe:
            self.names.pop(name, None)
            self._told.pop(name, None)
        for name in request.resource_names_subscribe:
            self.names[name] = None
            self._told.pop(name, None)  # who asks again gets it again
        if not self._asked:
            self._told.update(request.initial_resource_versions)

    def response(self, material: Material) -> Any | None:
        """See Conversation."""
        response = DeltaDiscoveryResponse(type_url=TYPE_URL)
        found = list(self._secrets(material, response.resource_errors))
        errors = [one.resource_name.name for one in response.resource_errors]
        fresh = [one for one in found if self._told.get(one[0]) != one[1]]
        if not fresh and errors == self._errors:
            return None
        self._errors = errors
        self._told.update((name, version) for name, version, _ in fresh)
        response.system_version_info = "/".join(dict.fromkeys(version for _, version, _ in found))
        response.nonce = self._next_nonce(material)
        for name, version, secret in fresh:
            response.resources.append(Resource(name=name, version=version, resource=_packed(secret)))
        return response


def _add_error(errors: Any, name: str, status: Status, message: str) -> None:
    error = errors.add()
    error.resource_name.name = name
    error.error_detail.code = status.value
    error.error_detail.message = message


def _packed(secret: Secret) -> Packed:
    return Packed(type_url=TYPE_URL, value=secret.SerializeToString(deterministic=True))


def _certificate(name: str, svid: Svid) -> Secret:
    secret = Secret(name=name)
    secret.tls_certificate.certificate_chain.inline_bytes = svid.chain
    secret.tls_certificate.private_key.inline_bytes = svid.key
    return secret


def _roots(name: str, bundle: TrustBundle) -> Secret:
    secret = Secret(name=name)
    secret.validation_context.trusted_ca.inline_bytes = bundle.roots
    if bundle.crl.strip():
        secret.validation_context.crl.inline_bytes = bundle.crl
        secret.validation_context.only_verify_leaf_cert_crl = True
    return secret
