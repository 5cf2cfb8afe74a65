"""Certificate signing requests, judged: their key and their signature, and what they ask for. Nothing of them but the key is
ever taken over into a certificate.

Source: RFC 2986 (the request), SPIFFE X509-SVID sections 2 and 4.
"""

from __future__ import annotations

from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from controlplane.model.certificates import InvalidRequest, NotAllowed
from controlplane.model.values import dns_label_complaint, dns_subdomain_complaint

CertifiedKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_E = TypeVar("_E", bound=x509.ExtensionType)

_FIELD: Final = "certificateSigningRequest"
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_SHORTEST_RSA: Final = 2048
_LONGEST_RSA: Final = 8192  # longer ones cost everybody who verifies them more than they are worth
_LARGEST: Final = 32 * 1024
_WEAK_HASHES: Final = frozenset(("md5", "sha1"))
_ADVICE: Final = "use ECDSA on P-256"


def judge_account(namespace: str, service_account: str) -> None:
    """Raises InvalidRequest for names that Kubernetes does not have: in a SPIFFE ID some of them would mean something else
    (section 2.2: no segment is `.` or `..`).
    """
    for field, complaint in (
        ("namespace", dns_label_complaint(namespace)),
        ("serviceAccount", dns_subdomain_complaint(service_account)),
    ):
        if complaint:
            raise InvalidRequest(field, complaint)


def judged_key(request: bytes, identity: str) -> CertifiedKey:
    """The key of a request (PEM) that may be certified for the SPIFFE ID ``identity``.

    Raises InvalidRequest for a request that is none, is not signed by its own key, or has a key that is not certified, and
    NotAllowed if it asks for another identity or to be an authority. A request that names no identity is fine.
    """
    if len(request) > _LARGEST:
        raise InvalidRequest(_FIELD, f"is larger than {_LARGEST} bytes")
    try:
        asked = x509.load_pem_x509_csr(request)
        key = asked.public_key()
        hash_ = asked.signature_hash_algorithm
    except Exception:  # parsers of hostile input raise of many kinds
        raise InvalidRequest(
            _FIELD, "not a certificate signing request in PEM, or of a key that is not known"
        ) from None
    _judge_key(key)
    if hash_ is not None and hash_.name in _WEAK_HASHES:
        raise InvalidRequest(_FIELD, f"is signed with {hash_.name.upper()}: use SHA-256")
    try:
        signed = asked.is_signature_valid
    except Exception:
        signed = False
    if not signed:
        raise InvalidRequest(_FIELD, "the certificate signing request is not signed by its own key")
    _judge_wishes(asked, identity)
    assert isinstance(key, CertifiedKey)
    return key


def _judge_key(key: object) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        if not _SHORTEST_RSA <= key.key_size <= _LONGEST_RSA:
            raise InvalidRequest(
                _FIELD,
                f"has an RSA key of {key.key_size} bits; those of {_SHORTEST_RSA} to {_LONGEST_RSA} are certified: "
                f"{_ADVICE}",
            )
        if (
            not 65537 <= key.public_numbers().e < 1 << 32
        ):  # large ones cost everybody who verifies, and BoringSSL takes none
            raise InvalidRequest(_FIELD, f"has an RSA key with an exponent that is not usual: {_ADVICE}")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise InvalidRequest(_FIELD, f"has a key on the curve {key.curve.name}: {_ADVICE}")
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        raise InvalidRequest(_FIELD, f"has a key on an Edwards curve, which Envoy does not take: {_ADVICE}")
    else:
        raise InvalidRequest(_FIELD, f"has a key of a kind that is not certified (only ECDSA and RSA are): {_ADVICE}")


def _judge_wishes(asked: x509.CertificateSigningRequest, identity: str) -> None:
    try:
        extensions = asked.extensions
        names = _found(extensions, x509.SubjectAlternativeName)
        constraints = _found(extensions, x509.BasicConstraints)
    except Exception:
        raise InvalidRequest(_FIELD, "asks for extensions that cannot be read") from None
    if constraints is not None and constraints.ca:
        raise NotAllowed("the request asks to be a certificate authority: workloads are not certified as such")
    for name in names or ():
        if not isinstance(name, x509.UniformResourceIdentifier) or name.value != identity:
            wish = str(name.value)[:256]
            raise NotAllowed(
                f"the request asks for {wish!r}, and the caller is {identity}: ask for that, or for nothing"
            )


def _found(extensions: x509.Extensions, kind: type[_E]) -> _E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
