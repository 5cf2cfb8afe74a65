"""What to accept and how to choose its filters: `envoy.config.listener.v3.Listener`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.config.access_log import AccessLog, parse_access_logs
from sidecar.config.address import NO_ADDRESS, Address, Pipe, parse_ip_address
from sidecar.config.core_types import (
    Metadata,
    SocketOption,
    has_plain_transport_socket,
    parse_metadata,
    parse_socket_options,
    seconds,
)
from sidecar.config.fields import Node
from sidecar.config.filter_chain_match import NO_MATCH, FilterChainMatch, parse_filter_chain_match, refuse_overlaps
from sidecar.config.listener_filters import ListenerFilter, OriginalDst, parse_listener_filters
from sidecar.config.network_filters import NetworkFilter, parse_network_filters

if TYPE_CHECKING:
    from sidecar.config.tls import DownstreamTlsContext


@dataclass(frozen=True, slots=True)
class FilterChain:
    """The network filters, in order, of the connections that `filter_chain_match` describes.

    `transport_socket` None is the plain one; `transport_socket_connect_timeout` is how long TLS handshakes may take, in
    seconds, 0 for ever.
    """

    filters: tuple[NetworkFilter, ...]
    filter_chain_match: FilterChainMatch = NO_MATCH
    name: str = ""
    metadata: Metadata = field(default_factory=dict)
    transport_socket: DownstreamTlsContext | None = None
    transport_socket_connect_timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class AdditionalAddress:
    """One more address to listen on, and its socket options (the listener's own when None)."""

    address: Address
    socket_options: tuple[SocketOption, ...] | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener.

    `name` is never empty. `stat_prefix` is empty when statistics are to be named after the address.
    `listener_filters_timeout` is in seconds, 0 waits for ever. `tcp_backlog_size` None is the system's maximum,
    `max_connections_to_accept_per_socket_event` None is no limit,
    `tcp_fast_open_queue_length` None leaves TCP Fast Open alone, 0 switches it off.
    """

    name: str
    address: Address
    filter_chains: tuple[FilterChain, ...] = ()
    default_filter_chain: FilterChain | None = None
    additional_addresses: tuple[AdditionalAddress, ...] = ()
    stat_prefix: str = ""
    use_original_dst: bool = False
    per_connection_buffer_limit_bytes: int = 1048576
    metadata: Metadata = field(default_factory=dict)
    listener_filters: tuple[ListenerFilter, ...] = ()
    listener_filters_timeout: float = 15.0
    continue_on_listener_filters_timeout: bool = False
    transparent: bool = False
    freebind: bool = False
    socket_options: tuple[SocketOption, ...] = ()
    tcp_fast_open_queue_length: int | None = None
    traffic_direction: str = "UNSPECIFIED"
    access_log: tuple[AccessLog, ...] = ()
    tcp_backlog_size: int | None = None
    max_connections_to_accept_per_socket_event: int | None = None
    bind_to_port: bool = True
    enable_reuse_port: bool = True
    drain_type: str = "DEFAULT"
    ignore_global_conn_limit: bool = False
    bypass_overload_manager: bool = False


def parse_listener(node: Node) -> Listener:
    """`Listener`. One without a name is called after its address."""
    address_node = node.child("address")
    address: Address = NO_ADDRESS
    if address_node is None:
        node.refuse("is required", "address", "say where to listen")
    else:
        address = parse_ip_address(address_node, "a listener's address")
    additional = tuple(map(_parse_additional_address, node.children("additional_addresses")))
    name = node.get("name") or str(address)
    node.context.declare("listener", name, node)
    nodes, default = node.children("filter_chains"), node.child("default_filter_chain")
    if not nodes and default is None:
        node.refuse("has no filter chain", "filter_chains", "add one")
    chains = tuple(map(_parse_filter_chain, nodes))
    refuse_overlaps([(chain, parsed.filter_chain_match) for chain, parsed in zip(nodes, chains, strict=True)])
    bind_to_port = node.wrapped("bind_to_port", True)
    if bind_to_port:
        _declare_addresses(node, (address, *(more.address for more in additional)))
    node.ignore("connection_balance_config", "connections are always spread evenly over workers")
    return Listener(
        name,
        address,
        chains,
        None if default is None else _parse_filter_chain(default),
        additional,
        node.get("stat_prefix"),
        node.wrapped("use_original_dst", False),
        node.wrapped("per_connection_buffer_limit_bytes", 1048576),
        parse_metadata(node.child("metadata")),
        _parse_filters(node),
        seconds(node, "listener_filters_timeout", 15.0),
        node.get("continue_on_listener_filters_timeout"),
        node.wrapped("transparent", False),
        node.wrapped("freebind", False),
        parse_socket_options(node.children("socket_options")),
        node.wrapped("tcp_fast_open_queue_length", None),
        node.enum("traffic_direction"),
        parse_access_logs(node.children("access_log")),
        node.wrapped("tcp_backlog_size", None),
        node.wrapped("max_connections_to_accept_per_socket_event", None),
        bind_to_port,
        node.wrapped("enable_reuse_port", True),
        node.enum("drain_type"),
        node.get("ignore_global_conn_limit"),
        node.get("bypass_overload_manager"),
    )


def _parse_filters(node: Node) -> tuple[ListenerFilter, ...]:
    """The listener filters; `use_original_dst` brings `original_dst` with it, behind all others, as in Envoy."""
    found = parse_listener_filters(node.children("listener_filters"))
    if node.wrapped("use_original_dst", False) and not any(isinstance(one.typed_config, OriginalDst) for one in found):
        return (*found, ListenerFilter("envoy.filters.listener.original_dst", OriginalDst()))
    return found


def _declare_addresses(node: Node, addresses: Iterable[Address]) -> None:
    for address in addresses:
        if isinstance(address, Pipe) or address.port_value:
            node.context.declare("address to listen on", str(address), node, "address")


def _parse_additional_address(node: Node) -> AdditionalAddress:
    address, override = node.child("address"), node.child("socket_options")
    if address is None:
        node.refuse("is required", "address", "say where to listen")
    return AdditionalAddress(
        NO_ADDRESS if address is None else parse_ip_address(address, "a listener's address"),
        None if override is None else parse_socket_options(override.children("socket_options")),
    )


def _parse_filter_chain(node: Node) -> FilterChain:
    return FilterChain(
        parse_network_filters(node.children("filters")),
        parse_filter_chain_match(node.child("filter_chain_match")),
        node.get("name"),
        parse_metadata(node.child("metadata")),
        _parse_transport_socket(node),
        seconds(node, "transport_socket_connect_timeout", 15.0),
    )


def _parse_transport_socket(node: Node) -> DownstreamTlsContext | None:
    if has_plain_transport_socket(node):
        return None
    from sidecar.config.tls import parse_downstream_transport_socket  # only for those who use it

    return parse_downstream_transport_socket(node)
