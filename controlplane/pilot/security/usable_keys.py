"""Which keys of a JWKS proxies can verify with: a set without any would make them refuse the listener as a whole.

Source: RFC 7517, RFC 7518 section 6, RFC 8037; https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/jwt_authn_filter
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_CURVES: Mapping[str, tuple[ec.EllipticCurve, str, int]] = {
    "P-256": (ec.SECP256R1(), "ES256", 32),
    "P-384": (ec.SECP384R1(), "ES384", 48),
    "P-521": (ec.SECP521R1(), "ES512", 66),
}


def usable_keys(text: str) -> str:
    """The set as it is, if all of its keys can be used; one of those that can; "" if none can."""
    keys = json.loads(text)["keys"]
    usable = [key for key in keys if _is_usable(key)]
    if len(usable) == len(keys):
        return text if keys else ""
    return json.dumps({"keys": usable}) if usable else ""


def _is_usable(key: Any) -> bool:
    if not isinstance(key, Mapping) or not all(
        isinstance(key.get(name, ""), str) for name in ("kty", "alg", "kid", "use")
    ):
        return False
    judge = _KINDS.get(key.get("kty", ""))
    try:
        return judge is not None and judge(key, key.get("alg", ""))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return False


def _bytes(key: Mapping[str, Any], name: str) -> bytes:
    text: str = key[name]
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), b"-_", validate=True)


def _rsa(key: Mapping[str, Any], algorithm: str) -> bool:
    exponent, modulus = (int.from_bytes(_bytes(key, name), "big") for name in ("e", "n"))
    rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return modulus.bit_length() >= 1024 and (not algorithm or algorithm[:2] in ("RS", "PS"))


def _ec(key: Mapping[str, Any], algorithm: str) -> bool:
    curve, own, size = _CURVES[key.get("crv") or {"ES384": "P-384", "ES512": "P-521"}.get(algorithm, "P-256")]
    x, y = _bytes(key, "x"), _bytes(key, "y")
    ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
    return max(len(x), len(y)) <= size and algorithm in ("", own)


def _okp(key: Mapping[str, Any], algorithm: str) -> bool:
    ed25519.Ed25519PublicKey.from_public_bytes(_bytes(key, "x"))
    return key.get("crv") == "Ed25519" and algorithm in ("", "EdDSA")


def _oct(key: Mapping[str, Any], algorithm: str) -> bool:
    return bool(_bytes(key, "k")) and (not algorithm or algorithm[:2] == "HS")


_KINDS: Mapping[str, Callable[[Mapping[str, Any], str], bool]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp, "oct": _oct}
