"""What may be wrong with a token or with the keys for it: the number and the words by which clients and logs know it.

Source: Envoy's ``jwt_authn`` filter, whose numbers ``failed_status_in_metadata`` shows.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Status(NamedTuple):
    """One outcome."""

    code: int
    message: str


OK: Final = Status(0, "OK")
MISSING: Final = Status(1, "Jwt is missing")
NOT_YET_VALID: Final = Status(2, "Jwt not yet valid")
EXPIRED: Final = Status(3, "Jwt is expired")
BAD_FORMAT: Final = Status(4, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")
HEADER_BAD_BASE64: Final = Status(5, "Jwt header is an invalid Base64url encoded")
HEADER_BAD_JSON: Final = Status(6, "Jwt header is an invalid JSON")
HEADER_BAD_ALG: Final = Status(7, "Jwt header [alg] field is required and must be a string")
HEADER_UNKNOWN_ALG: Final = Status(8, "Jwt header [alg] is not supported")
HEADER_BAD_KID: Final = Status(9, "Jwt header [kid] field is not a string")
PAYLOAD_BAD_BASE64: Final = Status(10, "Jwt payload is an invalid Base64url encoded")
PAYLOAD_BAD_JSON: Final = Status(11, "Jwt payload is an invalid JSON")
ISS_NOT_STRING: Final = Status(12, "Jwt payload [iss] field is not a string")
SUB_NOT_STRING: Final = Status(13, "Jwt payload [sub] field is not a string")
TIMES: Final = {
    name: (
        Status(code, f"Jwt payload [{name}] field is not an integer"),
        Status(code + 1, f"Jwt payload [{name}] field is not a positive 64 bit integer"),
    )
    for name, code in (("iat", 14), ("nbf", 16), ("exp", 18))
}
"""By the name of a claim that is a time: when it is no number, and when it is out of range."""
JTI_NOT_STRING: Final = Status(20, "Jwt payload [jti] field is not a string")
AUD_NOT_STRING: Final = Status(21, "Jwt payload [aud] field is not a string or string list")
SIGNATURE_BAD_BASE64: Final = Status(22, "Jwt signature is an invalid Base64url encoded")
ED25519_LENGTH: Final = Status(23, "Jwt ED25519 signature is wrong length")
UNKNOWN_ISSUER: Final = Status(24, "Jwt issuer is not configured")
AUDIENCE_NOT_ALLOWED: Final = Status(25, "Audiences in Jwt are not allowed")
VERIFICATION_FAILS: Final = Status(26, "Jwt verification fails")
NO_VALID_KEYS: Final = Status(31, "Jwks doesn't have any valid public key")
NO_KEY_MATCHES: Final = Status(32, "Jwks doesn't have key to match kid or alg from Jwt")
FETCH_FAILED: Final = Status(40, "Jwks remote fetch is failed")
