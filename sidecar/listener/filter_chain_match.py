"""Which filter chain a connection belongs to: the criteria of all chains, compiled to nested lookups.

The criteria are asked one after another in Envoy's order. At each, only the chains with the most specific value that
holds go on; there is no way back, so a connection may match none although some chain alone would have taken it. A
criterion that no chain has costs nothing. Source: `envoy.config.listener.v3.FilterChainMatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeAlias, TypeVar

from sidecar.config.address import CidrRange
from sidecar.config.filter_chain_match import FilterChainMatch
from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo

T = TypeVar("T")

Find: TypeAlias = Callable[[ConnectionInfo], T | None]
"""The chain for a connection, None for none."""

_UNIX_SOCKET = IPv4Address("255.255.255.255")  # what Envoy takes for a connection without IP addresses


def compile_filter_chains(chains: Sequence[tuple[FilterChainMatch, T]], default: T | None = None) -> Find[T]:
    """The lookup over ``chains``; ``default`` is for connections that match none of them."""
    if not chains:
        return lambda info: default
    find = _compile(chains, 0)
    if default is None:
        return find
    return lambda info: _or(find(info), default)


def _or(found: T | None, default: T | None) -> T | None:
    return default if found is None else found


def _compile(chains: Sequence[tuple[FilterChainMatch, T]], level: int) -> Find[T]:
    if level == len(_LEVELS):
        chain = chains[0][1]
        return lambda info: chain
    keys_of, make = _LEVELS[level]
    grouped: dict[object, list[tuple[FilterChainMatch, T]]] = {}
    for entry in chains:
        for key in keys_of(entry[0]) or (None,):
            grouped.setdefault(key, []).append(entry)
    children: dict[object, Find[T]] = {key: _compile(group, level + 1) for key, group in grouped.items()}
    otherwise = children.pop(None, _nothing)
    if not children:
        return otherwise
    find: Find[T] = make(children, otherwise)
    return find


def _nothing(info: ConnectionInfo) -> None:
    return None


def is_local(info: ConnectionInfo) -> bool:
    """Whether the connection comes from this host: over a Unix socket, from loopback, or from its own destination."""
    remote = info.remote_address.parsed
    return remote is None or remote.is_loopback or info.remote_address.ip == info.local_address.ip


def _by_port(children: dict[object, Find[T]], otherwise: Find[T], address_of: Callable[[ConnectionInfo], Address]
             ) -> Find[T]:  # fmt: skip
    def find(info: ConnectionInfo) -> T | None:
        address = address_of(info)
        child = None if address.ip is None else children.get(address.port)
        return (otherwise if child is None else child)(info)

    return find


def _by_range(children: dict[object, Find[T]], otherwise: Find[T], address_of: Callable[[ConnectionInfo], Address]
              ) -> Find[T]:  # fmt: skip
    """The longest prefix that holds the address decides."""
    tables: dict[int, list[tuple[int, dict[int, Find[T]]]]] = {4: [], 6: []}
    for version, table in tables.items():
        networks = [key for key in children if isinstance(key, CidrRange) and key.version == version]
        for length in sorted({network.prefixlen for network in networks}, reverse=True):
            of_length = [network for network in networks if network.prefixlen == length]
            found = {int(network.network_address): children[network] for network in of_length}
            table.append((int(of_length[0].netmask), found))

    def find(info: ConnectionInfo) -> T | None:
        parsed: IPv4Address | IPv6Address = address_of(info).parsed or _UNIX_SOCKET
        number = int(parsed)
        for mask, networks in tables[parsed.version]:
            child = networks.get(number & mask)
            if child is not None:
                return child(info)
        return otherwise(info)

    return find


def _by_server_name(children: dict[object, Find[T]], otherwise: Find[T]) -> Find[T]:
    def find(info: ConnectionInfo) -> T | None:
        name = info.requested_server_name
        if name:
            child = children.get(name)
            if child is not None:
                return child(info)
            at = name.find(".", 1)
            while 0 < at < len(name) - 1:
                child = children.get(name[at:])
                if child is not None:
                    return child(info)
                at = name.find(".", at + 1)
        return otherwise(info)

    return find


def _by_transport_protocol(children: dict[object, Find[T]], otherwise: Find[T]) -> Find[T]:
    return lambda info: children.get(info.transport_protocol, otherwise)(info)


def _by_application_protocols(children: dict[object, Find[T]], otherwise: Find[T]) -> Find[T]:
    def find(info: ConnectionInfo) -> T | None:
        for protocol in info.application_protocols:
            child = children.get(protocol)
            if child is not None:
                return child(info)
        return otherwise(info)

    return find


def _by_source_type(children: dict[object, Find[T]], otherwise: Find[T]) -> Find[T]:
    local = children.get("SAME_IP_OR_LOOPBACK", otherwise)
    external = children.get("EXTERNAL", otherwise)
    return lambda info: (local if is_local(info) else external)(info)


def _lower(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


_LEVELS: tuple[tuple[Callable[[FilterChainMatch], Sequence[object]], Callable[..., Find[Any]]], ...] = (
    (
        lambda match: () if match.destination_port is None else (match.destination_port,),
        lambda children, otherwise: _by_port(children, otherwise, lambda info: info.local_address),
    ),
    (
        lambda match: match.prefix_ranges,
        lambda children, otherwise: _by_range(children, otherwise, lambda info: info.local_address),
    ),
    (lambda match: _lower(match.server_names), _by_server_name),
    (lambda match: (match.transport_protocol or None,), _by_transport_protocol),
    (lambda match: match.application_protocols, _by_application_protocols),
    (
        lambda match: match.direct_source_prefix_ranges,
        lambda children, otherwise: _by_range(children, otherwise, lambda info: info.direct_remote_address),
    ),
    (lambda match: () if match.source_type == "ANY" else (match.source_type,), _by_source_type),
    (
        lambda match: match.source_prefix_ranges,
        lambda children, otherwise: _by_range(children, otherwise, lambda info: info.remote_address),
    ),
    (
        lambda match: match.source_ports,
        lambda children, otherwise: _by_port(children, otherwise, lambda info: info.remote_address),
    ),
)


def conditions(match: FilterChainMatch) -> Iterator[tuple[int, Callable[[ConnectionInfo], bool]]]:
    """The criteria of one chain, each alone with its place in the order in which they are asked; for explaining."""
    for level, (keys_of, make) in enumerate(_LEVELS):
        keys = keys_of(match)
        if keys and None not in keys:
            found: Find[bool] = make(dict.fromkeys(keys, lambda info: True), _nothing)
            yield level, lambda info, find=found: find(info) is not None  # type: ignore[misc]
