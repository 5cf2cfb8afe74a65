"""Where connections to endpoints come from: `core.v3.BindConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.address import SocketAddress, is_ip
from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class BindConfig:
    """Connections come from the first of `addresses` that is of the endpoint's IP version, else from the first of all.

    Port 0 is any. With `freebind` the address need not be one of this machine's.
    """

    addresses: tuple[SocketAddress, ...]
    freebind: bool = False


def parse_bind_config(node: Node) -> BindConfig | None:
    """`core.v3.BindConfig` of a cluster; None where it has no address."""
    source = node.child("source_address")
    extra = [_parse_source(one) for each in node.children("extra_source_addresses") if (one := each.child("address"))]
    freebind = node.wrapped("freebind", False)
    if source is None:
        if extra:
            node.refuse("has no effect without source_address", "extra_source_addresses", "set source_address too")
        return None
    addresses = (_parse_source(source), *extra)
    if len(addresses) > 2:
        node.refuse("has more than one entry", "extra_source_addresses", "keep one, of the other IP version")
    elif len(addresses) == 2 and (":" in addresses[0].address) == (":" in addresses[1].address):
        node.refuse(
            "is of the same IP version as source_address", "extra_source_addresses", "write one of the other version"
        )
    return BindConfig(addresses, freebind)


def _parse_source(node: Node) -> SocketAddress:
    if node.get("protocol"):
        node.refuse("UDP is not implemented by Mizzen", "protocol", "use TCP")
    if node.which("port_specifier") == "named_port":
        node.get("named_port")
        node.refuse("named ports are not implemented by Mizzen", "named_port", "write a number as port_value")
    address, port = node.get("address"), node.get("port_value")
    if not is_ip(address):
        node.refuse(f"{address!r} is no IP address", "address", "write an IP address of this machine")
        return SocketAddress("0.0.0.0", 0)
    return SocketAddress(address, port)
