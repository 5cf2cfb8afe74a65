"""The trust bundle: what a workload believes others by. Source: SPIFFE Trust Domain and Bundle, section 4."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """``roots`` and ``crl`` are PEM, one or more one after the other (``crl`` empty for none), the others of the name in DER.
    ``jwks`` is the JWK set of those who sign JWT-SVIDs. ``version`` is the control plane's word, empty if it has said none.
    Whose certificate is not under the first of the roots renews it within ``renew_within`` seconds, if that is not 0.
    """

    trust_domain: str
    version: str
    roots: bytes
    roots_der: bytes
    crl: bytes
    crl_der: tuple[bytes, ...]
    jwks: str
    renew_within: float = 0.0

    @property
    def spiffe_id(self) -> str:
        """Of the trust domain."""
        return f"spiffe://{self.trust_domain}"

    @property
    def digest(self) -> str:
        """Of what the proxies get of it."""
        return hashlib.sha256(self.roots + b"\0" + self.crl).hexdigest()[:16]

    def extends(self, other: TrustBundle) -> bool:
        """Whether all roots of another bundle are of this one, which the control plane has told."""
        if not self.version or self.trust_domain != other.trust_domain:
            return False
        known = x509.load_pem_x509_certificates(self.roots)
        return all(root in known for root in x509.load_pem_x509_certificates(other.roots))

    def leads_to_first_root(self, chain: bytes) -> bool:
        """Whether a certificate chain (PEM, without its root) ends below the first of the roots."""
        root = x509.load_pem_x509_certificates(self.roots)[0]
        try:
            x509.load_pem_x509_certificates(chain)[-1].verify_directly_issued_by(root)
        except Exception:  # another name, another key, or a kind of signature that is not known
            return False
        return True

    def document(self) -> bytes:
        """As the control plane tells it, and as it is kept."""
        return json.dumps(
            {
                "trustDomain": self.trust_domain,
                "version": self.version,
                "roots": self.roots.decode(),
                "crl": self.crl.decode(),
                "jwks": json.loads(self.jwks),
                "renewWithin": self.renew_within,
            }
        ).encode()

    def __repr__(self) -> str:
        count = self.roots.count(b"BEGIN CERTIFICATE")
        return f"<bundle {self.version or 'of root.pem'} of {self.trust_domain}: {count} roots>"


def parse_bundle(document: Any, trust_domain: str) -> TrustBundle:
    """The answer of `/mizzen/v1/trust-bundle`. Raises ValueError, with the field, for what is none of ``trust_domain``."""
    if not isinstance(document, dict):
        raise ValueError("the trust bundle is not an object")
    if document.get("trustDomain") != trust_domain:
        raise ValueError(
            f"trustDomain: the bundle is of {document.get('trustDomain')!r}, the workload is of {trust_domain!r}"
        )
    version = document.get("version", "")
    values = {
        "version": str(version) if type(version) is int else version,
        **{field: document.get(field, "") for field in ("roots", "crl")},
    }
    for field, value in values.items():
        if not isinstance(value, str):
            raise ValueError(f"{field}: is not a text")
    jwks = document.get("jwks") or {"keys": []}
    if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
        raise ValueError("jwks: is not a JWK set")
    within = document.get("renewWithin", 0.0)
    if isinstance(within, bool) or not isinstance(within, int | float) or not 0 <= within < 1e9:
        raise ValueError("renewWithin: is not a number of seconds")
    made = _bundle(trust_domain, values["version"], values["roots"].encode(), values["crl"].encode(), jwks)
    return replace(made, renew_within=float(within))


def bundle_of_root(root: bytes, trust_domain: str) -> TrustBundle:
    """What a workload knows that has but joined: the root, PEM. Raises ValueError."""
    return _bundle(trust_domain, "", root, b"", {"keys": []})


def _bundle(trust_domain: str, version: str, roots: bytes, crl: bytes, jwks: Any) -> TrustBundle:
    try:
        certificates = x509.load_pem_x509_certificates(roots)
    except ValueError:
        raise ValueError("roots: are not certificates in PEM") from None
    return TrustBundle(
        trust_domain,
        version,
        b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates),
        b"".join(one.public_bytes(serialization.Encoding.DER) for one in certificates),
        crl,
        tuple(_revocations(crl)),
        json.dumps(jwks),
    )


def _revocations(crl: bytes) -> list[bytes]:
    found = []
    end = b"-----END X509 CRL-----"
    for part in crl.split(end)[:-1]:
        try:
            found.append(x509.load_pem_x509_crl(part.lstrip() + end + b"\n").public_bytes(serialization.Encoding.DER))
        except ValueError:
            raise ValueError("crl: is not a revocation list in PEM") from None
    if crl.strip() and not found:
        raise ValueError("crl: is not a revocation list in PEM")
    return found
