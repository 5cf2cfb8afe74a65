"""Socket addresses as the request path and the logs need them: rendered once, when the address is learned."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address


class Address:
    """An IP address and port, or a Unix socket path. ``text`` is Envoy's rendering: ``1.2.3.4:80``, ``[::1]:80``, path.

    ``ip`` is the text of the IP address (None for a Unix socket), ``packed`` its bytes, for matching CIDR ranges.
    """

    __slots__ = ("_parsed", "ip", "path", "port", "text")

    def __init__(self, ip: str | None, port: int = 0, path: str = "") -> None:
        self.ip = ip
        self.port = port
        self.path = path
        if ip is None:
            self.text = path
        else:
            self.text = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        self._parsed: IPv4Address | IPv6Address | None = None

    @property
    def parsed(self) -> IPv4Address | IPv6Address | None:
        """The IP address as an object, made on first use; None for a Unix socket."""
        if self._parsed is None and self.ip is not None:
            self._parsed = ip_address(self.ip)
        return self._parsed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<Address {self.text}>"


def from_socket_name(family: int, name: object) -> Address:
    """The address behind what ``getsockname`` or ``getpeername`` returned; an IPv4-mapped IPv6 address becomes IPv4."""
    if family == socket.AF_UNIX:
        path = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return Address(None, 0, path.replace("\x00", "@", 1))
    assert isinstance(name, tuple)
    ip, port = str(name[0]).partition("%")[0], int(name[1])
    if ip.startswith("::ffff:") and "." in ip:
        ip = ip[7:]
    return Address(ip, port)
