"""Commands about TLS with the client and with the upstream; missing on plain connections, as in Envoy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..format_code import Value, any_value, constant, keyed, text
from ..format_syntax import Command
from .base import FormatContext, Operator, plain
from .times import date_format

_MISSING = constant(None)
_PEER = "(connection.tls and connection.tls.peer)"
_LOCAL = "(connection.tls and connection.tls.local)"
_UPSTREAM_PEER = "(stream.upstream_tls and stream.upstream_tls.peer)"
_UPSTREAM_LOCAL = "(stream.upstream_tls and stream.upstream_tls.local)"


def _of(certificate: str, value: Callable[[Any], Any]) -> Operator:
    """What a certificate says: kept for the certificate, which many connections show."""
    return plain(keyed(certificate, lambda details: None if details is None else value(details) or None))


def _sans(prefix: str, certificate: str) -> dict[str, Operator]:
    return {
        f"{prefix}_URI_SAN": _of(certificate, lambda details: b",".join(details.uri_sans)),
        f"{prefix}_DNS_SAN": _of(certificate, lambda details: b",".join(details.dns_sans)),
        f"{prefix}_IP_SAN": _of(certificate, lambda details: b",".join(details.ip_sans)),
    }


def _date_of(certificate: str, time_of: Callable[[Any], datetime]) -> Operator:
    def make(command: Command, context: FormatContext) -> Value:
        date = date_format(command, local=False)
        return keyed(
            certificate,
            lambda details: None if details is None else date(int(time_of(details).timestamp()) * 1_000_000_000),
        )

    return Operator(make, "optional")


TLS: dict[str, Operator] = {
    **_sans("DOWNSTREAM_PEER", _PEER),
    **_sans("DOWNSTREAM_LOCAL", _LOCAL),
    "DOWNSTREAM_PEER_EMAIL_SAN": _of(_PEER, lambda details: b",".join(details.email_sans)),
    "DOWNSTREAM_LOCAL_EMAIL_SAN": _of(_LOCAL, lambda details: b",".join(details.email_sans)),
    "DOWNSTREAM_PEER_SUBJECT": _of(_PEER, lambda details: details.subject),
    "DOWNSTREAM_LOCAL_SUBJECT": _of(_LOCAL, lambda details: details.subject),
    "DOWNSTREAM_PEER_ISSUER": _of(_PEER, lambda details: details.issuer),
    "DOWNSTREAM_PEER_FINGERPRINT_1": _of(_PEER, lambda details: details.sha1),
    "DOWNSTREAM_PEER_FINGERPRINT_256": _of(_PEER, lambda details: details.sha256),
    "DOWNSTREAM_PEER_SERIAL": _of(_PEER, lambda details: details.serial),
    "DOWNSTREAM_PEER_CERT": _of(_PEER, lambda details: details.url_encoded_pem),
    "DOWNSTREAM_PEER_CERT_V_START": _date_of(_PEER, lambda details: details.valid_from),
    "DOWNSTREAM_PEER_CERT_V_END": _date_of(_PEER, lambda details: details.valid_until),
    "DOWNSTREAM_TLS_VERSION": plain(text("connection.tls and connection.tls.version")),
    "DOWNSTREAM_TLS_CIPHER": plain(text("connection.tls and connection.tls.cipher")),
    "DOWNSTREAM_TLS_SESSION_ID": plain(text("connection.tls and connection.tls.session_id")),
    **_sans("UPSTREAM_PEER", _UPSTREAM_PEER),
    **_sans("UPSTREAM_LOCAL", _UPSTREAM_LOCAL),
    "UPSTREAM_PEER_SUBJECT": _of(_UPSTREAM_PEER, lambda details: details.subject),
    "UPSTREAM_PEER_ISSUER": _of(_UPSTREAM_PEER, lambda details: details.issuer),
    "UPSTREAM_PEER_CERT": _of(_UPSTREAM_PEER, lambda details: details.url_encoded_pem),
    "UPSTREAM_PEER_CERT_V_START": _date_of(_UPSTREAM_PEER, lambda details: details.valid_from),
    "UPSTREAM_PEER_CERT_V_END": _date_of(_UPSTREAM_PEER, lambda details: details.valid_until),
    "UPSTREAM_TLS_VERSION": plain(text("stream.upstream_tls and stream.upstream_tls.version")),
    "UPSTREAM_TLS_CIPHER": plain(text("stream.upstream_tls and stream.upstream_tls.cipher")),
    "UPSTREAM_TLS_SESSION_ID": plain(text("stream.upstream_tls and stream.upstream_tls.session_id")),
    "UPSTREAM_SERVER_NAME": plain(text("stream.upstream_tls and stream.upstream_tls.server_name")),
    "TLS_JA3_FINGERPRINT": plain(_MISSING),
    "TLS_JA4_FINGERPRINT": plain(_MISSING),
    "DOWNSTREAM_HANDSHAKE_DURATION": plain(
        any_value("None if connection.tls is None else int((connection.tls.opened - connection.start) * 1000)")
    ),
    "ROUNDTRIP_DURATION": plain(_MISSING),
}  # fmt: skip
