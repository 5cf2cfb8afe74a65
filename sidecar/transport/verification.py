"""What is asked of a peer's certificate after OpenSSL has verified its chain: names, digests, key usage.

Chains, dates and revocation are the ssl module's (flags of the context); the names and digests are read with
`cryptography` when the handshake is done and before a byte of either side is passed on. A resumed session is asked the
same. Source: Envoy's `CertificateValidationContext`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sidecar.config.tls_secrets import NO_VALIDATION, CertificateValidationContext, SubjectAltNameMatcher
from sidecar.core.matching import compile_string
from sidecar.transport.failures import TlsFailure, verification_failed
from sidecar.transport.identity import UNREADABLE, CertificateDetails

_SanTest = Callable[[str, bytes], bool]


class Verification:
    """The conditions of one validation context."""

    __slots__ = ("dates", "hashes", "needs_signing_rsa", "sans", "spkis")

    def __init__(self, validation: CertificateValidationContext, needs_signing_rsa: bool = False) -> None:
        self.sans = tuple(map(_compile_san, validation.match_typed_subject_alt_names))
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

    def check(self, peer: CertificateDetails, names: tuple[str, ...] = ()) -> TlsFailure | None:
        """What is wrong with the certificate, or None.

        ``names`` are those of which the certificate must have one, in place of the configured conditions on names.
        """
        try:
            return self._check(peer, names)
        except UNREADABLE as error:
            return verification_failed(f"cannot read the certificate: {error}", "fail_verify_error")

    def expired(self, peer: CertificateDetails, now: float) -> TlsFailure | None:
        """What is wrong with the dates of a certificate in a resumed session, which OpenSSL does not verify again.

        ``now`` is in seconds since the epoch.
        """
        if self.dates and peer.valid_until.timestamp() < now:
            return verification_failed(
                "X509_verify_cert: certificate verification error at depth 0: certificate has expired",
                "fail_verify_error",
            )
        return None

    def _check(self, peer: CertificateDetails, names: tuple[str, ...]) -> TlsFailure | None:
        if names:
            if not any(_has_name(peer, name) for name in names):
                return _wrong_names(peer)
        elif self.sans and not any(test(kind, value) for test in self.sans for kind, value in peer.sans):
            return _wrong_names(peer)
        if (self.hashes or self.spkis) and peer.sha256 not in self.hashes and peer.spki_sha256 not in self.spkis:
            return verification_failed("cert hash and spki", "fail_verify_cert_hash")
        if self.needs_signing_rsa and not peer.rsa_signs:
            return TlsFailure(
                "TLS_error:|268435720:SSL routines:OPENSSL_internal:KEY_USAGE_BIT_INCORRECT:TLS_error_end",
                "connection_error",
            )
        return None


def matches_dns_name(pattern: bytes, name: bytes) -> bool:
    """Whether a certificate's DNS name (``pattern``, perhaps with a wildcard for one whole label) stands for ``name``."""
    pattern, name = pattern.lower(), name.lower()
    if pattern[:2] == b"*.":
        label, dot, rest = name.partition(b".")
        return bool(label) and dot == b"." and rest == pattern[2:]
    return pattern == name


def _compile_san(matcher: SubjectAltNameMatcher) -> _SanTest:
    wanted = matcher.san_type
    test = compile_string(matcher.matcher)
    if matcher.matcher.match_pattern == "exact" and wanted in ("DNS", ""):
        exact = matcher.matcher.value

        def by_name(kind: str, value: bytes) -> bool:
            if kind == "DNS":
                return matches_dns_name(value, exact)
            return not wanted and test(value)

        return by_name
    if not wanted:
        return lambda kind, value: test(value)
    return lambda kind, value: kind == wanted and test(value)


def _has_name(peer: CertificateDetails, name: str) -> bool:
    wanted = name.encode()
    return any(matches_dns_name(value, wanted) if kind == "DNS" else value == wanted for kind, value in peer.sans)


def _wrong_names(peer: CertificateDetails) -> TlsFailure:
    names = ", ".join(value.decode("utf-8", "replace") for _, value in peer.sans)
    return verification_failed(f"SAN matcher, certificate SANs are [{names}]", "fail_verify_san")


NO_VERIFICATION: Final = Verification(NO_VALIDATION)
