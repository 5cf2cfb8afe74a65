"""Commands about TLS. Connections are plain, so all of them are missing values, as in Envoy on a plain connection."""

from __future__ import annotations

from ..format_code import constant
from .base import Operator, plain

_DOWNSTREAM = [
    "PEER_URI_SAN",
    "LOCAL_URI_SAN",
    "PEER_DNS_SAN",
    "LOCAL_DNS_SAN",
    "PEER_IP_SAN",
    "LOCAL_IP_SAN",
    "PEER_EMAIL_SAN",
    "LOCAL_EMAIL_SAN",
    "PEER_SUBJECT",
    "LOCAL_SUBJECT",
    "PEER_ISSUER",
    "PEER_FINGERPRINT_1",
    "PEER_FINGERPRINT_256",
    "PEER_SERIAL",
    "PEER_CERT",
    "TLS_VERSION",
    "TLS_CIPHER",
    "TLS_SESSION_ID",
]
_UPSTREAM = [
    "PEER_URI_SAN",
    "LOCAL_URI_SAN",
    "PEER_DNS_SAN",
    "LOCAL_DNS_SAN",
    "PEER_IP_SAN",
    "LOCAL_IP_SAN",
    "PEER_SUBJECT",
    "LOCAL_SUBJECT",
    "PEER_ISSUER",
    "PEER_CERT",
    "TLS_VERSION",
    "TLS_CIPHER",
    "TLS_SESSION_ID",
    "SERVER_NAME",
]
_DATES = ("PEER_CERT_V_START", "PEER_CERT_V_END")
_MISSING = constant(None)

TLS: dict[str, Operator] = {
    **{f"DOWNSTREAM_{name}": plain(_MISSING) for name in _DOWNSTREAM},
    **{f"UPSTREAM_{name}": plain(_MISSING) for name in _UPSTREAM},
    **{f"{side}_{name}": Operator(lambda command, context: _MISSING, "optional")
       for side in ("DOWNSTREAM", "UPSTREAM") for name in _DATES},
    "TLS_JA3_FINGERPRINT": plain(_MISSING),
    "TLS_JA4_FINGERPRINT": plain(_MISSING),
    "DOWNSTREAM_HANDSHAKE_DURATION": plain(_MISSING),
    "ROUNDTRIP_DURATION": plain(_MISSING),
}  # fmt: skip
