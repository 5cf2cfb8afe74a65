"""The certificate authority: one root for a mesh, made at the first start and shared by all control planes on one store."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict, Store

ROOT_KEY = ResourceKey("_CertificateAuthority", "", "root")
_ROOT_LIFETIME = datetime.timedelta(days=3650)
_SKEW = datetime.timedelta(minutes=5)  # clocks differ: what is issued is valid a little before


class CertificateAuthority:
    """Signs with the mesh's root: ECDSA on P-256, as Istio's own CA does by default.

    ``certificate`` is the root, ``pem`` its PEM, ``hash`` the SHA-256 of its public key (SubjectPublicKeyInfo, hexadecimal):
    join tokens carry it, so that a machine that knows nothing else can tell the right control plane from another.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, trust_domain: str) -> None:
        self.certificate = certificate
        self.trust_domain = trust_domain
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.hash = public_key_hash(certificate)
        self._key = key

    @classmethod
    async def open(cls, store: Store, *, trust_domain: str = "cluster.local") -> CertificateAuthority:
        """The root that the store has, or a new one; of several control planes that start at once, one makes it."""
        stored = await store.get(ROOT_KEY)
        if stored is None:
            try:
                stored = await store.put(ROOT_KEY, _new_root(trust_domain), expected=0, who="citadel")
            except Conflict:
                stored = await store.get(ROOT_KEY)
        if stored is None:
            raise RuntimeError("the root of the certificate authority was removed from the store while it was made")
        document = json.loads(stored.document)
        key = serialization.load_pem_private_key(document["key"].encode(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise RuntimeError(f"the root's key in the store is not ECDSA but {type(key).__name__}")
        return cls(x509.load_pem_x509_certificate(document["certificate"].encode()), key, document["trustDomain"])

    def server_certificate(self, names: Sequence[str], lifetime: datetime.timedelta) -> tuple[bytes, bytes]:
        """A certificate for a server by these DNS names and addresses: its chain and a new key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = self._sign(key.public_key(), "mizzen control plane", alternatives, False, lifetime, server=True)
        return certificate.public_bytes(serialization.Encoding.PEM) + self.pem, _key_pem(key)

    def sign_workload(
        self, request: bytes, namespace: str, service_account: str, lifetime: datetime.timedelta
    ) -> tuple[bytes, datetime.datetime]:
        """A workload's certificate for the key of a signing request (PEM): its chain, PEM, and when it ends.

        Nothing of the request but its key is believed: the SPIFFE ID is of ``namespace`` and ``service_account``
        (`spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`). Raises ValueError for a bad request.
        """
        try:
            signing_request = x509.load_pem_x509_csr(request)
        except ValueError:
            raise ValueError("not a certificate signing request in PEM") from None
        key = signing_request.public_key()
        if not signing_request.is_signature_valid:
            raise ValueError("the certificate signing request is not signed by its own key")
        if isinstance(key, rsa.RSAPublicKey):
            if key.key_size < 2048:
                raise ValueError("RSA keys of less than 2048 bits are not certified: use ECDSA on P-256")
        elif not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("only ECDSA and RSA keys are certified: use ECDSA on P-256")
        identity = f"spiffe://{self.trust_domain}/ns/{namespace}/sa/{service_account}"
        # The subject is empty, so the alternative name is critical (X.509-SVID section 2, RFC 5280 section 4.2.1.6).
        certificate = self._sign(
            key, None, x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), True, lifetime
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + self.pem, certificate.not_valid_after_utc

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        common_name: str | None,
        alternatives: x509.SubjectAlternativeName,
        critical: bool,
        lifetime: datetime.timedelta,
        server: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        if not server:
            usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(min(now + lifetime, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certificate_sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(alternatives, critical=critical)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def public_key_hash(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's SubjectPublicKeyInfo, hexadecimal: the form that kubeadm made common for joining."""
    return hashlib.sha256(
        certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).hexdigest()


def _new_root(trust_domain: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(certificate_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    document = {
        "trustDomain": trust_domain,
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "key": _key_pem(key).decode(),
    }
    return json.dumps(document).encode()


def _usage(*, certificate_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificate_sign,
        crl_sign=certificate_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
