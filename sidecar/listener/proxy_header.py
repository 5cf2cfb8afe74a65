"""PROXY protocol headers, versions 1 and 2 (HAProxy's specification `proxy-protocol.txt`): parsed strictly."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

from sidecar.core.address import Address

V1_SIGNATURE = b"PROXY "
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_LONGEST = 107
V2_LONGEST = 16 + 0xFFFF

_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_TLV_HEAD = 3
_ADDRESS_BYTES = {1: 4, 2: 16}
_FAMILIES = {1: socket.AF_INET, 2: socket.AF_INET6}


class BadProxyHeader(ValueError):
    """The header breaks the specification."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """``size`` is the header's length in bytes. ``source`` and ``destination`` are None where the sender spoke for
    itself (LOCAL) or did not know (UNKNOWN, UNSPEC)."""

    size: int
    version: int
    source: Address | None = None
    destination: Address | None = None
    tlvs: dict[int, bytes] = field(default_factory=dict)


def version_of(data: bytes) -> int | None:
    """1 or 2 by the signature that ``data`` begins with, 0 if it cannot become one, None if more bytes are needed."""
    if data.startswith(V1_SIGNATURE):
        return 1
    if data.startswith(V2_SIGNATURE):
        return 2
    return None if V1_SIGNATURE.startswith(data) or V2_SIGNATURE.startswith(data) else 0


def parse_v1(data: bytes) -> ProxyHeader | None:
    """A header whose signature was seen; None if more bytes are needed. Raises BadProxyHeader."""
    end = data.find(b"\r\n", 0, V1_LONGEST)
    if end < 0:
        if len(data) >= V1_LONGEST:
            raise BadProxyHeader("no end of line within 107 bytes")
        return None
    try:
        words = data[len(V1_SIGNATURE) : end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise BadProxyHeader("not ASCII") from None
    size = end + 2
    if words[0] == "UNKNOWN":
        return ProxyHeader(size, 1)
    if len(words) != 5 or words[0] not in ("TCP4", "TCP6"):
        raise BadProxyHeader("neither TCP4, TCP6 nor UNKNOWN")
    family = socket.AF_INET if words[0] == "TCP4" else socket.AF_INET6
    source = Address(_ip(family, words[1]), _port(words[3]))
    return ProxyHeader(size, 1, source, Address(_ip(family, words[2]), _port(words[4])))


def parse_v2(data: bytes) -> ProxyHeader | None:
    """A header whose signature was seen; None if more bytes are needed. Raises BadProxyHeader."""
    if len(data) < 16:
        return None
    command, family, length = data[12], data[13] >> 4, int.from_bytes(data[14:16], "big")
    if command >> 4 != 2 or command & 0xF > 1:
        raise BadProxyHeader("version or command")
    size = 16 + length
    if len(data) < size:
        return None
    if command & 0xF == 0:
        return ProxyHeader(size, 2)
    if family not in _ADDRESS_BYTES or data[13] & 0xF != 1:
        if data[13] == 0:
            return ProxyHeader(size, 2, tlvs=_tlvs(data[16:size]))
        raise BadProxyHeader("not TCP over IPv4 or IPv6")
    width = _ADDRESS_BYTES[family]
    if length < 2 * width + 4:
        raise BadProxyHeader("too short for its addresses")
    ports = 16 + 2 * width
    kind = _FAMILIES[family]
    source = socket.inet_ntop(kind, data[16 : 16 + width])
    destination = socket.inet_ntop(kind, data[16 + width : ports])
    return ProxyHeader(
        size,
        2,
        Address(source, int.from_bytes(data[ports : ports + 2], "big")),
        Address(destination, int.from_bytes(data[ports + 2 : ports + 4], "big")),
        _tlvs(data[ports + 4 : size]),
    )


def _tlvs(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        end = at + _TLV_HEAD + int.from_bytes(data[at + 1 : at + _TLV_HEAD], "big")
        if at + _TLV_HEAD > len(data) or end > len(data):
            raise BadProxyHeader("a TLV is longer than the header")
        found.setdefault(data[at], data[at + _TLV_HEAD : end])
        at = end
    return found


def _ip(family: int, text: str) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except OSError:
        raise BadProxyHeader("address") from None


def _port(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > 0xFFFF:
        raise BadProxyHeader("port")
    return int(text)
