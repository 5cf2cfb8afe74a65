"""Where a session's host is kept: in a cookie or in a header, in the forms that Envoy writes and reads.

Source: Envoy's `extensions.http.stateful_session`. A cookie is base64 of a small protobuf message: the address, and the
second at which the session ends (seconds since the epoch); older ones are base64 of the address alone.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Protocol

from sidecar.config.filters.stateful_session import CookieSessionState, HeaderSessionState, SessionState
from sidecar.core.cookies import cookie_attributes, cookie_value
from sidecar.core.head import RequestHead, ResponseHead

WallClock = Callable[[], float]
"""Seconds since the epoch."""


class State(Protocol):
    """``address_of`` is the host's address in a request: empty if it has none, None if it belongs to no session.
    ``keep`` tells the client the address of its session from now on.
    """

    def address_of(self, request: RequestHead) -> str | None: ...
    def keep(self, address: str, response: ResponseHead) -> None: ...


class HeaderState:
    """Base64 of the address in a header."""

    __slots__ = ("name",)

    def __init__(self, config: HeaderSessionState) -> None:
        self.name = config.name

    def address_of(self, request: RequestHead) -> str | None:
        values = request.get_all(self.name)
        return decode(values[0]).decode("latin-1") if values else ""

    def keep(self, address: str, response: ResponseHead) -> None:
        response.set(self.name, b64encode(address.encode()))


class CookieState:
    """A cookie for the paths below its own."""

    __slots__ = ("name", "path", "ttl", "attributes", "clock")

    def __init__(self, config: CookieSessionState, clock: WallClock) -> None:
        self.name = config.name
        self.path = b"" if config.path == b"/" else config.path
        self.ttl = config.ttl
        self.attributes = cookie_attributes(config.ttl, config.path, config.attributes)
        self.clock = clock

    def address_of(self, request: RequestHead) -> str | None:
        if not is_below(request.path, self.path):
            return None
        return parse_cookie(decode(cookie_value(request, self.name)), self.clock())

    def keep(self, address: str, response: ResponseHead) -> None:
        ends = int(self.clock()) + self.ttl if self.ttl else 0
        value = b64encode(cookie_of(address, ends))
        response.add(b"set-cookie", b'%b="%b"%b' % (self.name, value, self.attributes))


def make_state(config: SessionState, clock: WallClock) -> State:
    """The state that a configuration asks for."""
    return HeaderState(config) if isinstance(config, HeaderSessionState) else CookieState(config, clock)


def decode(text: bytes) -> bytes:
    """What strict base64 stands for; empty for anything else."""
    try:
        value = b64decode(text, validate=True)
    except binascii.Error:
        return b""
    return value if b64encode(value) == text else b""


def is_below(path: bytes, parent: bytes) -> bool:
    """Whether a request's path belongs to a cookie with this path."""
    if not path.startswith(parent):
        return False
    return not parent or parent.endswith(b"/") or path[len(parent) : len(parent) + 1] in (b"", b"/", b"?", b"#")


def cookie_of(address: str, ends: int) -> bytes:
    """The message: field 1 is the address, field 2 the second at which it ends (0: not written)."""
    text = address.encode()
    message = b"\x0a" + _varint(len(text)) + text
    return message + b"\x10" + _varint(ends) if ends else message


def parse_cookie(message: bytes, now: float) -> str:
    """The address in a cookie's message; empty if there is none, or if its time (against `now`) is over."""
    try:
        address, ends = _read(message)
    except (ValueError, IndexError):
        return message.decode("latin-1")
    return "" if ends and ends < int(now) else address


def _read(message: bytes) -> tuple[str, int]:
    at, address, ends = 0, "", 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        match tag & 7:
            case 0:
                value, at = _read_varint(message, at)
                if tag >> 3 == 2:
                    ends = value
            case 2:
                length, at = _read_varint(message, at)
                if at + length > len(message):
                    raise ValueError("cut off")
                if tag >> 3 == 1:
                    address = message[at : at + length].decode()
                at += length
            case 1 | 5 as kind:
                at += 8 if kind == 1 else 4
                if at > len(message):
                    raise ValueError("cut off")
            case _:
                raise ValueError("no such wire type")
        if not tag >> 3:
            raise ValueError("no such field")
    return address, ends


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("too long")
