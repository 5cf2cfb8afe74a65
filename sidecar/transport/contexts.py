"""From certificates, validation contexts and parameters to the ssl module's contexts, once for each version of them.

Who does what: the ssl module does versions, cipher suites of TLS 1.2 and before, one curve, ALPN, chains, dates (through
the flag NO_CHECK_TIME, which it passes to OpenSSL), revocation lists (VERIFY_CRL_CHECK_*), resumption by tickets and by
number. `cryptography` opens PKCS #12 and reads certificates. The ssl module takes private keys and revocation lists as
paths only: they go through a memory file, so that what was written inline never touches a disk, and what came from files
is one consistent reading. It cannot do several curves, suites of TLS 1.3, ticket keys, session timeouts, OCSP staples,
and names of authorities in the request for a certificate: the configuration refuses those that can be configured.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from sidecar.config.tls_parameters import TlsParameters
from sidecar.config.tls_secrets import CertificateValidationContext, TlsCertificate
from sidecar.config.tls_sources import DataSource
from sidecar.transport.failures import TlsContextError
from sidecar.transport.identity import UNREADABLE, CertificateDetails, details_of

_VERSIONS: Final = {
    "TLSv1_0": ssl.TLSVersion.TLSv1,
    "TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}
_PRIORITIZE_CHACHA: Final = 1 << 21
_NO_CHECK_TIME: Final = 0x200000
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LoadedCertificate:
    """A certificate as read: PEM texts, the password of the key, and the details of the certificate itself."""

    chain: bytes
    key: bytes
    password: bytes | None
    details: CertificateDetails

    def __repr__(self) -> str:
        return f"<LoadedCertificate {self.details!r}>"


def load_certificate(certificate: TlsCertificate) -> LoadedCertificate:
    """Read a certificate and its key as they are now. Raises TlsContextError."""
    password = None if certificate.password is None else _read(certificate.password, "password").rstrip(b"\r\n")
    if certificate.pkcs12 is not None:
        chain, key = _open_pkcs12(_read(certificate.pkcs12, "pkcs12"), password, certificate.pkcs12)
        password = None
    else:
        chain = _read(certificate.certificate_chain, "certificate_chain")
        key = _read(certificate.private_key, "private_key")
    found = _CERTIFICATE.search(chain)
    if found is None:
        raise TlsContextError(f"certificate_chain{_of(certificate.certificate_chain)} holds no certificate in PEM")
    try:
        details = details_of(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii")))
        details.server_names  # noqa: B018  a certificate that nobody can read stops here
    except UNREADABLE as error:
        raise TlsContextError(
            f"certificate_chain{_of(certificate.certificate_chain)} holds no certificate: {error}"
        ) from None
    return LoadedCertificate(chain, key, password, details)


def server_context(
    parameters: TlsParameters,
    certificates: Sequence[LoadedCertificate],
    validation: CertificateValidationContext | None,
    alpn: tuple[str, ...],
    *,
    require_certificate: bool,
    tickets: bool,
    prefer_client_ciphers: bool,
    roots: list[bytes] | None = None,
) -> ssl.SSLContext:
    """A context for accepted connections; of several certificates OpenSSL shows the one whose key the client can check.

    ``roots`` are in PEM, None for the `trusted_ca` of the validation context. Raises TlsContextError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_parameters(context, parameters)
    authorities = _authorities(validation) if roots is None else roots
    _load_keys(context, certificates, authorities)
    if prefer_client_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        if parameters.equal_preference:
            context.options |= _PRIORITIZE_CHACHA
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    context.num_tickets = int(tickets)  # of TLS 1.3; each costs a tenth of a handshake
    if validation is not None and validation.trusts:
        context.verify_mode = ssl.CERT_REQUIRED if require_certificate else ssl.CERT_OPTIONAL
        _load_trust(context, validation, authorities)
    elif require_certificate:
        raise TlsContextError("require_client_certificate needs a validation_context with trusted_ca")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_context(
    parameters: TlsParameters,
    certificates: Sequence[LoadedCertificate],
    validation: CertificateValidationContext | None,
    roots: list[bytes] | None = None,
) -> ssl.SSLContext:
    """A context for connections to endpoints; names are checked after the handshake, and ALPN is each connection's own.

    ``roots`` are in PEM, None for the `trusted_ca` of the validation context. Raises TlsContextError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _set_parameters(context, parameters)
    authorities = _authorities(validation) if roots is None else roots
    _load_keys(context, certificates, authorities)
    if validation is None or not validation.trusts or validation.accepts_untrusted:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_trust(context, validation, authorities)
    return context


def _set_parameters(context: ssl.SSLContext, parameters: TlsParameters) -> None:
    lowest = parameters.tls_minimum_protocol_version
    suites = ":".join(parameters.cipher_suites)
    if lowest in ("TLSv1_0", "TLSv1_1"):
        suites += ":@SECLEVEL=0"  # OpenSSL 3 has no older version at a higher level
    try:
        context.minimum_version = _VERSIONS[lowest]
        context.maximum_version = _VERSIONS[parameters.tls_maximum_protocol_version]
        context.set_ciphers(suites)
        if parameters.ecdh_curve:
            context.set_ecdh_curve(parameters.ecdh_curve)
    except (ValueError, ssl.SSLError) as error:
        raise TlsContextError(f"tls_params: {_plain(error)}") from None
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION


def _load_keys(
    context: ssl.SSLContext, certificates: Iterable[LoadedCertificate], authorities: Sequence[bytes]
) -> None:
    for certificate in certificates:
        # Without a password the ssl module would ask for one on the terminal.
        password = b"" if certificate.password is None else certificate.password
        with memory_file(_with_issuer(certificate, authorities)) as chain, memory_file(certificate.key) as key:
            try:
                context.load_cert_chain(chain, key, password=password)
            except ssl.SSLError as error:
                what = (
                    "the key does not belong to the certificate"
                    if "MISMATCH" in (error.reason or "")
                    else _plain(error)
                )
                subject = certificate.details.subject.decode()
                raise TlsContextError(f"certificate {subject!r} with its private_key: {what}") from None


def _with_issuer(certificate: LoadedCertificate, authorities: Sequence[bytes]) -> bytes:
    """The chain; one that is the certificate alone with its issuer, if that is among the authorities.

    OpenSSL would find and send the issuer, too, but verify the chain for it in every handshake, which costs a quarter.
    """
    if len(_CERTIFICATE.findall(certificate.chain)) == 1:
        leaf = certificate.details.certificate
        for authority in authorities:
            try:
                leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
            except (ValueError, TypeError, InvalidSignature):
                continue
            return certificate.chain.rstrip() + b"\n" + authority + b"\n"
    return certificate.chain


def _authorities(validation: CertificateValidationContext | None) -> list[bytes]:
    """The trusted certificates in PEM."""
    if validation is None or validation.trusted_ca is None:
        return []
    authorities = _CERTIFICATE.findall(_read(validation.trusted_ca, "trusted_ca"))
    if not authorities:
        raise TlsContextError(f"trusted_ca{_of(validation.trusted_ca)} holds no certificate in PEM")
    return authorities


def authority_of(source: DataSource) -> CertificateDetails:
    """The first of the trusted certificates. Raises TlsContextError."""
    found = _CERTIFICATE.search(_read(source, "trusted_ca"))
    if found is None:
        raise TlsContextError(f"trusted_ca{_of(source)} holds no certificate in PEM")
    return details_of(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii", "replace")))


def _load_trust(
    context: ssl.SSLContext, validation: CertificateValidationContext, authorities: Sequence[bytes]
) -> None:
    flags = context.verify_flags
    if validation.spiffe is None:  # as Envoy: its validator for SPIFFE wants chains that end with a root
        flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        if validation.system_root_certs:
            context.set_default_verify_paths()
    if authorities:
        try:
            context.load_verify_locations(cadata=b"\n".join(authorities).decode("ascii"))
        except (ValueError, ssl.SSLError) as error:
            raise TlsContextError(f"trusted_ca{_of(validation.trusted_ca)}: {_plain(error)}") from None
    if validation.crl is not None:
        with memory_file(_read(validation.crl, "crl")) as path:
            try:
                context.load_verify_locations(cafile=path)
            except ssl.SSLError as error:
                raise TlsContextError(f"crl{_of(validation.crl)}: {_plain(error)}") from None
        leaf_only = validation.only_verify_leaf_cert_crl
        flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF if leaf_only else ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    context.verify_flags = flags
    if validation.allow_expired_certificate:
        context.verify_flags |= _NO_CHECK_TIME


@contextmanager
def memory_file(content: bytes) -> Iterator[str]:
    """The path of a file with this content that exists in memory only, and only for this process."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _open_pkcs12(content: bytes, password: bytes | None, source: DataSource) -> tuple[bytes, bytes]:
    try:
        bundle = pkcs12.load_pkcs12(content, password)
    except ValueError as error:
        raise TlsContextError(f"pkcs12{_of(source)}: {error}") from None
    if bundle.key is None or bundle.cert is None:
        raise TlsContextError(f"pkcs12{_of(source)} lacks a certificate or its key")
    certificates = (bundle.cert, *bundle.additional_certs)
    chain = b"".join(one.certificate.public_bytes(Encoding.PEM) for one in certificates)
    return chain, bundle.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(source: DataSource | None, what: str) -> bytes:
    if source is None:
        raise TlsContextError(f"{what} is missing")
    try:
        return source.read()
    except OSError as error:
        raise TlsContextError(f"{what}{_of(source)} cannot be read: {error.strerror or error}") from None


def _of(source: DataSource | None) -> str:
    return f" ({source.filename})" if source is not None and source.filename else ""


def _plain(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error)
