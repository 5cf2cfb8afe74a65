"""Certificate signing requests: what is certified, what is refused, and that nothing of them is taken over."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controlplane.citadel.citadel import Citadel
from controlplane.citadel.requests import judged_key
from controlplane.model.certificates import InvalidRequest, NotAllowed
from tests.controlplane.citadel.test_issuing import REVIEWS, SPIFFE_ID, leaf_of, with_citadel

KEY = ec.generate_private_key(ec.SECP256R1())


def request(*extensions: x509.ExtensionType, key: object = KEY, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    hash_ = None if isinstance(key, ed25519.Ed25519PrivateKey) else algorithm or hashes.SHA256()
    return builder.sign(key, hash_).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def names(*uris: str, dns: tuple[str, ...] = ()) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([
        *map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns),
    ])  # fmt: skip


def forged() -> bytes:
    """A request whose key was exchanged after it was signed."""
    der = x509.load_pem_x509_csr(request()).public_bytes(serialization.Encoding.DER)
    point = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    other = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*point)
    changed = der.replace(KEY.public_key().public_bytes(*point), other)
    assert changed != der
    return x509.load_der_x509_csr(changed).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "key",
    [KEY, ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-256", "P-384", "RSA 2048"],
)
def test_keys_that_are_certified(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    assert judged_key(request(key=key), SPIFFE_ID) == key.public_key()
    assert judged_key(request(names(SPIFFE_ID), key=key), SPIFFE_ID) == key.public_key()


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (b"", InvalidRequest, "not a certificate signing request"),
        (b"\xff" * 100, InvalidRequest, "not a certificate signing request"),
        (request()[:-60], InvalidRequest, "not a certificate signing request"),
        (request() + b"x" * 40_000, InvalidRequest, "larger than"),
        (forged(), InvalidRequest, "not signed by its own key"),
        (request(key=rsa.generate_private_key(65537, 1024)), InvalidRequest, "RSA key of 1024 bits"),
        (request(key=rsa.generate_private_key(3, 2048)), InvalidRequest, "exponent that is not usual"),
        (request(key=ec.generate_private_key(ec.SECP521R1())), InvalidRequest, "secp521r1"),
        (request(key=ec.generate_private_key(ec.SECP256K1())), InvalidRequest, "secp256k1"),
        (request(key=ed25519.Ed25519PrivateKey.generate()), InvalidRequest, "Edwards"),
        (request(names("spiffe://cluster.local/ns/shop/sa/page")), NotAllowed, "asks for 'spiffe.*page'"),
        (request(names(SPIFFE_ID, "spiffe://cluster.local/ns/shop/sa/page")), NotAllowed, "page"),
        (request(names(SPIFFE_ID, dns=("bank.example",))), NotAllowed, "bank.example"),
        (request(names("spiffe://CLUSTER.LOCAL/ns/shop/sa/reviews")), NotAllowed, "CLUSTER"),
        (request(x509.BasicConstraints(ca=True, path_length=None)), NotAllowed, "certificate authority"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_requests_that_are_refused(content: bytes, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        judged_key(content, SPIFFE_ID)


def test_nothing_of_a_request_is_taken_over(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        wishes = (
            names(SPIFFE_ID),
            x509.KeyUsage(True, True, True, True, True, True, True, False, False),
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]),
            x509.NameConstraints([x509.DNSName("example")], None),
        )
        chain = await citadel.issuance.certify(REVIEWS, request(*wishes), lifetime=None, source="")
        leaf = leaf_of(chain)
        assert leaf.subject == x509.Name([]) and leaf.public_key() == KEY.public_key()
        assert sorted(extension.oid._name for extension in leaf.extensions) == [
            "authorityKeyIdentifier", "basicConstraints", "extendedKeyUsage", "keyUsage", "subjectAltName",
            "subjectKeyIdentifier",
        ]  # fmt: skip
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical and usage.value.digital_signature
        assert not (usage.value.key_cert_sign or usage.value.crl_sign or usage.value.key_encipherment)
        assert x509.ExtendedKeyUsageOID.CODE_SIGNING not in (
            leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        )
        (tmp_path / "chain.pem").write_bytes(chain)
        (tmp_path / "root.pem").write_bytes(citadel.authority.pem)

    with_citadel(tmp_path, test)
    if shutil.which("openssl") is not None:
        verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "root.pem", "chain.pem"]
        done = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert done.stdout.strip() == "chain.pem: OK", done.stderr
