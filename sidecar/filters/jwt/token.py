"""Tokens read: JSON Web Tokens in the compact form, before anything in them is believed.

Source: RFC 7515 (JWS), RFC 7519 (JWT). The form is read strictly: exactly three parts in canonical base64url without
padding, so that nobody behind the proxy can read the same bytes as another token.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

import orjson

from sidecar.filters.jwt.status import (
    AUD_NOT_STRING,
    BAD_FORMAT,
    HEADER_BAD_ALG,
    HEADER_BAD_BASE64,
    HEADER_BAD_JSON,
    HEADER_BAD_KID,
    HEADER_UNKNOWN_ALG,
    ISS_NOT_STRING,
    JTI_NOT_STRING,
    PAYLOAD_BAD_BASE64,
    PAYLOAD_BAD_JSON,
    SIGNATURE_BAD_BASE64,
    SUB_NOT_STRING,
    TIMES,
    Status,
)

ALGORITHMS: Final = frozenset(
    (
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),
        *("HS256", "HS384", "HS512", "EdDSA"),
    )
)
"""The algorithms that tokens may name (RFC 7518 section 3.1, RFC 8037). ``none`` is not among them."""

MAX_TOKEN: Final = 128 * 1024
"""The largest token, in bytes, that is looked into."""

MOST_MARKS: Final = 1 << 12
"""How many commas and opening brackets the JSON of a token may have, those in strings too: so that reading what anybody may
have written takes about a millisecond, however it is nested."""

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_MAX_DEPTH: Final = 100
_EXACT: Final = 1 << 53


class Token:
    """A token whose form is right. ``payload`` has numbers as Envoy keeps them: as doubles, in int where they are whole.

    Times are in seconds since the epoch, 0 where the token says none.
    """

    __slots__ = ("alg", "audiences", "exp", "header", "iss", "kid", "nbf", "payload", "payload_base64", "signature",
                 "signed", "sub")  # fmt: skip

    alg: str
    audiences: tuple[str, ...]
    exp: int
    header: dict[str, Any]
    iss: str
    kid: str
    nbf: int
    payload: dict[str, Any]
    payload_base64: bytes
    signature: bytes
    signed: bytes
    sub: str

    def __repr__(self) -> str:
        return f"<Token {self.alg} of {self.iss!r}>"


def read_token(text: bytes) -> Token | Status:
    """The token, or what is wrong with its form."""
    parts = text.split(b".") if len(text) <= MAX_TOKEN else ()
    if len(parts) != 3 or not all(parts):
        return BAD_FORMAT
    token = Token()
    wrong = _read_header(token, parts[0]) or _read_payload(token, parts[1])
    if wrong is not None:
        return wrong
    signature = decode_base64url(parts[2])
    if signature is None:
        return SIGNATURE_BAD_BASE64
    token.signature = signature
    token.signed = text[: len(parts[0]) + 1 + len(parts[1])]
    return token


def _read_header(token: Token, part: bytes) -> Status | None:
    text = decode_base64url(part)
    if text is None:
        return HEADER_BAD_BASE64
    header = read_object(text)
    if header is None:
        return HEADER_BAD_JSON
    alg = header.get("alg")
    if not isinstance(alg, str):
        return HEADER_BAD_ALG
    if alg not in ALGORITHMS:
        return HEADER_UNKNOWN_ALG
    kid = header.get("kid", "")
    if not isinstance(kid, str):
        return HEADER_BAD_KID
    token.header, token.alg, token.kid = header, alg, kid
    return None


def _read_payload(token: Token, part: bytes) -> Status | None:
    text = decode_base64url(part)
    if text is None:
        return PAYLOAD_BAD_BASE64
    payload = read_object(text)
    if payload is None:
        return PAYLOAD_BAD_JSON
    for name, wrong in (("iss", ISS_NOT_STRING), ("sub", SUB_NOT_STRING)):
        if not isinstance(payload.get(name, ""), str):
            return wrong
    times: dict[str, int] = {}
    for name, (no_number, out_of_range) in TIMES.items():
        value = payload.get(name, 0)
        if type(value) is not int and type(value) is not float:
            return no_number
        if not 0 <= value < 1 << 64:
            return out_of_range
        times[name] = int(value)
    if not isinstance(payload.get("jti", ""), str):
        return JTI_NOT_STRING
    audiences = payload.get("aud", [])
    if isinstance(audiences, str):
        audiences = [audiences]
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        return AUD_NOT_STRING
    token.payload, token.payload_base64 = payload, part
    token.iss, token.sub = payload.get("iss", ""), payload.get("sub", "")
    token.nbf, token.exp = times["nbf"], times["exp"]
    token.audiences = tuple(audiences)
    return None


def decode_base64url(text: bytes) -> bytes | None:
    """Base64url without padding (RFC 7515 section 2), or None for what is not exactly that."""
    tail = len(text) % 4
    if tail == 1 or text.translate(None, _ALPHABET):
        return None
    decoded = urlsafe_b64decode(text + b"=" * (-tail % 4))
    # Only what stands after the last whole group of four can be written in more than one way.
    if tail and urlsafe_b64encode(decoded[1 - tail :]).rstrip(b"=") != text[-tail:]:
        return None
    return decoded


def read_object(text: bytes, most_marks: int = MOST_MARKS) -> dict[str, Any] | None:
    """A JSON object with numbers as doubles, or None for what is none, is too deep or too large, or has a name twice."""
    if text.count(b",") + text.count(b"[") + text.count(b"{") > most_marks:
        return None
    try:
        value = orjson.loads(text)
        if not isinstance(value, dict):
            return None
        found: dict[str, Any] = _plain(value, _MAX_DEPTH)
        json.loads(text, object_pairs_hook=_once, parse_int=float)
    except ValueError:
        return None
    return found


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if -_EXACT <= value <= _EXACT else int(float(value))
    if kind is float:
        if not isfinite(value):
            raise ValueError("no JSON number")
        return int(value) if value.is_integer() else value
    if not depth:
        raise ValueError("too deep")
    if kind is list:
        return [_plain(one, depth - 1) for one in value]
    return {name: _plain(one, depth - 1) for name, one in value.items()}


def find_claim(payload: Mapping[str, Any], path: str) -> Any:
    """The claim at a path of names with dots between them, or None."""
    value: Any = payload
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value
