"""Reading one cookie of a request, and the parts of `set-cookie` that configuration names."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.head import RequestHead


def cookie_value(request: RequestHead, name: bytes) -> bytes:
    """The value of the first cookie of this name, without quotes and otherwise as it stands; empty if there is none."""
    if b"cookie" not in request.index:
        return b""
    for header in request.get_all(b"cookie"):
        for cookie in header.split(b";"):
            key, equals, value = cookie.partition(b"=")
            if equals and key.lstrip(b" ") == name:
                return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
    return b""


def cookie_attributes(ttl: float | None, path: bytes, attributes: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What stands behind name and value; `ttl` is in seconds, none or 0 for a cookie that ends with the session."""
    text = b""
    if ttl:
        text += b"; Max-Age=%d" % ttl
    if path:
        text += b"; Path=" + path
    for attribute, value in attributes:
        text += b"; " + attribute + (b"=" + value if value else b"")
    return text + b"; HttpOnly"
