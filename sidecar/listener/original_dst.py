"""The listener filter `original_dst`: the address that a connection was made to before iptables redirected it."""

from __future__ import annotations

import socket

from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo

_SO_ORIGINAL_DST = 80  # the same number for IPv6: IP6T_SO_ORIGINAL_DST
_SOCKADDR_IN = 16
_SOCKADDR_IN6 = 28


class OriginalDst:
    """Asks the kernel's connection tracking; a connection that was not redirected stays as it is."""

    __slots__ = ()

    peek = 0

    def inspect(self, sock: socket.socket, info: ConnectionInfo, data: bytes) -> int:
        address = original_destination(sock)
        if address is not None and address != info.local_address:
            info.local_address = address
        return 0


def original_destination(sock: socket.socket) -> Address | None:
    """The destination before redirection, or None where the kernel knows of none."""
    try:
        if sock.family == socket.AF_INET:
            return address_of_ipv4(sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN))
        if sock.family == socket.AF_INET6:
            return address_of_ipv6(sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6))
    except OSError:
        return None  # not redirected, or no connection tracking here
    return None


def address_of_ipv4(raw: bytes) -> Address:
    """The address in a ``struct sockaddr_in``."""
    return Address(socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big"))


def address_of_ipv6(raw: bytes) -> Address:
    """The address in a ``struct sockaddr_in6``."""
    return Address(socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big"))
