"""Where to listen and where to connect to: `envoy.config.core.v3.Address` and address ranges."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from sidecar.config.fields import Node

_PATH_BYTES = 107  # what fits into sockaddr_un.sun_path beside the closing NUL


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An IP address, or a host name where a DNS cluster resolves it, and a TCP port.

    `ipv4_compat` lets a listener on an IPv6 address take IPv4 connections too.
    """

    address: str
    port_value: int
    ipv4_compat: bool = False

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port_value}" if ":" in self.address else f"{self.address}:{self.port_value}"


@dataclass(frozen=True, slots=True)
class Pipe:
    """A Unix stream socket. A path that begins with `@` is in the abstract namespace; `mode` 0 leaves the umask's."""

    path: str
    mode: int = 0

    def __str__(self) -> str:
        return self.path


Address: TypeAlias = SocketAddress | Pipe
CidrRange: TypeAlias = IPv4Network | IPv6Network

NO_ADDRESS = SocketAddress("0.0.0.0", 0)
"""Stands in for an address that was refused, so that the rest of the file is still looked at."""


def is_ip(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address, with or without a zone."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        socket.inet_pton(family, text)
    except OSError:
        return "%" in text and _is_zoned(text)
    return True


def _is_zoned(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def parse_address(node: Node, *, udp: bool = False) -> Address:
    """`core.v3.Address`: a TCP address, whose host may be a name, or a Unix socket."""
    match node.which("address"):
        case "socket_address":
            inner = node.child("socket_address")
            return NO_ADDRESS if inner is None else _parse_socket_address(inner, udp)
        case "pipe":
            inner = node.child("pipe")
            return NO_ADDRESS if inner is None else _parse_pipe(inner)
        case _:
            return NO_ADDRESS


def _parse_socket_address(node: Node, udp: bool) -> SocketAddress:
    if node.get("protocol") and not udp:
        node.refuse("UDP is not implemented by Mizzen", "protocol", "use TCP")
    if node.which("port_specifier") == "named_port":
        node.get("named_port")
        node.refuse("named ports are not implemented by Mizzen", "named_port", "write a number as port_value")
    return SocketAddress(node.get("address"), node.get("port_value"), node.get("ipv4_compat"))


def _parse_pipe(node: Node) -> Pipe:
    path = node.get("path")
    if len(path.encode()) > _PATH_BYTES:
        node.refuse(f"is longer than the {_PATH_BYTES} bytes that a Unix socket may have", "path", "shorten it")
    return Pipe(path, node.get("mode"))


def parse_ip_address(node: Node, what: str, *, udp: bool = False) -> Address:
    """An address whose host must be an IP address; `what` says whose, in the problem. UDP is refused unless `udp`."""
    address = parse_address(node, udp=udp)
    if isinstance(address, SocketAddress) and not is_ip(address.address):
        node.refuse(
            f"{what} must be an IP address, and {address.address!r} is none",
            "socket_address.address",
            "write an IP address, or use a STRICT_DNS or LOGICAL_DNS cluster for a name",
        )
        return NO_ADDRESS
    return address


def parse_cidr_ranges(nodes: Iterable[Node]) -> tuple[CidrRange, ...]:
    """A list of `core.v3.CidrRange`; bits behind the prefix are dropped, as Envoy does."""
    ranges = []
    for node in nodes:
        prefix, length = node.get("address_prefix"), node.wrapped("prefix_len", 0)
        try:
            ranges.append(_network(prefix, length))
        except ValueError as error:
            node.refuse(f"is no address range: {error}", do="write an IP address and the length of its prefix")
    return tuple(ranges)


@lru_cache(maxsize=1024)
def _network(prefix: str, length: int) -> CidrRange:
    return ip_network((prefix, length), strict=False)
