"""An issuer of tokens for one run: a new RSA key, its JWKS, and a token that is good for a day."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_DAY = 86400


class Issued(NamedTuple):
    """A token, and the keys that verify it."""

    token: str
    jwks: str


def issue() -> Issued:
    """A token of `https://login.example` for `shop`, signed by RS256."""
    key = rsa.generate_private_key(65537, 2048)
    numbers, now = key.public_key().public_numbers(), int(time.time())
    claims = {"iss": "https://login.example", "aud": "shop", "sub": "alice", "iat": now, "exp": now + _DAY}
    signed = f"{_json({'alg': 'RS256', 'kid': 'k', 'typ': 'JWT'})}.{_json(claims)}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    jwk = {"kty": "RSA", "kid": "k", "alg": "RS256", "n": _number(numbers.n), "e": _number(numbers.e)}
    return Issued(f"{signed}.{_base64(signature)}", json.dumps({"keys": [jwk]}))


def _json(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()
