"""A request that somebody might make, for explaining what would become of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Question:
    """A request that somebody might make, over a connection of its own.

    ``destination`` is where the connection goes, HOST:PORT, empty for where the authority says; ``source`` the client's
    address. ``peer`` is the SPIFFE ID in the client's certificate, empty without one: it is taken for verified. ``alpn`` are
    the protocols that a TLS client offers. ``direction`` (``INBOUND``, ``OUTBOUND``) chooses among listeners of one address;
    ``http2`` says that the request comes by HTTP/2; ``sni`` is the server name
    that a TLS client sends, if not the authority.
    """

    method: bytes
    scheme: str
    authority: str
    path: bytes
    fields: Sequence[tuple[bytes, bytes]] = ()
    destination: str = ""
    source: str = "127.0.0.1"
    peer: str = ""
    alpn: tuple[str, ...] = ()
    direction: str = ""
    http2: bool = False
    sni: str = ""

    @property
    def tls(self) -> bool:
        """Whether the client speaks TLS."""
        return self.scheme == "https" or bool(self.peer)

    @property
    def server_name(self) -> str:
        """What a TLS client sends: ``sni``, else the authority's host, unless that is an address."""
        if self.sni:
            return self.sni
        host = self.authority.rpartition(":")[0] if self.authority.rpartition(":")[2].isdecimal() else self.authority
        return "" if host[:1] == "[" or host.replace(".", "").isdecimal() else host

    @property
    def plain_protocol(self) -> str:
        """What the HTTP inspector finds in a connection without TLS."""
        return "h2c" if self.http2 else "http/1.1"


def question_of(
    method: str,
    url: str,
    headers: Sequence[str] = (),
    *,
    to: str = "",
    source: str = "127.0.0.1",
    peer: str = "",
    alpn: str = "",
    direction: str = "",
    http2: bool = False,
    sni: str = "",
) -> Question:
    """The question that these texts mean. ``url`` is absolute, ``headers`` are of the form `name: value`, ``alpn`` names
    protocols with commas between them; without it, clients with a certificate offer what sidecars offer, others what
    browsers offer. Raises ValueError, with what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url!r} is no URL: write http://HOST:PORT/PATH")
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"{method!r} is no method: write GET, POST ...")
    fields = []
    authority = parts.netloc
    for header in headers:
        name, colon, value = header.partition(":")
        name = name.strip().lower()
        if not colon or not name:
            raise ValueError(f"{header!r} is not of the form name:value")
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise ValueError(f"{header!r} is no header that a request can carry")
        if name == "host":
            authority = value.strip()
        else:
            fields.append((name.encode(), value.strip().encode()))
    try:
        ip_address(source)
    except ValueError:
        raise ValueError(f"{source!r} is no IP address of a client") from None
    if peer and not peer.startswith("spiffe://"):
        raise ValueError(f"{peer!r} is no SPIFFE ID: write spiffe://DOMAIN/PATH")
    if direction.upper() not in ("", "INBOUND", "OUTBOUND"):
        raise ValueError(f"{direction!r} is no direction: write inbound or outbound")
    offered = tuple(alpn.split(",")) if alpn else _SIDECARS if peer else ("h2", "http/1.1")
    path = parts.path or "/"
    return Question(
        method.upper().encode(),
        parts.scheme,
        authority,
        (f"{path}?{parts.query}" if parts.query else path).encode(),
        tuple(fields),
        to or ("" if authority == parts.netloc else parts.netloc),
        source,
        peer,
        offered,
        direction.upper(),
        http2,
        sni,
    )


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")
_SIDECARS: Final = ("istio-peer-exchange", "istio", "istio-http/1.1", "h2", "http/1.1")
