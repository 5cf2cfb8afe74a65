"""What is asked of the certificate authority: `citadel/` does it, `api/` and the gRPC service pass it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controlplane.model.credentials import Identity


class InvalidRequest(ValueError):
    """What is asked for cannot be: ``field`` is the one at fault ("certificateSigningRequest", "lifetime", "audience")."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class NotAllowed(Exception):
    """The caller has proved who they are, and may not have this."""


class TooOften(Exception):
    """The caller has had as many of late as there are for one; ``wait`` seconds from now there is another."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class CannotIssue(Exception):
    """Nothing can be issued now: says why, and what an operator has to do."""


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """What a workload believes others by (SPIFFE Trust Domain and Bundle, section 4).

    ``version`` grows with each change, and is the same at all control planes on one store. ``roots`` are certificates in PEM,
    the one that signs now first; ``crl`` is a certificate revocation list in PEM, empty for none; ``jwks`` are the public
    keys of JWT-SVIDs (RFC 7517). ``refresh_hint`` is how many seconds a holder may go without asking again. Whose certificate
    is not under the first root renews it within ``renew_within`` seconds, if that is not 0.
    """

    trust_domain: str
    version: int
    roots: tuple[str, ...]
    crl: str
    jwks: Mapping[str, Any]
    refresh_hint: int
    renew_within: float = 0.0


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A workload's certificate as it is listed. ``serial`` is hexadecimal; ``requester`` is who asked, ``authenticated`` by
    what they proved that; times are in seconds since the epoch.
    """

    serial: str
    identity: str
    requester: str
    authenticated: str
    source: str
    issued_at: float
    not_after: float


@dataclass(frozen=True, slots=True)
class IssuerCertificate:
    """A certificate of the authority itself as it is listed; ``role`` is "root" or "intermediate", ``signing`` whether
    workloads' certificates are signed by it now. Times are in seconds since the epoch.
    """

    role: str
    subject: str
    serial: str
    key: str
    signing: bool
    not_before: float
    not_after: float


class CertificateIssuer(Protocol):
    """The authority as callers see it. ``request`` is a certificate signing request in PEM, ``lifetime`` in seconds, None for
    the default; ``source`` is the address that the call came from, for the audit log. All but what reads raise Unauthenticated,
    NotAllowed, InvalidRequest, TooOften, and CannotIssue.
    """

    async def join(self, token: str, request: bytes, *, lifetime: float | None, source: str) -> bytes:
        """Use up a join token for a certificate: the chain with the root last, PEM. A request that is refused does not cost
        the token.
        """
        ...

    async def certify(
        self,
        caller: Identity,
        request: bytes,
        *,
        namespace: str = "",
        service_account: str = "",
        lifetime: float | None,
        source: str,
    ) -> bytes:
        """A certificate for the caller; an admin names for whom. The chain as of ``join``."""
        ...

    async def jwt_svid(
        self, caller: Identity, audience: Sequence[str], *, lifetime: float | None, source: str
    ) -> tuple[str, float]:
        """A signed token that tells one of ``audience`` who the caller is (SPIFFE JWT-SVID), and when it ends."""
        ...

    def turned_away(self, reason: str, *, authenticated: str, source: str) -> None:
        """Write down that somebody asked whose credential, of the kind ``authenticated``, is not good."""
        ...

    def issued(self) -> Sequence[IssuedCertificate]:
        """Workloads' certificates that this control plane has issued and that have not expired, the newest last; of very many
        the newest (the audit log has all).
        """
        ...

    def issuers(self) -> Sequence[IssuerCertificate]:
        """The authority's own certificates: what signs first, then the other trusted roots."""
        ...

    def bundle(self) -> TrustBundle:
        """The trust bundle as it is now."""
        ...

    def spiffe_bundle(self) -> Mapping[str, Any]:
        """The same as SPIFFE has it: a JWK set (Trust Domain and Bundle, section 4)."""
        ...

    async def changed_bundle(self, caller: Identity, have: int | None, wait: float, source: str) -> TrustBundle:
        """The trust bundle as soon as its version is not ``have``, at the latest after ``wait`` seconds. That the caller's
        workloads are served ``have`` is remembered: a root is replaced only when all have the new one.
        """
        ...

    def root(self) -> bytes:
        """The root that signs now, PEM. It is no secret: whoever joins compares its hash with that in the token."""
        ...
