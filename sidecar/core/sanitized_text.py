"""Octets from the wire as text for protobuf messages, whose strings are UTF-8."""

from __future__ import annotations


def text_of(octets: bytes) -> str:
    """The text; in what is no UTF-8 every octet above ASCII becomes ``!``, as elsewhere in Envoy."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("ascii", "replace").replace("\ufffd", "!")
