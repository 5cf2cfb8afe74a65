"""Who a caller is, by their token or by their certificate."""

from __future__ import annotations

import datetime

from cryptography import x509

from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.tokens import Tokens
from controlplane.model.credentials import Identity, Role, Unauthenticated


class Credentials:
    """The control plane's Authenticator (see the protocol)."""

    def __init__(self, tokens: Tokens, authority: CertificateAuthority) -> None:
        self._tokens = tokens
        self._authority = authority

    async def authenticate(self, *, token: str | None = None, certificate: bytes | None = None) -> Identity:
        """See Authenticator. A token goes before a certificate."""
        if token is not None:
            return await self._tokens.identify(token)
        if certificate is not None:
            return self._workload(certificate)
        raise Unauthenticated("neither a bearer token nor a client certificate was given")

    def _workload(self, der: bytes) -> Identity:
        try:
            certificate = x509.load_der_x509_certificate(der)
            certificate.verify_directly_issued_by(self._authority.certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # parsers of hostile input raise of many kinds
            raise Unauthenticated("the client certificate is not of this mesh") from None
        now = datetime.datetime.now(datetime.UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Unauthenticated("the client certificate has expired")
        identities = names.get_values_for_type(x509.UniformResourceIdentifier)
        prefix = f"spiffe://{self._authority.trust_domain}/ns/"
        if len(identities) != 1 or not identities[0].startswith(prefix):
            raise Unauthenticated("the client certificate has no SPIFFE ID of this mesh")
        parts = identities[0].removeprefix(prefix).split("/")
        if len(parts) != 3 or parts[1] != "sa" or not parts[0] or not parts[2]:
            raise Unauthenticated("the client certificate's SPIFFE ID names no service account")
        return Identity(Role.WORKLOAD, f"system:serviceaccount:{parts[0]}:{parts[2]}", parts[0], parts[2])
