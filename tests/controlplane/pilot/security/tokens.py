"""JSON Web Tokens of the test's own issuers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ALGORITHM = "ES256"


@lru_cache(maxsize=8)
def _key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_set(name: str) -> str:
    """The public key of that name, as a JSON Web Key Set."""
    found = jwt.algorithms.ECAlgorithm.to_jwk(_key(name).public_key(), as_dict=True)
    return json.dumps({"keys": [{**found, "kid": name, "alg": ALGORITHM, "use": "sig"}]})


def token(claims: Mapping[str, Any], key: str = "one", *, seconds: float = 3600) -> str:
    """A token signed by the key of that name, which ends after so many seconds."""
    return jwt.encode({**claims, "exp": int(time.time() + seconds)}, _key(key), ALGORITHM, {"kid": key})


def authentication(*rules: Mapping[str, Any]) -> dict[str, Any]:
    """A RequestAuthentication of these rules."""
    return {"kind": "RequestAuthentication", "jwtRules": list(rules)}
