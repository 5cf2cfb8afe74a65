"""Whether a client's TLS would be accepted, and how an endpoint is spoken to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sidecar.config.tls import UpstreamTlsContext
from sidecar.core.explanation import ENDS, PASSES, Step
from sidecar.core.question import Question
from sidecar.transport.downstream import DownstreamTls
from sidecar.transport.identity import CertificateDetails

_NAME = "envoy.transport_sockets.tls"


class ClaimedCertificate(CertificateDetails):
    """The certificate of a client of which nothing but its SPIFFE ID is known; signed by whoever is trusted."""

    def __init__(self, spiffe_id: str) -> None:
        CertificateDetails.__init__(self, b"")
        self.spiffe_id = spiffe_id

    @cached_property
    def sans(self) -> tuple[tuple[str, bytes], ...]:
        return (("URI", self.spiffe_id.encode()),)

    @cached_property
    def subject(self) -> bytes:
        return b""

    @cached_property
    def issuer(self) -> bytes:
        return b""

    @cached_property
    def sha256(self) -> str:
        return ""

    @cached_property
    def spki_sha256(self) -> bytes:
        return b""

    @cached_property
    def url_encoded_pem(self) -> str:
        return ""

    @cached_property
    def rsa_signs(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<ClaimedCertificate {self.spiffe_id}>"


class ClaimedTls:
    """A TLS connection that nobody has made: what ``ConnectionInfo.tls`` is asked for."""

    version = "TLSv1.3"
    cipher = "TLS_AES_128_GCM_SHA256"
    session_id = ""
    resumed = False
    url_encoded_chain = ""
    opened = 0.0

    def __init__(
        self, peer: ClaimedCertificate | None, local: CertificateDetails | None, server_name: str, agreed: str
    ) -> None:
        self.peer = peer
        self.local = local
        self.server_name = server_name
        self.application_protocol = agreed
        self.presented = peer is not None
        self.uri_sans = () if peer is None else peer.uri_sans
        self.dns_sans: tuple[bytes, ...] = ()
        self.subject = b""
        self.forwarded: bytes | None = None
        self.chain: tuple[bytes, ...] = ()
        self.identity = (local, self.uri_sans)

    def __repr__(self) -> str:
        return f"<ClaimedTls of {self.peer!r}>"


def explain_downstream(tls: DownstreamTls, question: Question) -> tuple[ClaimedTls | None, Step]:
    """The connection that a client would have, and why; None if there would be none."""

    def refused(why: str) -> tuple[None, Step]:
        return None, Step("transport socket", _NAME, ENDS, f"transport socket TLS: {why}: the connection is closed")

    names = tls.rotation.current
    if names is None:
        waiting = ", ".join(repr(secret.name) for secret in tls.rotation.discovered if secret.value is None)
        return refused(f"the secrets {waiting} have not come")
    if not question.tls:
        return refused("the client speaks plain text")
    if tls.config.require_sni and not question.server_name:
        return refused("the client sends no server name, and require_sni wants one")
    chosen = names.find(question.server_name.lower())
    peer = ClaimedCertificate(question.peer) if question.peer and chosen.asks else None
    if peer is None and (tls.config.require_client_certificate or chosen.verification.needs_certificate):
        return refused("the client shows no certificate, and one is required")
    if peer is not None and chosen.verification.asks:
        failure = chosen.verification.check(peer)
        if failure is not None:
            return refused(f"the client's certificate is refused: {failure.words}")
    offered = question.alpn
    ours = tls.config.common_tls_context.alpn_protocols
    agreed = next((one for one in ours if one in offered), "")
    who = f"the client is {question.peer}" if peer is not None else "nobody asks for the client's certificate"
    if peer is None and question.peer == "":
        who = "the client shows no certificate, and none is required"
    text = f"transport socket TLS: passes: {who}" + (f", ALPN agrees on {agreed}" if agreed else "")
    return ClaimedTls(peer, chosen.local, question.server_name, agreed), Step("transport socket", _NAME, PASSES, text)


def describe_upstream(
    match: str, context: UpstreamTlsContext | None, offered: Sequence[str] = ()
) -> tuple[str, Mapping[str, Any]]:
    """How endpoints are spoken to that get this transport socket, in words and as facts; ``match`` is the name of the match
    that gives it. What is ``offered`` by ALPN stands in place of what the context says.
    """
    by = f" ({match})" if match else ""
    if context is None:
        return f"in plain text{by}", {"tls": False}
    common = context.common_tls_context
    kind = "mutual TLS" if common.tls_certificates else "TLS"
    parts = []
    if context.sni:
        parts.append(f"server name {context.sni}")
    if common.validation_context is None and common.default_validation_context is None:
        parts.append("whoever answers is believed")
    facts = {
        "tls": True,
        "certificate": bool(common.tls_certificates),
        "alpn": list(offered or common.alpn_protocols),
        "serverName": context.sni,
    }
    return f"by {kind}{by}" + (f", {', '.join(parts)}" if parts else ""), facts
