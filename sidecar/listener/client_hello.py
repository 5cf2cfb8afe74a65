"""Reading a TLS ClientHello without taking part in the handshake (RFC 8446 section 4.1.2, RFC 6066, RFC 7301)."""

from __future__ import annotations

from dataclasses import dataclass

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_MAX_RECORD = 16384
_SERVER_NAME = 0
_APPLICATION_PROTOCOLS = 16


class NotClientHello(ValueError):
    """The bytes are no TLS, or a ClientHello that nobody could read."""


class ClientHelloTooLarge(ValueError):
    """The ClientHello says that it is longer than the limit."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """The server name in lower case, empty without one, and the application protocols in the client's order."""

    server_name: str
    application_protocols: tuple[str, ...]


def parse_client_hello(data: bytes, limit: int) -> ClientHello | None:
    """The ClientHello at the beginning of ``data``, of at most ``limit`` bytes with its records; None: more is needed.

    Raises NotClientHello and ClientHelloTooLarge, as soon as the bytes say so. What follows is not looked at.
    """
    message = bytearray()
    at = 0
    wanted = 4
    while True:
        header = data[at : at + 5]
        if header and header[0] != _HANDSHAKE:
            raise NotClientHello("no handshake record")
        if len(header) > 1 and header[1] != 3:
            raise NotClientHello("no TLS version")
        if len(header) < 5:
            break
        size = int.from_bytes(header[3:5], "big")
        if not 0 < size <= _MAX_RECORD:
            raise NotClientHello("record length")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message and message[0] != _CLIENT_HELLO:
            raise NotClientHello("another handshake message")
        if len(message) >= 4:
            wanted = 4 + int.from_bytes(message[1:4], "big")
            if wanted + 5 > limit:
                raise ClientHelloTooLarge
            if len(message) >= wanted:
                return _parse_body(bytes(message[4:wanted]))
        if at > len(data):
            break
    if len(data) >= limit:
        raise ClientHelloTooLarge
    return None


class _Reader:
    """Fields of a message, front to back. Raises NotClientHello where it ends too early."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise NotClientHello("a field is longer than what holds it")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """A field after its length, which has ``size`` bytes."""
        return self.take(self.number(size))

    @property
    def left(self) -> bool:
        return self.at < len(self.data)


def _parse_body(body: bytes) -> ClientHello:
    reader = _Reader(body)
    reader.take(2 + 32)  # version, random
    if len(reader.vector(1)) > 32:
        raise NotClientHello("session id")
    suites = reader.vector(2)
    if not suites or len(suites) % 2 or not reader.vector(1):
        raise NotClientHello("cipher suites or compression methods")
    server_name = ""
    protocols: tuple[str, ...] = ()
    if reader.left:
        seen: set[int] = set()
        extensions = _Reader(reader.vector(2))
        while extensions.left:
            kind = extensions.number(2)
            content = extensions.vector(2)
            if kind in seen:
                raise NotClientHello("an extension twice")
            seen.add(kind)
            if kind == _SERVER_NAME:
                server_name = _parse_server_name(content)
            elif kind == _APPLICATION_PROTOCOLS:
                protocols = _parse_protocols(content)
        if reader.left:
            raise NotClientHello("bytes behind the extensions")
    return ClientHello(server_name, protocols)


def _parse_server_name(content: bytes) -> str:
    outer = _Reader(content)
    names = _Reader(outer.vector(2))
    kind, name = names.number(1), names.vector(2)
    if outer.left or names.left or kind != 0 or not 0 < len(name) <= 255:
        raise NotClientHello("server name")
    if any(not 0x20 < byte < 0x7F for byte in name):
        raise NotClientHello("server name")
    return name.decode("ascii").lower()


def _parse_protocols(content: bytes) -> tuple[str, ...]:
    outer = _Reader(content)
    listed = _Reader(outer.vector(2))
    protocols = []
    while listed.left:
        protocol = listed.vector(1)
        if not protocol:
            raise NotClientHello("application protocols")
        protocols.append(protocol.decode("latin-1"))
    if outer.left or not protocols:
        raise NotClientHello("application protocols")
    return tuple(protocols)
