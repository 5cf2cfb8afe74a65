"""An authority that an operator gives: an intermediate (or a root) of their own, in the files of Istio's `cacerts`.

Source: Istio, "Plug in CA Certificates": ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem.
"""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from controlplane.citadel.signers import PrivateKey, Signer, load_key

CERTIFICATE: Final = "ca-cert.pem"
KEY: Final = "ca-key.pem"
CHAIN: Final = "cert-chain.pem"
ROOT: Final = "root-cert.pem"
_SHORTEST_RSA: Final = 2048
_LONGEST_CHAIN: Final = 8


class InvalidAuthority(ValueError):
    """The files cannot be used: says which, why, and what to do."""


def read_authority(directory: Path, passphrase: str, trust_domain: str) -> tuple[Signer, tuple[x509.Certificate, ...]]:
    """The signer in ``directory``, and all roots of its root-cert.pem. Raises InvalidAuthority."""
    certificate = _certificates(directory / CERTIFICATE)[0]
    roots = _certificates(directory / ROOT)
    between = _certificates(directory / CHAIN) if (directory / CHAIN).exists() else []
    key = _key(directory / KEY, passphrase)
    if key.public_key() != certificate.public_key():
        raise InvalidAuthority(f"{directory / KEY}: is not the key of {CERTIFICATE}")
    chain = _chain(directory, certificate, between, roots)
    for one in chain:
        _judge(directory, one, trust_domain)
    return Signer(chain, key), tuple(roots)


def read_secret_file(path: Path) -> bytes:
    """A file that nobody but its owner may read. Raises InvalidAuthority."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                raise InvalidAuthority(
                    f"{path}: others than its owner may read it: chmod 600 (in Kubernetes, defaultMode: 0400)"
                )
            return file.read(1 << 20)
    except OSError as error:
        raise InvalidAuthority(f"{path}: cannot be read: {error.strerror or error}") from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise InvalidAuthority(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise InvalidAuthority(f"{path}: has no certificates in PEM") from None


def _key(path: Path, passphrase: str) -> PrivateKey:
    content = read_secret_file(path)
    try:
        if b"ENCRYPTED" not in content:
            key = load_key(content)
        elif passphrase:
            key = load_key(content, passphrase.encode())
        else:
            raise InvalidAuthority(
                f"{path}: is encrypted: give its passphrase by --ca-passphrase-file or MIZZEN_CA_PASSPHRASE"
            )
    except InvalidAuthority:
        raise
    except Exception:  # of many kinds, and their texts may have parts of the key
        wrong = "the passphrase is wrong, or " if passphrase else ""
        raise InvalidAuthority(f"{path}: {wrong}there is no private key in PEM (PKCS#8), ECDSA or RSA") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _SHORTEST_RSA:
        raise InvalidAuthority(f"{path}: an RSA key of {key.key_size} bits is too weak: use ECDSA on P-256")
    return key


def _chain(
    directory: Path, certificate: x509.Certificate, between: list[x509.Certificate], roots: list[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """From the one that signs to a root, each signed by the next."""
    chain = [certificate]
    while chain[-1] not in roots and len(chain) < _LONGEST_CHAIN:
        above = next((one for one in (*roots, *between) if one != chain[-1] and _issued_by(chain[-1], one)), None)
        if above is None:
            raise InvalidAuthority(
                f"{directory / CHAIN}: has nothing between {chain[-1].subject.rfc4514_string()} and the roots in {ROOT}"
            )
        chain.append(above)
    if chain[-1] not in roots:
        raise InvalidAuthority(f"{directory / CHAIN}: does not end at a root in {ROOT}")
    return tuple(chain)


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # another name, another key, or a kind of signature that is not known
        return False
    return True


def _judge(directory: Path, certificate: x509.Certificate, trust_domain: str) -> None:
    name = f"{directory}: {certificate.subject.rfc4514_string()}"
    now = datetime.datetime.now(datetime.UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise InvalidAuthority(
            f"{name} is good from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}: not now"
        )
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca:
            raise InvalidAuthority(f"{name} is no certificate authority's: its basic constraints say CA:FALSE")
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.key_cert_sign:
            raise InvalidAuthority(f"{name} may not sign certificates: its key usage lacks keyCertSign")
    except x509.ExtensionNotFound as error:
        raise InvalidAuthority(f"{name} lacks an extension that an authority has: {error}") from None
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith("spiffe://") and uri.rstrip("/") != f"spiffe://{trust_domain}":
            raise InvalidAuthority(
                f"{name} is of {uri}, and the mesh's trust domain is {trust_domain}: see --trust-domain"
            )
