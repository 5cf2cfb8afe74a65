"""The listener filter `http_inspector`: tells HTTP/1.0, HTTP/1.1 and HTTP/2 from what is none of them."""

from __future__ import annotations

import re
import socket
from typing import Protocol

from sidecar.core.stream_info import ConnectionInfo
from sidecar.listener.listener_filter import MORE

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_MAX_INSPECT = 8192
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\x00-\x20\x7f]+ HTTP/1\.([01])\r?\n")
_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: [^\x00-\x20\x7f]*(?: [HTP/1.0\r]*)?)?")


class HttpInspectorStats(Protocol):
    """`http_inspector.`"""

    http10_found: int
    http11_found: int
    http2_found: int
    http_not_found: int


class HttpInspector:
    """Peeks at the first line; what it finds becomes the application protocol: http/1.0, http/1.1 or h2c."""

    __slots__ = ("peek", "stats")

    def __init__(self, stats: HttpInspectorStats) -> None:
        self.stats = stats
        self.peek = _MAX_INSPECT

    def inspect(self, sock: socket.socket, info: ConnectionInfo, data: bytes) -> int:
        if info.transport_protocol == "tls":
            return 0
        stats = self.stats
        if _PREFACE.startswith(data[: len(_PREFACE)]):
            if len(data) < len(_PREFACE):
                return MORE
            stats.http2_found += 1
            info.application_protocols = ("h2c",)
            return 0
        found = _REQUEST_LINE.match(data)
        if found is not None:
            if found[1] == b"1":
                stats.http11_found += 1
                info.application_protocols = ("http/1.1",)
            else:
                stats.http10_found += 1
                info.application_protocols = ("http/1.0",)
            return 0
        if len(data) < _MAX_INSPECT and _BEGINNING.fullmatch(data) is not None:
            return MORE
        stats.http_not_found += 1
        return 0
