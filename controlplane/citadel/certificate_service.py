"""`istio.v1.auth.IstioCertificateService` over gRPC: Istio's agents and others who speak it get their certificates here.

A caller proves who they are by `authorization: Bearer TOKEN` (a join token, a Kubernetes service-account token, an admin's
token) or by their client certificate. An admin names the identity in the metadata of the request, as ztunnel does; all others
get their own.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cryptography import x509
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from controlplane.citadel.authority import CertificateAuthority, account_of
from controlplane.citadel.issuing import Issuance
from controlplane.citadel.istio.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from controlplane.citadel.signers import pem
from controlplane.model.certificates import CannotIssue, InvalidRequest, NotAllowed, TooOften
from controlplane.model.credentials import Authenticator, Role, Unauthenticated
from controlplane.model.grpc_calls import bearer_of, bound_requests, certificate_of, source_of
from controlplane.model.store import Unavailable

_PATH: Final = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
_IMPERSONATED: Final = "ImpersonatedIdentity"
_LARGEST: Final = 64 * 1024  # bytes
_PATIENCE: Final = 15.0  # seconds for the request
_JOIN: Final = "mizzen-join-"


class CertificateService:
    """The handlers, for a server with TLS."""

    def __init__(self, issuance: Issuance, authenticator: Authenticator, authority: CertificateAuthority) -> None:
        self._issuance = issuance
        self._authenticator = authenticator
        self._authority = authority

    def __mapping__(self) -> dict[str, Handler]:
        """grpclib's table of methods."""
        return {_PATH: Handler(self._create, Cardinality.UNARY_UNARY, IstioCertificateRequest, bytes)}

    async def _create(self, stream: Stream[Any, Any]) -> None:
        bound_requests(stream, _LARGEST)
        try:
            async with asyncio.timeout(_PATIENCE):
                request = await stream.recv_message()
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"nothing was asked in {_PATIENCE:.0f} s") from None
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "a request is required")
        try:
            chain = await self._certify(stream, request)
        except Unauthenticated as error:
            raise GRPCError(Status.UNAUTHENTICATED, str(error)) from None
        except NotAllowed as error:
            raise GRPCError(Status.PERMISSION_DENIED, str(error)) from None
        except TooOften as error:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, str(error)) from None
        except InvalidRequest as error:
            name = {"certificateSigningRequest": "csr", "lifetime": "validity_duration"}.get(error.field, error.field)
            raise GRPCError(Status.INVALID_ARGUMENT, f"{name}: {error}") from None
        except (CannotIssue, Unavailable) as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from None
        certificates = [pem(one).decode() for one in x509.load_pem_x509_certificates(chain)]
        await stream.send_message(IstioCertificateResponse(cert_chain=certificates).SerializeToString())

    async def _certify(self, stream: Stream[Any, Any], request: IstioCertificateRequest) -> bytes:
        token, source = bearer_of(dict(stream.metadata or {})), source_of(stream)
        lifetime = float(request.validity_duration) or None
        csr = request.csr.encode()
        namespace, account = self._impersonated(request)
        if token is not None and token.startswith(_JOIN):
            if namespace:
                raise NotAllowed("a join token is of one identity: ask for a certificate without ImpersonatedIdentity")
            return await self._issuance.join(token, csr, lifetime=lifetime, source=source)
        try:
            caller = await self._authenticator.authenticate(token=token, certificate=certificate_of(stream))
        except Unauthenticated as error:
            means = "a client certificate, or nothing" if token is None else "a token"
            self._issuance.turned_away(str(error), authenticated=means, source=source)
            raise
        if caller.role is Role.ADMIN and not namespace:
            raise InvalidRequest("metadata", f"{_IMPERSONATED} is required with an admin's token: it says for whom")
        return await self._issuance.certify(
            caller, csr, namespace=namespace, service_account=account, lifetime=lifetime, source=source
        )

    def _impersonated(self, request: IstioCertificateRequest) -> tuple[str, str]:
        if _IMPERSONATED not in request.metadata.fields:
            return "", ""
        wanted = request.metadata.fields[_IMPERSONATED].string_value
        found = account_of(wanted, self._authority.trust_domain)
        if found is None:
            prefix = f"spiffe://{self._authority.trust_domain}"
            raise InvalidRequest("metadata", f"{_IMPERSONATED} must be {prefix}/ns/NAMESPACE/sa/ACCOUNT")
        return found
