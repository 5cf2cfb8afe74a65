"""Commands about TLS with the client; missing on plain connections, as in Envoy. Those about upstreams are missing, too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..format_code import Value, constant, keyed, text
from ..format_syntax import Command
from .base import FormatContext, Operator, plain
from .times import date_format

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
_MISSING = constant(None)
_PEER = "(connection.tls and connection.tls.peer)"
_LOCAL = "(connection.tls and connection.tls.local)"


def _of(certificate: str, value: Callable[[Any], Any]) -> Operator:
    """What a certificate says: kept for the certificate, which many connections show."""
    return plain(keyed(certificate, lambda details: None if details is None else value(details) or None))


def _sans(prefix: str, certificate: str) -> dict[str, Operator]:
    return {
        f"{prefix}_URI_SAN": _of(certificate, lambda details: b",".join(details.uri_sans)),
        f"{prefix}_DNS_SAN": _of(certificate, lambda details: b",".join(details.dns_sans)),
        f"{prefix}_IP_SAN": _of(certificate, lambda details: b",".join(details.ip_sans)),
        f"{prefix}_EMAIL_SAN": _of(certificate, lambda details: b",".join(details.email_sans)),
        f"{prefix}_SUBJECT": _of(certificate, lambda details: details.subject),
    }


def _date_of(time_of: Callable[[Any], datetime]) -> Operator:
    def make(command: Command, context: FormatContext) -> Value:
        date = date_format(command, local=False)
        return keyed(
            _PEER,
            lambda details: None if details is None else date(int(time_of(details).timestamp()) * 1_000_000_000),
        )

    return Operator(make, "optional")


TLS: dict[str, Operator] = {
    **_sans("DOWNSTREAM_PEER", _PEER),
    **_sans("DOWNSTREAM_LOCAL", _LOCAL),
    "DOWNSTREAM_PEER_ISSUER": _of(_PEER, lambda details: details.issuer),
    "DOWNSTREAM_PEER_FINGERPRINT_1": _of(_PEER, lambda details: details.sha1),
    "DOWNSTREAM_PEER_FINGERPRINT_256": _of(_PEER, lambda details: details.sha256),
    "DOWNSTREAM_PEER_SERIAL": _of(_PEER, lambda details: details.serial),
    "DOWNSTREAM_PEER_CERT": _of(_PEER, lambda details: details.url_encoded_pem),
    "DOWNSTREAM_PEER_CERT_V_START": _date_of(lambda details: details.valid_from),
    "DOWNSTREAM_PEER_CERT_V_END": _date_of(lambda details: details.valid_until),
    "DOWNSTREAM_TLS_VERSION": plain(text("connection.tls and connection.tls.version")),
    "DOWNSTREAM_TLS_CIPHER": plain(text("connection.tls and connection.tls.cipher")),
    "DOWNSTREAM_TLS_SESSION_ID": plain(text("connection.tls and connection.tls.session_id")),
    **{f"UPSTREAM_{name}": plain(_MISSING) for name in _UPSTREAM},
    **{f"UPSTREAM_{name}": Operator(lambda command, context: _MISSING, "optional")
       for name in ("PEER_CERT_V_START", "PEER_CERT_V_END")},
    "TLS_JA3_FINGERPRINT": plain(_MISSING),
    "TLS_JA4_FINGERPRINT": plain(_MISSING),
    "DOWNSTREAM_HANDSHAKE_DURATION": plain(_MISSING),
    "ROUNDTRIP_DURATION": plain(_MISSING),
}  # fmt: skip
