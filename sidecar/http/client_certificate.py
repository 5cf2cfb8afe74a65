"""x-forwarded-client-cert: what upstreams are told of the client's certificate, and what of it they are not told.

Source: Envoy's `forward_client_cert_details` and `set_current_client_cert_details`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from sidecar.config.tls_forwarding import NO_CERTIFICATE_DETAILS, SetCurrentClientCertDetails
from sidecar.core.head import RequestHead

HEADER: Final = b"x-forwarded-client-cert"

_SEPARATES: Final = re.compile(rb'[\0-\x1f\x7f,;"\\]')
_CONTROL: Final = re.compile(rb"[\0-\x1f\x7f]")
_QUOTED: Final = re.compile(rb'["\\]')


class Certificate(Protocol):
    """What one certificate says."""

    @property
    def uri_sans(self) -> Sequence[bytes]: ...
    @property
    def dns_sans(self) -> Sequence[bytes]: ...
    @property
    def subject(self) -> bytes: ...
    @property
    def sha256(self) -> str: ...
    @property
    def url_encoded_pem(self) -> str: ...


class Connection(Protocol):
    """A TLS connection (``ConnectionInfo.tls``); ``peer`` is None when the client showed no certificate."""

    forwarded: bytes | None
    """The element for it, once it is known."""

    @property
    def peer(self) -> Any: ...
    @property
    def local(self) -> Any: ...
    @property
    def url_encoded_chain(self) -> str: ...


Forward = Callable[[RequestHead, Any], None]
"""Sets, changes or removes the header of a request; the second is ``ConnectionInfo.tls``, None without TLS."""


def compile_forwarded_client_certificate(
    mode: str, details: SetCurrentClientCertDetails = NO_CERTIFICATE_DETAILS
) -> Forward:
    """What `forward_client_cert_details` (its name) does to each request."""
    match mode:
        case "ALWAYS_FORWARD_ONLY":
            return _keep
        case "FORWARD_ONLY":
            return _keep_from_known
        case "APPEND_FORWARD":
            return _compile_setting(details, append=True)
        case "SANITIZE_SET":
            return _compile_setting(details, append=False)
    return _remove


def element_of(tls: Connection, details: SetCurrentClientCertDetails) -> bytes:
    """One element of the header's list: the proxy's own URIs, the client's certificate's digest, and the details."""
    peer: Certificate = tls.peer
    local: Certificate | None = tls.local
    parts = [] if local is None else [b"By=" + _value(uri) for uri in local.uri_sans]
    parts.append(b"Hash=" + peer.sha256.encode())
    if details.cert:
        parts.append(b'Cert="%b"' % peer.url_encoded_pem.encode())
    if details.chain:
        parts.append(b'Chain="%b"' % tls.url_encoded_chain.encode())
    if details.subject:
        parts.append(b'Subject="%b"' % peer.subject)
    if details.uri:
        parts += [b"URI=" + _value(uri) for uri in peer.uri_sans] or [b"URI="]
    if details.dns:
        parts += [b"DNS=" + _value(name) for name in peer.dns_sans]
    return b";".join(parts)


def _value(name: bytes) -> bytes:
    """A name of a certificate, in quotes where it could be taken for more than that; control characters are encoded."""
    if not _SEPARATES.search(name):
        return name
    shown = _CONTROL.sub(lambda found: b"%%%02X" % found[0][0], name)
    return b'"%b"' % _QUOTED.sub(rb"\\\g<0>", shown)


def _keep(request: RequestHead, tls: Connection | None) -> None:
    """Whoever sent it is trusted."""


def _remove(request: RequestHead, tls: Connection | None) -> None:
    if HEADER in request.index:
        request.remove(HEADER)


def _keep_from_known(request: RequestHead, tls: Connection | None) -> None:
    if (tls is None or tls.peer is None) and HEADER in request.index:
        request.remove(HEADER)


def _compile_setting(details: SetCurrentClientCertDetails, *, append: bool) -> Forward:
    def forward(request: RequestHead, tls: Connection | None) -> None:
        if tls is None or tls.peer is None:
            _remove(request, tls)
            return
        element = tls.forwarded
        if element is None:
            element = tls.forwarded = element_of(tls, details)
        if append:
            before = request.index.get(HEADER)
            if before:
                element = b"%b,%b" % (before, element)
        request.set(HEADER, element)

    return forward
