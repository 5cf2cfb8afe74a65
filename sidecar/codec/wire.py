"""Strict parsing of what came over the wire: numbers, tokens, field lines (RFC 9110 section 5, RFC 9112 section 5).

Python's own conversions are too kind for a proxy (`int(b"1_0")` is 10, `bytes.strip()` takes vertical tabs), so every
value that decides about framing goes through this module.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.core.characters import only

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+"  # RFC 9112 section 5.1: no space before the colon
    rb"((?:[\x21-\x7e\x80-\xff]++(?:[ \t]++[\x21-\x7e\x80-\xff]++)*+)?+)[ \t]*+"  # possessive: linear time
)
_TARGET: Final = only(bytes(range(0x21, 0x7F)))
_AUTHORITY: Final = only(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!$%&'()*+,-.:;=@[]_~")
_HEX: Final = only(b"0123456789abcdefABCDEF")

Field = tuple[bytes, bytes]


def decimal(text: bytes) -> int | None:
    """A non-negative decimal number of at most 18 digits, nothing else around it; None for anything else."""
    if len(text) > 18 or not text.isdigit():
        return None
    return int(text)


def hexadecimal(text: bytes) -> int | None:
    """A chunk size: 1 to 15 hexadecimal digits and nothing else (RFC 9112 section 7.1); None for anything else."""
    if not text or len(text) > 15 or text.translate(_HEX) != text:
        return None
    return int(text, 16)


def is_token(text: bytes) -> bool:
    """Whether ``text`` is a token (RFC 9110 section 5.6.2)."""
    return TOKEN.fullmatch(text) is not None


def is_target(text: bytes) -> bool:
    """Whether ``text`` can stand as a request target: visible ASCII only, not empty."""
    return bool(text) and text.translate(_TARGET) == text


def is_authority(text: bytes) -> bool:
    """Whether ``text`` has nothing but what an authority may have (RFC 3986 section 3.2); it may be empty."""
    return text.translate(_AUTHORITY) == text


def tokens_of(value: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated list such as Connection's (RFC 9110 section 5.6.1)."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]


class FieldLines(dict[bytes, Field]):
    """Field lines to ``(lower-case name, value)`` pairs, remembered: a service's requests repeat most of their lines.

    Looking a line up costs a fifth of parsing it. Lines of fields that differ from request to request, or that carry
    secrets, are parsed and forgotten; the rest is bounded in number and length, and the table starts again when it is
    full, so that nobody can make it grow or keep it useless. Raises ``ValueError`` for a line that is not a field.
    """

    __slots__ = ("most",)

    LONGEST: Final = 256
    FORGOTTEN: Final = frozenset(
        (
            b"x-request-id", b"traceparent", b"tracestate", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid",
            b"b3", b"x-correlation-id", b"x-amzn-trace-id", b"x-cloud-trace-context", b"x-datadog-trace-id",
            b"x-datadog-parent-id", b"content-length", b"cookie", b"set-cookie", b"authorization",
            b"proxy-authorization", b"etag", b"if-none-match", b"last-modified", b"if-modified-since", b"age",
            b"expires", b"idempotency-key", b"x-forwarded-for", b"x-envoy-upstream-service-time", b"location",
        )
    )  # fmt: skip
    SHORT_NUMBER: Final = 4  # digits of a Content-Length that is worth remembering

    def __init__(self, most: int = 4096) -> None:
        super().__init__()
        self.most = most

    def __missing__(self, line: bytes) -> Field:
        # Known names with a value of plain characters: most of what is not remembered, without the expression.
        name, _, value = line.partition(b":")
        known = _KNOWN_NAMES.get(name)
        if known is not None and value.translate(_PLAIN) == value:
            return known, value.strip(b" \t")
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise ValueError(line)
        name, value = match.groups()
        name = name.lower()
        pair = (name, value)
        if len(line) <= self.LONGEST and (
            name not in self.FORGOTTEN or (name == b"content-length" and len(value) <= self.SHORT_NUMBER)
        ):
            if len(self) >= self.most:
                self.clear()
            self[line] = pair
        return pair


_PLAIN: Final = only(bytes(range(0x20, 0x7F)) + b"\t")


def _spellings(names: frozenset[bytes]) -> dict[bytes, bytes]:
    """Lower-case and Title-Case spellings of ``names``, each to the lower-case one."""
    table = {}
    for name in names:
        table[name] = table[name.title()] = name
    return table


_KNOWN_NAMES: Final = _spellings(FieldLines.FORGOTTEN - {b"content-length"})
