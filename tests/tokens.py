"""Issuers of tokens for tests: keys of every type, their JWKS, and tokens signed with them, good or altered.

Signing is done here with plain ``cryptography`` and nothing of ours, so that what is wrong in a token is wrong on purpose.
"""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {
    "ES256": (ec.SECP256R1(), "P-256", 32),
    "ES384": (ec.SECP384R1(), "P-384", 48),
    "ES512": (ec.SECP521R1(), "P-521", 66),
}
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),
    *("HS256", "HS384", "HS512", "EdDSA"),
)


def b64(octets: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key(name: str, algorithm: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(_CURVES[algorithm][0])


@cache
def ed_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def secret(name: str) -> bytes:
    return f"the secret of {name}, which is long enough to be one for SHA-512 even".encode()


def jwk(name: str, algorithm: str, **fields: Any) -> dict[str, Any]:
    """The public half of the key called ``name`` for this algorithm (the whole of a secret), with ``fields`` besides."""
    match algorithm[:2]:
        case "RS" | "PS":
            public = rsa_key(name).public_key().public_numbers()
            key = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        case "ES":
            _, curve, size = _CURVES[algorithm]
            point = ec_key(name, algorithm).public_key().public_numbers()
            key = {"kty": "EC", "crv": curve, "x": number(point.x, size), "y": number(point.y, size)}
        case "Ed":
            key = {"kty": "OKP", "crv": "Ed25519", "x": b64(ed_key(name).public_key().public_bytes_raw())}
        case _:
            key = {"kty": "oct", "k": b64(secret(name))}
    return {**key, **fields}


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def signature(name: str, algorithm: str, signed: bytes) -> bytes:
    digest = _HASHES.get(algorithm[2:])
    match algorithm[:2]:
        case "RS":
            assert digest is not None
            return rsa_key(name).sign(signed, padding.PKCS1v15(), digest)
        case "PS":
            assert digest is not None
            return rsa_key(name).sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        case "ES":
            assert digest is not None
            size = _CURVES[algorithm][2]
            r, s = decode_dss_signature(ec_key(name, algorithm).sign(signed, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        case "Ed":
            return ed_key(name).sign(signed)
    return hmac.digest(secret(name), signed, f"sha{algorithm[2:]}")


def assemble(header: Any, payload: Any, name: str, algorithm: str) -> str:
    """A token of these parts (JSON values, or bytes as they are), signed with the key of this name."""
    parts = [b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)]
    signed = ".".join(parts)
    return f"{signed}.{b64(signature(name, algorithm, signed.encode()))}"


def token(
    name: str = "one", algorithm: str = "RS256", /, *, header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """A good token: of issuer ``name``, for an hour, with ``claims`` in the stead of the usual ones (None: without)."""
    now = int(time.time())
    payload = {"iss": name, "sub": "alice", "aud": "web", "iat": now, "exp": now + 3600, **claims}
    payload = {claim: value for claim, value in payload.items() if value is not None}
    return assemble({"alg": algorithm, "typ": "JWT", **(header or {})}, payload, name, algorithm)


def altered(text: str, part: int, change: Any) -> str:
    """The token with one part of it changed after it was signed."""
    parts = text.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)
