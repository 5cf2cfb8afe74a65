"""The roots (and revocation lists) of each trust domain, as the configuration names them: `SPIFFECertValidatorConfig`.

Source: the SPIFFE Trust Domain and Bundle specification for the JSON form, of which only keys for X.509-SVIDs are read.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.config.tls_sources import DataSource
from sidecar.config.tls_spiffe import SpiffeValidator
from sidecar.transport.failures import TlsContextError
from sidecar.transport.identity import UNREADABLE

_PEM: Final = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----.+?-----END \1-----", re.DOTALL)
_FOR_X509: Final = "x509-svid"


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """What certificates of one trust domain are verified against."""

    roots: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...] = ()

    @property
    def pems(self) -> list[bytes]:
        """The roots, each in PEM."""
        return [root.public_bytes(Encoding.PEM).rstrip() for root in self.roots]


def load_bundles(validator: SpiffeValidator) -> dict[str, TrustBundle]:
    """The bundles by trust domain, as they are now. Raises TlsContextError."""
    if validator.trust_bundles is not None:
        return _from_map(validator.trust_bundles)
    return {domain: _from_pem(domain, source) for domain, source in validator.trust_domains}


def _from_pem(domain: str, source: DataSource) -> TrustBundle:
    where = f"the trust_bundle of {domain}{_of(source)}"
    roots: list[x509.Certificate] = []
    crls: list[x509.CertificateRevocationList] = []
    for found in _PEM.finditer(_read(source, where)):
        try:
            if found[1] == b"CERTIFICATE":
                roots.append(x509.load_pem_x509_certificate(found[0]))
            else:
                crls.append(x509.load_pem_x509_crl(found[0]))
        except UNREADABLE as error:
            raise TlsContextError(f"{where} cannot be understood: {error}") from None
    if not roots:
        raise TlsContextError(f"{where} holds no certificate in PEM")
    return TrustBundle(tuple(roots), tuple(crls))


def _from_map(source: DataSource) -> dict[str, TrustBundle]:
    where = f"trust_bundles{_of(source)}"
    try:
        domains = orjson.loads(_read(source, where))["trust_domains"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        domains = None
    if not isinstance(domains, dict) or not domains:
        raise TlsContextError(f'{where} is not JSON with an object called "trust_domains" that names any')
    return {domain: _from_keys(bundle, f"{domain} in {where}") for domain, bundle in domains.items()}


def _from_keys(bundle: Any, where: str) -> TrustBundle:
    keys = bundle.get("keys") if isinstance(bundle, dict) else None
    if not isinstance(keys, list):
        raise TlsContextError(f'{where} has no list called "keys"')
    roots: list[x509.Certificate] = []
    for key in keys:
        if not isinstance(key, dict) or key.get("use") != _FOR_X509:
            continue  # of JWT-SVIDs, or of a kind that is still to be invented
        chain = key.get("x5c")
        if not isinstance(chain, list) or not chain:
            raise TlsContextError(f'{where} has a key for {_FOR_X509} without "x5c"')
        for text in chain:
            try:
                roots.append(x509.load_der_x509_certificate(base64.b64decode(text, validate=True)))
            except (*UNREADABLE, binascii.Error, TypeError) as error:
                raise TlsContextError(f"{where} has a certificate that cannot be understood: {error}") from None
    if not roots:
        raise TlsContextError(f"{where} has no key for {_FOR_X509}: nobody could be verified")
    return TrustBundle(tuple(roots))


def _read(source: DataSource, where: str) -> bytes:
    try:
        return source.read()
    except OSError as error:
        raise TlsContextError(f"{where} cannot be read: {error.strerror or error}") from None


def _of(source: DataSource) -> str:
    return f" ({source.filename})" if source.filename else ""
