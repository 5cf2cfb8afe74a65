"""The certificate validator for SPIFFE: a chain counts only with the roots of the trust domain that the leaf names.

Who does what: the ssl module cannot choose roots by peer, so it verifies chains, dates and purpose against the roots of all
trust domains together, within the handshake; who is known to none of them ends there, with an alert. That leaves one thing to
see to: that the root is one of the leaf's own domain. With a single domain it is. With several, and where a bundle brings
revocation lists (which are for that domain alone), pyOpenSSL verifies the chain once more when the handshake is done, with
that domain's bundle: it is OpenSSL again, with the same rules for chains, which `cryptography`'s own verification (by the rules
for public servers, and without revocation) is not. A chain is verified once for each version of the bundles, and remembered.

Source: Envoy's `SPIFFECertValidatorConfig`, the SPIFFE-ID specification section 2, the X509-SVID specification sections 2 to 5.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from sidecar.config.tls_secrets import CertificateValidationContext
from sidecar.transport.failures import TlsFailure, unverified, verification_failed
from sidecar.transport.identity import CertificateDetails, ConnectionTls
from sidecar.transport.trust_bundles import TrustBundle, load_bundles
from sidecar.transport.verification import Verification

if TYPE_CHECKING:
    from OpenSSL import crypto

_ID: Final = re.compile(rb"spiffe://([a-z0-9._-]{1,255})((?:/[a-zA-Z0-9._-]+)+)", re.ASCII)
_LONGEST_ID: Final = 2048
_DOTS: Final = frozenset((b".", b".."))
_NO_CHECK_TIME: Final = 0x200000
_REMEMBERED: Final = 1024
"""Chains that need not be verified again."""

_Chain = tuple[bytes, ...]


def trust_domain_of(identity: bytes) -> str | None:
    """The trust domain of a workload's SPIFFE ID; None for what is none."""
    found = _ID.fullmatch(identity)
    if found is None or len(identity) > _LONGEST_ID or not _DOTS.isdisjoint(found[2].split(b"/")):
        return None
    return found[1].decode()


class SpiffeVerification(Verification):
    """The conditions of a validation context with SPIFFE. Raises TlsContextError for bundles that cannot be read."""

    __slots__ = ("_bundles", "_separate", "_stores", "_verified")

    def __init__(self, validation: CertificateValidationContext, needs_signing_rsa: bool = False) -> None:
        super().__init__(validation, needs_signing_rsa, kind="URI")
        assert validation.spiffe is not None
        self._bundles = load_bundles(validation.spiffe)
        self.authorities = [pem for bundle in self._bundles.values() for pem in bundle.pems]
        self._separate = len(self._bundles) > 1 or any(bundle.crls for bundle in self._bundles.values())
        self._stores: dict[str, crypto.X509Store] = {}
        self._verified: dict[bytes, tuple[_Chain, float, float]] = {}  # by leaf; with the times between which it counts

    @property
    def needs_certificate(self) -> bool:
        """Always: nobody is anonymous."""
        return True

    def _check(self, peer: CertificateDetails, names: tuple[str, ...], tls: ConnectionTls | None) -> TlsFailure | None:
        if _may_sign(peer.certificate):
            return verification_failed("cert precheck", "fail_verify_error")
        if len(peer.uri_sans) > 1:
            return verification_failed(
                f"{len(peer.uri_sans)} URI SANs, and an X509-SVID has one", "fail_verify_error"
            )  # fmt: skip
        domain = trust_domain_of(peer.uri_sans[0]) if peer.uri_sans else None
        if domain is None or domain not in self._bundles:
            return verification_failed("no trust bundle store", "fail_verify_error")
        if self._separate:
            failure = self._verify(domain, peer, tls)
            if failure is not None:
                return failure
        if self.sans and not any(test(kind, value) for test in self.sans for kind, value in peer.sans):
            return verification_failed("SAN match", "fail_verify_san")
        return self._check_rest(peer, names)

    def _verify(self, domain: str, peer: CertificateDetails, tls: ConnectionTls | None) -> TlsFailure | None:
        """Verify the chain against the bundle of its own domain.

        A resumed session has forgotten the chain: then the leaf counts if it has been verified, or needs none.
        """
        chain: _Chain = (peer.der,) if tls is None else tls.chain
        resumed = tls is not None and tls.resumed
        known = self._verified.get(peer.der)
        if known is not None and (resumed or known[0] == chain) and known[1] <= time.time() <= known[2]:
            return None
        found = _verified_chain(self._store(domain), chain)
        if isinstance(found, TlsFailure):
            return found
        while len(self._verified) >= _REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[peer.der] = (chain, *self._counting(found, self._bundles[domain]))
        return None

    def _counting(self, chain: list[x509.Certificate], bundle: TrustBundle) -> tuple[float, float]:
        """From when to when a verdict on this chain counts, in seconds since the epoch."""
        if not self.dates and not bundle.crls:
            return 0.0, float("inf")
        begins: list[datetime] = [one.not_valid_before_utc for one in chain] if self.dates else []
        ends: list[datetime] = [one.not_valid_after_utc for one in chain] if self.dates else []
        for crl in bundle.crls:
            begins.append(crl.last_update_utc)
            if crl.next_update_utc is not None:
                ends.append(crl.next_update_utc)
        first = max((one.timestamp() for one in begins), default=0.0)
        return first, min((one.timestamp() for one in ends), default=float("inf"))

    def _store(self, domain: str) -> crypto.X509Store:
        store = self._stores.get(domain)
        if store is None:
            from OpenSSL import crypto  # only for those with several trust domains

            store = self._stores[domain] = crypto.X509Store()
            bundle = self._bundles[domain]
            for root in bundle.roots:
                store.add_cert(crypto.X509.from_cryptography(root))
            for crl in bundle.crls:
                store.add_crl(crl)
            flags = 0 if self.dates else _NO_CHECK_TIME
            if bundle.crls:
                flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
            if flags:
                store.set_flags(flags)
        return store

    def __repr__(self) -> str:
        return f"<SpiffeVerification of {', '.join(self._bundles)}>"


def _verified_chain(store: crypto.X509Store, chain: _Chain) -> list[x509.Certificate] | TlsFailure:
    from OpenSSL import crypto

    read: Any = crypto.X509.from_cryptography
    leaf, *others = [read(x509.load_der_x509_certificate(der)) for der in chain]
    try:
        found = crypto.X509StoreContext(store, leaf, others).get_verified_chain()
    except crypto.X509StoreContextError as error:
        code, depth, message = error.errors
        return unverified(code, depth, message)
    return [one.to_cryptography() for one in found]


def _may_sign(certificate: x509.Certificate) -> bool:
    """Whether it may sign certificates or revocation lists, which no leaf may, or does not say what it may.

    Raises one of ``UNREADABLE``.
    """
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.key_cert_sign or usage.crl_sign
