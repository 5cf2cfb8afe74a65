"""Who a caller is, by their token or by their certificate."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from controlplane.citadel.authority import CertificateAuthority, account_of
from controlplane.citadel.authority_state import AuthorityState
from controlplane.citadel.token_review import TokenReviews, looks_like_jwt
from controlplane.citadel.tokens import Tokens
from controlplane.model.credentials import Identity, Means, Role, Unauthenticated

_MOST_KNOWN: Final = 16_384
_ELSEWHERE: Final = (
    "a join token serves to join alone (mizzen join): it is no credential here, and is not used up by this"
)


@dataclass(frozen=True, slots=True)
class _Known:
    """A certificate that is of this mesh by the authority's present state, whenever it is good."""

    since: datetime.datetime
    until: datetime.datetime
    spiffe_id: str
    identity: Identity


class Credentials:
    """The control plane's Authenticator (see the protocol)."""

    def __init__(
        self, tokens: Tokens, authority: CertificateAuthority, token_reviews: TokenReviews | None = None
    ) -> None:
        """``token_reviews`` judges tokens of Kubernetes service accounts; without it they are unknown."""
        self._tokens = tokens
        self._authority = authority
        self._token_reviews = token_reviews
        self._known: dict[bytes, _Known] = {}
        self._known_by: AuthorityState | None = None

    async def authenticate(self, *, token: str | None = None, certificate: bytes | None = None) -> Identity:
        """See Authenticator. A token goes before a certificate."""
        if token is not None:
            if self._token_reviews is not None and looks_like_jwt(token):
                return self._not_revoked(await self._token_reviews.identify(token))
            identity = await self._tokens.bearer(token)
            if identity.means is Means.JOIN_TOKEN:
                raise Unauthenticated(_ELSEWHERE, proof=identity.proof)
            return identity
        if certificate is not None:
            return self._workload(certificate)
        raise Unauthenticated("neither a bearer token nor a client certificate was given")

    def _not_revoked(self, account: Identity) -> Identity:
        """Kubernetes knows nothing of who is revoked here."""
        identity = self._authority.identity(account.namespace, account.service_account)
        if denial := self._authority.denial("", identity):
            raise Unauthenticated(denial, proof=account.proof)
        return account

    def _workload(self, der: bytes) -> Identity:
        known = self._of_this_mesh(der)
        if not known.since <= datetime.datetime.now(datetime.UTC) <= known.until:
            raise Unauthenticated("the client certificate has expired")
        if denial := self._authority.denial(known.identity.credential, known.spiffe_id):
            raise Unauthenticated(denial, proof=known.identity.proof)
        return known.identity

    def _of_this_mesh(self, der: bytes) -> _Known:
        """Agents ask all day over one connection: who has signed their certificate is found out once for each state of the
        authority. Time and revocation are not: those are looked at each time.
        """
        if self._known_by is not self._authority.state:
            self._known_by = self._authority.state
            self._known.clear()
        known = self._known.get(der)
        if known is None:
            known = self._judged(der)
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[der] = known
        return known

    def _judged(self, der: bytes) -> _Known:
        try:
            certificate = x509.load_der_x509_certificate(der)
            if not self._authority.issued(certificate):
                raise ValueError("it is signed by no signer of ours")
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # parsers of hostile input raise of many kinds
            raise Unauthenticated("the client certificate is not of this mesh") from None
        identities = names.get_values_for_type(x509.UniformResourceIdentifier)
        found = account_of(identities[0], self._authority.trust_domain) if len(identities) == 1 else None
        if found is None:
            raise Unauthenticated("the client certificate has no SPIFFE ID of a service account of this mesh")
        namespace, account = found
        name, serial = f"system:serviceaccount:{namespace}:{account}", f"{certificate.serial_number:x}"
        return _Known(
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            identities[0],
            Identity(Role.WORKLOAD, name, namespace, account, Means.CERTIFICATE, serial),
        )
