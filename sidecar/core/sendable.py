"""Whether a head may leave: what filters, services and formats have put into it need not be what may stand on the wire.

A line feed in a value would be a field of its own, or a request of its own, for whoever reads it (RFC 9110 section 5.5). Heads
that a codec has read are right; so what most requests bring is found right by one search and one lookup of their names.
Source: Envoy's `HeaderUtility::checkRequiredRequestHeaders`, whose words these are.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.core.characters import only
from sidecar.core.head import Head, RequestHead

_FORBIDDEN: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_IN_VALUES: Final = only(b"\t" + bytes([*range(32, 127), *range(128, 256)]))
_IN_LINES: Final = only(b"\t" + bytes([*range(33, 127), *range(128, 256)]))
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHOWN: Final = {**{octet: f"\\x{octet:02x}" for octet in (*range(32), 127)}, 10: "\\n", 13: "\\r"}
_MOST_NAMES: Final = 4096
_known: set[bytes] = set()
"""Names that are right; clients bring new ones, so there is a bound."""


def unsendable(request: RequestHead) -> str:
    """What is wrong with a request's head, in Envoy's words; empty if it may leave."""
    text = b"".join(request.index.values())
    if text.translate(_IN_VALUES) != text or not _known.issuperset(request.index):
        wrong = _wrong_field(request)
        if wrong:
            return wrong
    line = request.path + request.authority + request.method
    return "" if line.translate(_IN_LINES) == line else _wrong_line(request)


def sendable_fields(head: Head) -> None:
    """Take the fields out of a response's head that may not leave: the rest of the response is right."""
    text = b"".join(head.index.values())
    if text.translate(_IN_VALUES) != text or not _known.issuperset(head.index):
        for name in [name for name, value in head.fields if not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value)]:
            head.remove(name)
        _learn(head)


def _wrong_field(request: RequestHead) -> str:
    for name, value in request.fields:
        if not _TOKEN.fullmatch(name):
            return f"invalid header name: {_text(name)}"
        if _FORBIDDEN.search(value):
            return f"invalid header value for: {_text(name)}"
    _learn(request)
    return ""


def _wrong_line(request: RequestHead) -> str:
    for name, value in ((":path", request.path), (":authority", request.authority), (":method", request.method)):
        if _FORBIDDEN.search(value) or b" " in value:
            return f"invalid header value for: {name}"
    return ""


def _learn(head: Head) -> None:
    if len(_known) > _MOST_NAMES:
        _known.clear()
    _known.update(head.index)


def _text(value: bytes) -> str:
    return value.decode("latin-1").translate(_SHOWN)
