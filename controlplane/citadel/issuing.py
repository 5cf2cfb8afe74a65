"""Issuing: who asks is known; what they ask is judged, signed, written down, and only then handed out."""

from __future__ import annotations

import datetime
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from controlplane.citadel.allowance import Allowance
from controlplane.citadel.audit import AuditLog
from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.bundles import TrustBundles
from controlplane.citadel.issued import IssuedCertificates
from controlplane.citadel.jwt_keys import LONGEST as LONGEST_JWT
from controlplane.citadel.jwt_keys import JwtKeys
from controlplane.citadel.requests import judge_account
from controlplane.citadel.tokens import Tokens
from controlplane.model.certificates import (
    CannotIssue,
    InvalidRequest,
    IssuedCertificate,
    IssuerCertificate,
    NotAllowed,
    TooOften,
    TrustBundle,
)
from controlplane.model.credentials import Identity, Means, Role, Unauthenticated

_JWT_LIFETIME: Final = 300.0
_MOST_AUDIENCES: Final = 32
_LONGEST_AUDIENCE: Final = 1024
_AUDIENCES_WRITTEN: Final = 256  # characters of them in a line of the audit log
_REASON_WRITTEN: Final = 1000  # characters: callers' own words may be in it
_OF_ONE: Final = (60.0, 1.0)  # certificates and tokens of one identity to one address, at once and each second
_OF_ALL: Final = (3000.0, 50.0)  # of one identity to all addresses


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds that a workload's certificate lives if its request does not say, and at most (Istio's
    DEFAULT_WORKLOAD_CERT_TTL and MAX_WORKLOAD_CERT_TTL).
    """

    default: float = 86400.0
    longest: float = 90 * 86400.0


DEFAULT_LIFETIMES: Final = Lifetimes()


class Issuance:
    """The control plane's CertificateIssuer (see the protocol)."""

    def __init__(
        self,
        authority: CertificateAuthority,
        tokens: Tokens,
        jwt_keys: JwtKeys,
        bundles: TrustBundles,
        audit: AuditLog,
        known: IssuedCertificates,
        lifetimes: Lifetimes = DEFAULT_LIFETIMES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._jwt_keys = jwt_keys
        self._bundles = bundles
        self._audit = audit
        self._known = known
        self.lifetimes = lifetimes
        self._clock = clock
        self._of_one = Allowance(*_OF_ONE)
        self._of_all = Allowance(*_OF_ALL)

    async def join(self, token: str, request: bytes, *, lifetime: float | None, source: str) -> bytes:
        """See CertificateIssuer."""
        try:
            caller = await self._tokens.bearer(token)
            if caller.means is not Means.JOIN_TOKEN:
                raise Unauthenticated("only a join token is traded for a certificate")
        except Unauthenticated as error:
            self._refuse("", "", "join token", source, error)
            raise
        chain, issued = await self._issue(caller, request, caller.namespace, caller.service_account, lifetime, source)
        try:
            await self._tokens.identify(token)
        except BaseException as error:  # somebody was quicker, or the store is out of reach
            self._audit.withdrawn({**_line("withdrawn", issued, self._clock()), "reason": str(error)})
            raise
        self._known.add(issued)
        return chain

    async def admit(self, token: str, judge: Callable[[Identity], object], *, source: str) -> Identity:
        """Use up a join token for one xDS stream, with a line in the audit log. ``judge`` raises PermissionError if the stream
        is not for that identity. Raises this, Unauthenticated, NotAllowed for an identity that is revoked, and CannotIssue
        when the line cannot be written; who is refused has not used the token up.
        """
        identity, name, proof = "", "", str(Means.JOIN_TOKEN)
        try:
            caller = await self._tokens.bearer(token)
            if caller.means is not Means.JOIN_TOKEN:
                raise Unauthenticated("not a join token")
            identity, name, proof = self._authority.identity(*_own(caller)), caller.name, caller.proof
            judge(caller)
            self._authority.judge_identity(identity)
        except (Unauthenticated, NotAllowed, PermissionError) as error:
            self._refuse(identity, name, proof, source, error)
            raise
        line = {
            "time": self._clock(),
            "event": "admitted",
            "identity": identity,
            "requester": caller.name,
            "authenticated": caller.proof,
            "source": source,
        }
        await self._audit.issued(line)
        try:
            return await self._tokens.identify(token)
        except BaseException as error:  # somebody was quicker, or the store is out of reach
            self._audit.withdrawn({**line, "event": "withdrawn", "time": self._clock(), "reason": str(error)})
            raise

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
        """See CertificateIssuer."""
        wanted = (namespace, service_account) if namespace or service_account else _own(caller)
        try:
            if caller.role is Role.WORKLOAD and wanted != _own(caller):
                raise NotAllowed(
                    f"{caller.name} asks for the identity of {namespace}/{service_account}, which is another"
                )
            if caller.role is Role.VIEWER:
                raise NotAllowed(f"{caller.name} may read, and gets no certificate")
            if not all(wanted):
                raise InvalidRequest(
                    "serviceAccount", "is required with an admin's token, and namespace: they are for whom"
                )
            self._judge_how_often(caller, source)
        except (NotAllowed, InvalidRequest, TooOften) as error:
            self._refuse(self._authority.identity(*wanted), caller.name, caller.proof, source, error)
            raise
        chain, issued = await self._issue(caller, request, *wanted, lifetime, source)
        self._known.add(issued)
        return chain

    async def jwt_svid(
        self, caller: Identity, audience: Sequence[str], *, lifetime: float | None, source: str
    ) -> tuple[str, float]:
        """See CertificateIssuer."""
        subject = self._authority.identity(*_own(caller))
        try:
            if caller.role is not Role.WORKLOAD:
                raise NotAllowed(f"{caller.name} is no workload: JWT-SVIDs are of workloads")
            judge_account(*_own(caller))
            if not audience or len(audience) > _MOST_AUDIENCES:
                raise InvalidRequest("audience", f"must name 1 to {_MOST_AUDIENCES} audiences")
            if not all(0 < len(one) <= _LONGEST_AUDIENCE for one in audience):
                raise InvalidRequest("audience", f"each is a text of 1 to {_LONGEST_AUDIENCE} characters")
            seconds = _JWT_LIFETIME if lifetime is None else lifetime
            if not 1 <= seconds <= LONGEST_JWT:
                raise InvalidRequest("lifetime", f"a JWT-SVID lives 1 to {LONGEST_JWT:.0f} seconds, not {seconds:g}")
            self._judge_how_often(caller, source)
        except (NotAllowed, InvalidRequest, TooOften) as error:
            self._refuse(subject, caller.name, caller.proof, source, error)
            raise
        now = int(self._clock())
        ends = now + int(seconds)
        token = self._jwt_keys.sign({"sub": subject, "aud": list(audience), "iat": now, "exp": ends})
        await self._audit.issued({
            "time": self._clock(),
            "event": "jwt-svid",
            "identity": subject,
            "audience": _shortened(audience),
            "requester": caller.name,
            "authenticated": caller.proof,
            "source": source,
            "lifetime": ends - now,
            "notAfter": ends,
        })  # fmt: skip
        return token, float(ends)

    def turned_away(self, reason: str, *, authenticated: str, source: str) -> None:
        """See CertificateIssuer."""
        self._refuse("", "", authenticated, source, Unauthenticated(reason))

    def issued(self) -> Sequence[IssuedCertificate]:
        """See CertificateIssuer."""
        return self._known.unexpired()

    def issuers(self) -> Sequence[IssuerCertificate]:
        """See CertificateIssuer."""
        return self._authority.issuers()

    def bundle(self) -> TrustBundle:
        """See CertificateIssuer."""
        return self._bundles.current

    def spiffe_bundle(self) -> Mapping[str, Any]:
        """See CertificateIssuer."""
        return self._bundles.spiffe()

    async def changed_bundle(self, caller: Identity, have: int | None, wait: float, source: str) -> TrustBundle:
        """See CertificateIssuer."""
        if have is not None and have <= self._bundles.current.version:
            self._bundles.confirm(self._authority.identity(*_own(caller)), source.rpartition(":")[0], have)
        return await self._bundles.changed(have, wait)

    def root(self) -> bytes:
        """See CertificateIssuer."""
        return self._authority.known_roots

    async def _issue(
        self,
        caller: Identity,
        request: bytes,
        namespace: str,
        service_account: str,
        lifetime: float | None,
        source: str,
    ) -> tuple[bytes, IssuedCertificate]:
        """Judge, sign and write down; the certificate is not yet listed."""
        identity = self._authority.identity(namespace, service_account)
        try:
            judge_account(namespace, service_account)
            seconds = self.lifetimes.default if lifetime is None else lifetime
            if not 1 <= seconds <= self.lifetimes.longest:
                longest = self.lifetimes.longest
                raise InvalidRequest("lifetime", f"certificates live 1 to {longest:.0f} seconds here, not {seconds:g}")
            await self._authority.cover(seconds)
            self._authority.judge_identity(identity)
            chain, certificate = self._authority.sign_workload(
                request, namespace, service_account, datetime.timedelta(seconds=seconds)
            )
        except (NotAllowed, InvalidRequest, CannotIssue) as error:
            self._refuse(identity, caller.name, caller.proof, source, error)
            raise
        issued = IssuedCertificate(
            serial=f"{certificate.serial_number:x}",
            identity=self._known.shared(identity),
            requester=self._known.shared(caller.name),
            authenticated=caller.proof,
            source=self._known.shared(source),
            issued_at=self._clock(),
            not_after=_seconds(certificate),
        )
        await self._audit.issued(_line("issued", issued, issued.issued_at))
        return chain, issued

    def _judge_how_often(self, caller: Identity, source: str) -> None:
        """What is issued is written down: one workload does not fill the disk of the audit log, or the list of certificates.
        Raises TooOften.
        """
        if caller.role is not Role.WORKLOAD:
            return
        own = _own(caller)
        wait = self._of_one.take((own, source.rpartition(":")[0])) or self._of_all.take(own)
        if wait > 0:
            raise TooOften(
                f"{caller.name} has had as many certificates and tokens of late as one may: the next in {wait:.1f} s",
                wait,
            )

    def _refuse(self, identity: str, requester: str, authenticated: str, source: str, error: Exception) -> None:
        self._audit.refused({
            "time": self._clock(),
            "event": "refused",
            "identity": identity,
            "requester": requester,
            "authenticated": authenticated,
            "source": source,
            "reason": str(error)[:_REASON_WRITTEN],
        })  # fmt: skip


def _shortened(audience: Sequence[str]) -> list[str]:
    """For the audit log: what is long by its beginning and a hash."""
    if sum(map(len, audience)) <= _AUDIENCES_WRITTEN:
        return list(audience)
    digest = hashlib.sha256("\0".join(audience).encode()).hexdigest()
    return [audience[0][:_AUDIENCES_WRITTEN], f"... {len(audience)} in all, sha256:{digest}"]


def _own(caller: Identity) -> tuple[str, str]:
    return caller.namespace, caller.service_account


def _seconds(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _line(event: str, issued: IssuedCertificate, now: float) -> dict[str, Any]:
    return {
        "time": now,
        "event": event,
        "serial": issued.serial,
        "identity": issued.identity,
        "requester": issued.requester,
        "authenticated": issued.authenticated,
        "source": issued.source,
        "lifetime": math.ceil(issued.not_after - issued.issued_at),
        "notAfter": issued.not_after,
    }
