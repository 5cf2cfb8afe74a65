"""Values of format commands as text and as JSON, exactly as Envoy writes them.

A value is plain Python: bytes (from the wire, of any encoding) or str, numbers, bools, None for what is missing, and
dicts and lists of these.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any

from sidecar.core.characters import only

_PLAIN = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\')
PLAIN = only(_PLAIN)
"""Of the octets that stand for themselves in a JSON string: `value.translate(PLAIN) == value` says that all do."""

_LARGEST_WRITTEN_OUT = 10**17
_ESCAPED = tuple(bytes((octet,)) if octet in _PLAIN else b"\\u%04x" % octet for octet in range(256))


def quote(value: bytes) -> bytes:
    """`value` as a JSON string: unless it is UTF-8, each octet that is not plain ASCII becomes \\u00xx, as in Envoy."""
    if value.translate(PLAIN) == value:
        return b'"%b"' % value
    try:
        return encode_basestring(value.decode()).encode()
    except UnicodeDecodeError:
        return b'"%b"' % b"".join([_ESCAPED[octet] for octet in value])


def json_bytes(value: Any, length: int | None = None) -> bytes:
    """`value` as JSON, without spaces and with sorted keys; `length` cuts strings to so many octets."""
    if value is None:
        return b"null"
    if isinstance(value, str):
        value = value.encode(errors="replace")
    if isinstance(value, bytes):
        return quote(value if length is None else value[:length])
    if isinstance(value, dict):
        members = [quote(str(key).encode(errors="replace")) + b":" + json_bytes(value[key]) for key in sorted(value)]
        return b"{%b}" % b",".join(members)
    if isinstance(value, (list, tuple)):
        return b"[%b]" % b",".join(map(json_bytes, value))
    if isinstance(value, (bool, float)):
        return json.dumps(value).encode()
    if isinstance(value, int):
        return b"%d" % value if abs(value) < _LARGEST_WRITTEN_OUT else repr(float(value)).encode()
    return quote(str(value).encode(errors="replace"))


def text_bytes(value: Any, missing: bytes = b"-", length: int | None = None) -> bytes:
    """`value` as text, cut to `length` octets; `missing` is what stands for None (and is not cut)."""
    if value is None:
        return missing
    if isinstance(value, str):
        value = value.encode(errors="replace")
    text = value if isinstance(value, bytes) else json_bytes(value)
    return text if length is None else text[:length]
