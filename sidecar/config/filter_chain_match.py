"""Which connections a filter chain is for: `envoy.config.listener.v3.FilterChainMatch`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from sidecar.config.address import CidrRange, parse_cidr_ranges
from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class FilterChainMatch:
    """Criteria, of which all must hold; an empty tuple, None, ANY or an empty string holds always.

    A server name that begins with a dot stands for all names that end so (`*.example.com` is `.example.com` here).
    `source_type` is ANY, SAME_IP_OR_LOOPBACK or EXTERNAL.
    """

    destination_port: int | None = None
    prefix_ranges: tuple[CidrRange, ...] = ()
    direct_source_prefix_ranges: tuple[CidrRange, ...] = ()
    source_type: str = "ANY"
    source_prefix_ranges: tuple[CidrRange, ...] = ()
    source_ports: tuple[int, ...] = ()
    server_names: tuple[str, ...] = ()
    transport_protocol: str = ""
    application_protocols: tuple[str, ...] = ()


NO_MATCH = FilterChainMatch()


def parse_filter_chain_match(node: Node | None) -> FilterChainMatch:
    """`FilterChainMatch`."""
    if node is None:
        return NO_MATCH
    return FilterChainMatch(
        node.wrapped("destination_port", None),
        parse_cidr_ranges(node.children("prefix_ranges")),
        parse_cidr_ranges(node.children("direct_source_prefix_ranges")),
        node.enum("source_type"),
        parse_cidr_ranges(node.children("source_prefix_ranges")),
        node.get("source_ports"),
        _parse_server_names(node),
        node.get("transport_protocol"),
        node.get("application_protocols"),
    )


def _parse_server_names(node: Node) -> tuple[str, ...]:
    names = []
    for name in node.get("server_names"):
        plain = name[1:] if name.startswith("*.") else name
        if "*" in plain:
            node.refuse(f"{name!r} has a wildcard that is not its first label", "server_names", "use *.example.com")
        names.append(plain)
    return tuple(names)


def refuse_overlaps(chains: Sequence[tuple[Node, FilterChainMatch]]) -> None:
    """Refuse a chain of a listener for which some combination of criteria is already another chain's."""
    owners: dict[tuple[object, ...], Node] = {}
    for node, match in chains:
        for key in _combinations(match):
            owner = owners.setdefault(key, node)
            if owner is not node:
                node.refuse(
                    f"matches connections that {owner.path} matches too",
                    "filter_chain_match",
                    "make the criteria of the two differ",
                )
                break


def _combinations(match: FilterChainMatch) -> Iterable[tuple[object, ...]]:
    return product(
        (match.destination_port,),
        match.prefix_ranges or (None,),
        match.server_names or ("",),
        (match.transport_protocol,),
        match.application_protocols or ("",),
        match.direct_source_prefix_ranges or (None,),
        (match.source_type,),
        match.source_prefix_ranges or (None,),
        match.source_ports or (None,),
    )
