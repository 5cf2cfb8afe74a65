"""Why TLS failed, in Envoy's words: what `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` and its upstream kin print.

The numbers are BoringSSL's: 0x10000000 (its SSL library) and the reason's own, which for an alert is 1000 and the
alert's. Reasons that only OpenSSL knows stand under their own name, with the number of BoringSSL's library alone.
"""

from __future__ import annotations

import re
import ssl
from typing import Final

_LIBRARY: Final = 16 << 24
_VERIFY_FAILED: Final = "CERTIFICATE_VERIFY_FAILED"
_NO_CERTIFICATE: Final = "PEER_DID_NOT_RETURN_A_CERTIFICATE"

_REASONS: Final = {
    "BAD_DIGEST_LENGTH": 111,
    "BAD_PACKET_LENGTH": 112,
    "BAD_SIGNATURE": 114,
    "CLIENTHELLO_TLSEXT": 122,
    _VERIFY_FAILED: 125,
    "CERT_LENGTH_MISMATCH": 127,
    "DATA_LENGTH_TOO_LONG": 132,
    "DECODE_ERROR": 133,
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": 137,
    "DIGEST_CHECK_FAILED": 142,
    "ENCRYPTED_LENGTH_TOO_LONG": 146,
    "EXCESSIVE_MESSAGE_SIZE": 148,
    "HTTPS_PROXY_REQUEST": 155,
    "HTTP_REQUEST": 156,
    "INAPPROPRIATE_FALLBACK": 157,
    "LENGTH_MISMATCH": 159,
    "NO_CIPHERS_AVAILABLE": 175,
    "NO_RENEGOTIATION": 182,
    "NO_SHARED_CIPHER": 184,
    _NO_CERTIFICATE: 192,
    "UNEXPECTED_MESSAGE": 223,
    "UNEXPECTED_RECORD": 225,
    "UNKNOWN_PROTOCOL": 235,
    "UNSUPPORTED_PROTOCOL": 240,
    "WRONG_CIPHER_RETURNED": 242,
    "WRONG_VERSION_NUMBER": 247,
    "NO_COMMON_SIGNATURE_ALGORITHMS": 253,
    "CANNOT_PARSE_LEAF_CERT": 272,
    "SSLV3_ALERT_CLOSE_NOTIFY": 1000,
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": 1010,
    "SSLV3_ALERT_BAD_RECORD_MAC": 1020,
    "TLSV1_ALERT_RECORD_OVERFLOW": 1022,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 1040,
    "SSLV3_ALERT_NO_CERTIFICATE": 1041,
    "SSLV3_ALERT_BAD_CERTIFICATE": 1042,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": 1043,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": 1044,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": 1045,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": 1046,
    "SSLV3_ALERT_ILLEGAL_PARAMETER": 1047,
    "TLSV1_ALERT_UNKNOWN_CA": 1048,
    "TLSV1_ALERT_ACCESS_DENIED": 1049,
    "TLSV1_ALERT_DECODE_ERROR": 1050,
    "TLSV1_ALERT_DECRYPT_ERROR": 1051,
    "TLSV1_ALERT_PROTOCOL_VERSION": 1070,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": 1071,
    "TLSV1_ALERT_INTERNAL_ERROR": 1080,
    "TLSV1_ALERT_INAPPROPRIATE_FALLBACK": 1086,
    "TLSV1_ALERT_USER_CANCELLED": 1090,
    "TLSV1_ALERT_NO_RENEGOTIATION": 1100,
    "TLSV1_ALERT_UNSUPPORTED_EXTENSION": 1110,
    "TLSV1_ALERT_UNRECOGNIZED_NAME": 1112,
    "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE": 1113,
    "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE": 1114,
    "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY": 1115,
    "TLSV1_ALERT_CERTIFICATE_REQUIRED": 1116,
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": 1120,
}

_OTHERWISE_CALLED: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "TLSV1_ALERT_CERTIFICATE_REQUIRED",
    "TLSV13_ALERT_MISSING_EXTENSION": "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
    "TLSV1_UNRECOGNIZED_NAME": "TLSV1_ALERT_UNRECOGNIZED_NAME",
    "TLSV1_UNSUPPORTED_EXTENSION": "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
    "TLSV1_BAD_CERTIFICATE_HASH_VALUE": "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE",
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE": "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "NO_COMMON_SIGNATURE_ALGORITHMS",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "NO_COMMON_SIGNATURE_ALGORITHMS",
    "PACKET_LENGTH_TOO_LONG": "ENCRYPTED_LENGTH_TOO_LONG",
    "NO_PROTOCOLS_AVAILABLE": "NO_CIPHERS_AVAILABLE",
    "ASN1_LIB": "CANNOT_PARSE_LEAF_CERT",
}

_WITHOUT_REASON: Final = re.compile(r"\[SSL\] (.+) \(_ssl\.c:")
"""What the ssl module says where another library of OpenSSL failed inside, such as "ASN1 lib"; it gives no reason then."""

_REVOCATION: Final = frozenset((3, 11, 12, 23))
"""OpenSSL's numbers for: no list of revoked certificates, one that is not yet valid or has expired, a revoked certificate."""


class TlsContextError(ValueError):
    """Certificates, keys or parameters do not make a context. The message says what and where."""


class TlsFailure(ConnectionError):
    """TLS did not come to be, or broke. ``counter`` is the one of ``TlsStats`` that it counts in, "" for none.

    ``words`` are Envoy's, which has none where the peer just closed.
    """

    def __init__(self, words: str, counter: str) -> None:
        super().__init__(words or "closed within the TLS handshake")
        self.words = words
        self.counter = counter


def from_ssl(error: ssl.SSLError) -> TlsFailure:
    """The failure that an error of the ssl module stands for."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return unverified(error.verify_code, 0, str(error.verify_message))
    # From memory there is no end of file: so the ssl module calls an error for which OpenSSL has no words.
    reason = "UNEXPECTED_RECORD" if isinstance(error, ssl.SSLEOFError) else str(error.reason or _without_reason(error))
    reason = _OTHERWISE_CALLED.get(reason, reason)
    if reason == _NO_CERTIFICATE:
        return TlsFailure(_words(reason, "peer did not provide required client certificate"), "fail_verify_no_cert")
    return TlsFailure(_words(reason), "connection_error")


def _without_reason(error: ssl.SSLError) -> str:
    found = _WITHOUT_REASON.match(str(error.args[-1]))
    return found[1].upper().replace(" ", "_") if found else "UNKNOWN"


def unverified(code: int, depth: int, problem: str) -> TlsFailure:
    """OpenSSL has refused a chain: its number and words, and the place in the chain from the leaf on."""
    if code in _REVOCATION:
        problem = f"certificate revocation check against provided CRLs failed: {problem}"
    return verification_failed(
        f"X509_verify_cert: certificate verification error at depth {depth}: {problem}", "fail_verify_error"
    )


def verification_failed(why: str, counter: str) -> TlsFailure:
    """The peer's certificate is not what it must be."""
    return TlsFailure(_words(_VERIFY_FAILED, f"verify cert failed: {why}"), counter)


def _words(reason: str, data: str = "") -> str:
    number = _LIBRARY + _REASONS.get(reason, 0)
    return f"TLS_error:|{number}:SSL routines:OPENSSL_internal:{reason}:{f'{data}:' if data else ''}TLS_error_end"
