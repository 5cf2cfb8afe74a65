"""What is asked of a peer's certificate after OpenSSL has verified its chain: names, digests, key usage.

Chains, dates and revocation are the ssl module's (flags of the context); the names and digests are read with
`cryptography` when the handshake is done and before a byte of either side is passed on. A resumed session is asked the
same. Source: Envoy's `CertificateValidationContext`; `spiffe.py` has what its validator for SPIFFE asks.
"""

from __future__ import annotations

import time
from typing import Final

from sidecar.config.tls_secrets import NO_VALIDATION, CertificateValidationContext
from sidecar.core.san_match import compile_san, matches_dns_name
from sidecar.transport.failures import TlsFailure, verification_failed
from sidecar.transport.identity import UNREADABLE, CertificateDetails, ConnectionTls


class Verification:
    """The conditions of one validation context. ``authorities`` are the roots in PEM, None if they are its `trusted_ca`.

    ``kind`` is that of the names which conditions without a kind are for, empty for any.
    """

    __slots__ = ("authorities", "dates", "hashes", "needs_signing_rsa", "sans", "spkis")

    def __init__(
        self,
        validation: CertificateValidationContext,
        needs_signing_rsa: bool = False,
        kind: str = "",
    ) -> None:
        self.authorities: list[bytes] | None = None
        self.sans = tuple(compile_san(one, kind) for one in validation.match_typed_subject_alt_names)
        self.hashes = validation.verify_certificate_hash
        self.spkis = validation.verify_certificate_spki
        self.dates = validation.trusts and not validation.allow_expired_certificate
        self.needs_signing_rsa = needs_signing_rsa

    @property
    def needs_certificate(self) -> bool:
        """Whether a peer without a certificate fails."""
        return bool(self.sans or self.hashes or self.spkis)

    @property
    def asks(self) -> bool:
        """Whether anything is asked at all."""
        return self.needs_certificate or self.needs_signing_rsa

    def check(
        self, peer: CertificateDetails, names: tuple[str, ...] = (), tls: ConnectionTls | None = None
    ) -> TlsFailure | None:
        """What is wrong with the certificate, which was shown in ``tls``, or None.

        ``names`` are those of which the certificate must have one, in place of the configured conditions on names.
        """
        try:
            return self._check(peer, names, tls)
        except UNREADABLE as error:
            return verification_failed(f"cannot read the certificate: {error}", "fail_verify_error")

    def out_of_date(self, peer: CertificateDetails) -> TlsFailure | None:
        """What is wrong with the dates of a certificate in a resumed session, which OpenSSL does not verify again: by the wall
        clock, as in a new handshake, wherever that was set since the session began.
        """
        if not self.dates:
            return None
        now = time.time()
        if now > peer.valid_until.timestamp():
            why = "certificate has expired"
        elif now < peer.valid_from.timestamp():
            why = "certificate is not yet valid"
        else:
            return None
        return verification_failed(
            f"X509_verify_cert: certificate verification error at depth 0: {why}", "fail_verify_error"
        )

    def _check(self, peer: CertificateDetails, names: tuple[str, ...], tls: ConnectionTls | None) -> TlsFailure | None:
        if not names and self.sans and not any(test(kind, value) for test in self.sans for kind, value in peer.sans):
            return _wrong_names(peer)
        return self._check_rest(peer, names)

    def _check_rest(self, peer: CertificateDetails, names: tuple[str, ...]) -> TlsFailure | None:
        """The names of this one connection, the digests and the key usage."""
        if names and not any(_has_name(peer, name) for name in names):
            return _wrong_names(peer)
        if (self.hashes or self.spkis) and peer.sha256 not in self.hashes and peer.spki_sha256 not in self.spkis:
            return verification_failed("cert hash and spki", "fail_verify_cert_hash")
        if self.needs_signing_rsa and not peer.rsa_signs:
            return TlsFailure(
                "TLS_error:|268435720:SSL routines:OPENSSL_internal:KEY_USAGE_BIT_INCORRECT:TLS_error_end",
                "connection_error",
            )
        return None


def compile_validation(validation: CertificateValidationContext, needs_signing_rsa: bool = False) -> Verification:
    """What a validation context asks. Raises TlsContextError."""
    if validation.spiffe is None:
        return Verification(validation, needs_signing_rsa)
    from sidecar.transport.spiffe import SpiffeVerification  # only for those who use it

    return SpiffeVerification(validation, needs_signing_rsa)


def _has_name(peer: CertificateDetails, name: str) -> bool:
    wanted = name.encode()
    return any(matches_dns_name(value, wanted) if kind == "DNS" else value == wanted for kind, value in peer.sans)


def _wrong_names(peer: CertificateDetails) -> TlsFailure:
    names = ", ".join(value.decode("utf-8", "replace") for _, value in peer.sans)
    return verification_failed(f"SAN matcher, certificate SANs are [{names}]", "fail_verify_san")


NO_VERIFICATION: Final = Verification(NO_VALIDATION)
