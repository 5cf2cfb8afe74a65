"""What certificates are signed by: a root of our own, or an intermediate under somebody's root, with the private key."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SKEW: Final = datetime.timedelta(minutes=5)  # clocks differ: what is issued is valid a little before
ROOT_LIFETIME: Final = datetime.timedelta(days=3650)
KEY_TYPES: Final = ("ecdsa", "rsa")

_RSA_BITS: Final = 3072  # as strong as P-256; 4096 bits take longer than a slice of the loop may


@dataclass(frozen=True)
class Signer:
    """An authority's certificate with those above it, the root last, and its key, None if that is not known here: then what
    it has signed is believed, and it signs no more.
    """

    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey | None = field(repr=False, compare=False)

    @property
    def issuer(self) -> x509.Certificate:
        """The certificate that signs."""
        return self.certificates[0]

    @property
    def root(self) -> x509.Certificate:
        """What those who verify trust."""
        return self.certificates[-1]

    @cached_property
    def id(self) -> str:
        """SHA-256 of the certificate that signs, hexadecimal."""
        return self.issuer.fingerprint(hashes.SHA256()).hex()

    @cached_property
    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """How those whom it certifies name its key."""
        try:
            own = self.issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            own = x509.SubjectKeyIdentifier.from_public_key(self.issuer.public_key())  # type: ignore[arg-type]
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    @cached_property
    def ends(self) -> datetime.datetime:
        """When the first of the certificates ends: nothing that is signed is good for longer."""
        return min(certificate.not_valid_after_utc for certificate in self.certificates)

    @cached_property
    def chain(self) -> bytes:
        """All certificates, PEM: what follows a workload's own."""
        return b"".join(map(pem, self.certificates))


def new_root(
    trust_domain: str, key_type: str = "ecdsa", lifetime: datetime.timedelta = ROOT_LIFETIME, *, named: bool = False
) -> Signer:
    """A root of our own that signs workloads' certificates itself: ECDSA on P-256, or RSA. Its name alternative is the trust
    domain, as a signing certificate's should be (SPIFFE X509-SVID section 4.1). A ``named`` one has a name of its own: there
    is another of the trust domain.
    """
    key: PrivateKey
    if key_type == "rsa":
        key = rsa.generate_private_key(65537, _RSA_BITS)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)]
    if named:
        digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, f"root {digest[:8]}"))
    name = x509.Name(names)
    domain = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([domain]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Signer((certificate,), key)


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """As strong as the key."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Of an authority, or of everybody else (SPIFFE X509-SVID section 4.3)."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def public_key_hash(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's SubjectPublicKeyInfo, hexadecimal: the form that kubeadm made common for joining."""
    return hashlib.sha256(
        certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).hexdigest()


def pem(certificate: x509.Certificate) -> bytes:
    """PEM of a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey) -> bytes:
    """PKCS#8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(content: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """A private key in PEM. Raises ValueError or TypeError, as cryptography does, and ValueError for another kind of key."""
    key = serialization.load_pem_private_key(content, passphrase)
    if not isinstance(key, PrivateKey):
        raise ValueError(f"an authority's key is ECDSA or RSA, not {type(key).__name__}")
    return key
