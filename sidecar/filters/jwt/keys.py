"""Keys that verify tokens: a JSON Web Key Set read, and signatures checked by the keys that fit.

A key verifies only by the algorithms of its type: an RSA key never serves as a secret, a curve goes with one algorithm.
Source: RFC 7517 (JWK), RFC 7518 (JWA), RFC 8037 (EdDSA), and Envoy's ``jwt_authn``, which also takes a map from key ids to
certificates.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sidecar.filters.jwt.status import ED25519_LENGTH, NO_KEY_MATCHES, OK, VERIFICATION_FAILS, Status
from sidecar.filters.jwt.token import Token, decode_base64url, read_object

Verify = Callable[[bytes, bytes], bool]
"""``verify(signature, signed)``: whether the signature is this key's."""

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Final[Mapping[str, tuple[str, type[ec.EllipticCurve], int]]] = {
    "P-256": ("ES256", ec.SECP256R1, 32),
    "P-384": ("ES384", ec.SECP384R1, 48),
    "P-521": ("ES512", ec.SECP521R1, 66),
}
_CURVE_OF: Final = {algorithm: name for name, (algorithm, _, _) in _CURVES.items()}
_EXPONENTS: Final = (3, 65537)
_ED25519_SIGNATURE: Final = 64
_MOST_KEYS: Final = 512
_MOST_MARKS: Final = 1 << 13
_MOST_TRIALS: Final = 16
"""How many keys a token is tried with: a signature takes up to 0.4 ms. Issuers with more keys name them by ids."""
_PIECE: Final = 32
"""How many keys are read at a stretch: each takes up to 0.1 ms."""
_BEGIN, _END = "-----BEGIN CERTIFICATE-----\n", "\n-----END CERTIFICATE-----\n"


class Key:
    """One key, with what it verifies by algorithm. ``alg`` is empty where the key names none."""

    __slots__ = ("alg", "kid", "verify")

    def __init__(self, kid: str, alg: str, verify: Mapping[str, Verify]) -> None:
        self.kid = kid
        self.alg = alg
        self.verify = verify

    def __repr__(self) -> str:
        return f"<Key {self.kid!r} for {self.alg or ', '.join(self.verify)}>"


class KeySet:
    """The keys of one provider. ``source`` is the text that they were read from, to tell one set from another."""

    __slots__ = ("keys", "source")

    def __init__(self, keys: tuple[Key, ...], source: bytes) -> None:
        self.keys = keys
        self.source = source

    def verify(self, token: Token) -> Status:
        """Whether one of the keys has signed the token: by its key id where both name one, and by its algorithm."""
        kid, alg = token.kid, token.alg
        outcome = NO_KEY_MATCHES
        trials = _MOST_TRIALS
        for key in self.keys:
            if (kid and key.kid and key.kid != kid) or (key.alg and key.alg != alg):
                continue
            outcome = VERIFICATION_FAILS
            verify = key.verify.get(alg)
            if verify is None:
                continue
            if alg == "EdDSA" and len(token.signature) != _ED25519_SIGNATURE:
                return ED25519_LENGTH
            if verify(token.signature, token.signed):
                return OK
            trials -= 1
            if not trials:
                break
        return outcome

    def __repr__(self) -> str:
        return f"<KeySet {self.keys!r}>"


def read_keys(text: bytes) -> KeySet:
    """The keys of a JWKS that can be used. Raises ValueError, without any part of the text, when there is none."""
    reading = read_keys_in_pieces(text)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            keys: KeySet = end.value
            return keys


def read_keys_in_pieces(text: bytes) -> Generator[None, None, KeySet]:
    """As ``read_keys``, some keys at a time, for those who have other things to do in between."""
    document = read_object(text, _MOST_MARKS)
    if document is None:
        raise ValueError("is an invalid JSON")
    listed = document.get("keys")
    read: Callable[[Mapping[str, Any]], Key]
    found: list[Mapping[str, Any]]
    if "keys" not in document:
        read, found = _read_certificate, _certificates(document)
    elif not isinstance(listed, list):
        raise ValueError("has [keys] that is not an array")
    else:
        read, found = _read_key, [one for one in listed if isinstance(one, dict) and one.get("use", "sig") == "sig"]
    if len(found) > _MOST_KEYS:
        raise ValueError(f"has more than {_MOST_KEYS} keys")
    keys, wrong = [], ""
    for number, one in enumerate(found, 1):
        try:
            keys.append(read(one))
        except (ValueError, UnsupportedAlgorithm) as error:
            wrong = wrong or (str(error) if isinstance(error, ValueError) else "has a key of an unknown kind")
            if "keys" not in document:
                raise ValueError(wrong) from None
        if not number % _PIECE:
            yield
    if not keys:
        raise ValueError(f"doesn't have any valid public key{': ' if wrong else ''}{wrong}")
    return KeySet(tuple(keys), text)


