"""A workload's certificate and key. Source: SPIFFE X.509-SVID, sections 2 to 4."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})/([A-Za-z0-9._/-]+)")


@dataclass(frozen=True, slots=True, repr=False)
class Svid:
    """``chain`` is PEM, leaf first, without the root; ``der`` the same in DER. ``not_after`` and ``not_before`` are seconds
    since 1970. Its repr has no key.
    """

    spiffe_id: str
    trust_domain: str
    serial: str
    not_before: float
    not_after: float
    chain: bytes
    der: bytes
    key: bytes
    key_der: bytes = field(compare=False)

    def __repr__(self) -> str:
        return f"<{self.spiffe_id} serial {self.serial}>"


def parse_svid(chain: bytes, key: bytes) -> Svid:
    """Certificate chain and key, PEM. Raises ValueError if they are not one another's, or no workload's."""
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise ValueError("the certificate chain is not PEM") from None
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise ValueError("the key is not PEM, or encrypted") from None
    leaf = certificates[0]
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("the key is neither ECDSA nor RSA")
    if _public(private.public_key()) != _public(_key_of(leaf)):
        raise ValueError("the key is not the certificate's")
    spiffe_id = _identity(leaf)
    kept = [
        certificate for certificate in certificates if certificate.subject != certificate.issuer or certificate is leaf
    ]
    return Svid(
        spiffe_id=spiffe_id,
        trust_domain=spiffe_id.split("/")[2],
        serial=f"{leaf.serial_number:x}",
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        chain=b"".join(one.public_bytes(serialization.Encoding.PEM) for one in kept),
        der=b"".join(one.public_bytes(serialization.Encoding.DER) for one in kept),
        key=key,
        key_der=private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def new_key() -> tuple[bytes, str]:
    """A new ECDSA key on P-256 and a signing request for it, both PEM. The request asks for no name: who asks is known."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, request.public_bytes(serialization.Encoding.PEM).decode()


def workload_of(spiffe_id: str) -> tuple[str, str]:
    """Namespace and service account of `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`. Raises ValueError."""
    parts = spiffe_id.split("/")
    if len(parts) != 7 or parts[3] != "ns" or parts[5] != "sa":
        raise ValueError(f"{spiffe_id} is not of the form spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT")
    return parts[4], parts[6]


def identity_of(chain: bytes) -> str:
    """The SPIFFE ID of a certificate chain, PEM. Raises ValueError."""
    return _identity(x509.load_pem_x509_certificates(chain)[0])


def _identity(leaf: x509.Certificate) -> str:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate has no SPIFFE ID") from None
    except x509.DuplicateExtension:
        raise ValueError("the certificate has an extension twice") from None
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(found) != 1 or not _SPIFFE_ID.fullmatch(found[0]):
        raise ValueError("the certificate must have one URI name, a SPIFFE ID")
    return found[0]


def _key_of(leaf: x509.Certificate) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        key = leaf.public_key()
    except UnsupportedAlgorithm:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise ValueError("the certificate's key is neither ECDSA nor RSA")
    return key


def _public(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