def _read_key(key: Mapping[str, Any]) -> Key:
    kid, alg = (value if isinstance(value := key.get(name), str) else "" for name in ("kid", "alg"))
    match key.get("kty"):
        case "RSA":
            verify = _rsa_key(key)
        case "EC":
            verify = _ec_key(key, alg)
        case "OKP":
            verify = _okp_key(key)
        case "oct":
            verify = _secret(key)
        case _:
            raise ValueError("[kty] is missing or not supported in a key")
    if alg and alg not in verify:
        raise ValueError(f"[alg] does not fit the type of a key, {key['kty']}")
    return Key(kid, alg, verify)


def _octets(key: Mapping[str, Any], name: str) -> bytes:
    value = key.get(name)
    decoded = decode_base64url(value.rstrip("=").encode()) if isinstance(value, str) else None
    if not decoded:
        raise ValueError(f"[{name}] of a key is missing or an invalid Base64url")
    return decoded


def _number(key: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(_octets(key, name), "big")


def _rsa_key(key: Mapping[str, Any]) -> dict[str, Verify]:
    exponent = _number(key, "e")
    if exponent not in _EXPONENTS:
        raise ValueError("[e] of an RSA key is neither 3 nor 65537")
    return _by_rsa(rsa.RSAPublicNumbers(exponent, _number(key, "n")).public_key())


def _by_rsa(public: rsa.RSAPublicKey) -> dict[str, Verify]:
    verify: dict[str, Verify] = {}
    for bits, digest in _HASHES.items():
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        verify[f"RS{bits}"] = _rsa_verify(public, padding.PKCS1v15(), digest)
        verify[f"PS{bits}"] = _rsa_verify(public, pss, digest)
    return verify


def _rsa_verify(public: rsa.RSAPublicKey, scheme: Any, digest: hashes.HashAlgorithm) -> Verify:
    def verify(signature: bytes, signed: bytes) -> bool:
        try:
            public.verify(signature, signed, scheme, digest)
        except InvalidSignature:
            return False
        return True

    return verify


def _ec_key(key: Mapping[str, Any], alg: str) -> dict[str, Verify]:
    curve = key.get("crv", "")
    if not isinstance(curve, str):
        raise ValueError("[crv] of an EC key is not a string")
    found = _CURVES.get(curve or _CURVE_OF.get(alg, "" if alg else "P-256"))
    if found is None:
        raise ValueError("[crv] or [alg] is not supported for an EC key")
    algorithm, curve_type, size = found
    public = ec.EllipticCurvePublicNumbers(_number(key, "x"), _number(key, "y"), curve_type()).public_key()
    scheme = ec.ECDSA(_HASHES[algorithm[2:]])

    def verify(signature: bytes, signed: bytes) -> bool:
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        try:
            public.verify(encode_dss_signature(r, s), signed, scheme)
        except InvalidSignature:
            return False
        return True

    return {algorithm: verify}


def _okp_key(key: Mapping[str, Any]) -> dict[str, Verify]:
    if key.get("crv") != "Ed25519":
        raise ValueError("[crv] is not supported for an OKP key")
    public = Ed25519PublicKey.from_public_bytes(_octets(key, "x"))

    def verify(signature: bytes, signed: bytes) -> bool:
        try:
            public.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return {"EdDSA": verify}


def _secret(key: Mapping[str, Any]) -> dict[str, Verify]:
    secret = _octets(key, "k")

    def by(digest: str) -> Verify:
        return lambda signature, signed: hmac.compare_digest(hmac.digest(secret, signed, digest), signature)

    return {f"HS{bits}": by(f"sha{bits}") for bits in _HASHES}


def _certificates(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if not document or not all(
        kid and isinstance(text, str) and text.startswith(_BEGIN) and text.endswith(_END)
        for kid, text in document.items()
    ):
        raise ValueError("does not have [keys] field")
    return [{"kid": kid, "certificate": text} for kid, text in sorted(document.items())]


def _read_certificate(one: Mapping[str, Any]) -> Key:
    try:
        public = x509.load_pem_x509_certificate(one["certificate"].encode()).public_key()
    except ValueError:
        raise ValueError("has a certificate that cannot be read") from None
    if not isinstance(public, rsa.RSAPublicKey):
        raise ValueError("has a certificate whose key is not RSA")
    return Key(one["kid"], "", _by_rsa(public))
