"""What looks at a connection before its filter chain is chosen: `envoy.config.listener.v3.ListenerFilter`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.fields import Node

_LISTENER = "envoy.extensions.filters.listener"


@dataclass(frozen=True, slots=True)
class OriginalDst:
    """Restore the address that the connection was made to before iptables redirected it."""


@dataclass(frozen=True, slots=True)
class TlsInspector:
    """Tell TLS from plain text, and learn the server name and the application protocols of the ClientHello.

    `max_client_hello_size` is in bytes.
    """

    max_client_hello_size: int = 16384
    close_connection_on_client_hello_parsing_errors: bool = False


@dataclass(frozen=True, slots=True)
class HttpInspector:
    """Tell HTTP/1.0, HTTP/1.1 and HTTP/2 from what is none of them."""


@dataclass(frozen=True, slots=True)
class TlvRule:
    """Put the TLV of this type into the dynamic metadata."""

    tlv_type: int
    metadata_namespace: str
    key: str


@dataclass(frozen=True, slots=True)
class ProxyProtocol:
    """Take the client's address from a PROXY header. `disallowed_versions` is a part of {"V1", "V2"}."""

    rules: tuple[TlvRule, ...] = ()
    allow_requests_without_proxy_protocol: bool = False
    disallowed_versions: frozenset[str] = frozenset()
    stat_prefix: str = ""


ListenerFilterConfig: TypeAlias = OriginalDst | TlsInspector | HttpInspector | ProxyProtocol


@dataclass(frozen=True, slots=True)
class OrMatch:
    """One of these must hold."""

    rules: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AndMatch:
    """All of these must hold."""

    rules: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class NotMatch:
    """This must not hold."""

    rule: Predicate


@dataclass(frozen=True, slots=True)
class AnyMatch:
    """Holds always."""


@dataclass(frozen=True, slots=True)
class DestinationPortRange:
    """The destination port is at least `start` and below `end`."""

    start: int
    end: int


Predicate: TypeAlias = OrMatch | AndMatch | NotMatch | AnyMatch | DestinationPortRange


@dataclass(frozen=True, slots=True)
class ListenerFilter:
    """One listener filter; it is left out for connections of which `filter_disabled` holds."""

    name: str
    typed_config: ListenerFilterConfig
    filter_disabled: Predicate | None = None


def parse_listener_filters(nodes: Iterable[Node]) -> tuple[ListenerFilter, ...]:
    """The listener filters of a listener, in order. Refused ones are left out."""
    filters = []
    for node in nodes:
        disabled = node.child("filter_disabled")
        extension = node.extension(known=_parsers)
        if extension is not None:
            config = _parsers[extension.type_name](extension)
            predicate = None if disabled is None else _parse_predicate(disabled)
            filters.append(ListenerFilter(node.get("name"), config, predicate))
    return tuple(filters)


def _parse_predicate(node: Node) -> Predicate:
    match node.which("rule"):
        case "or_match":
            return OrMatch(_parse_rules(node.child("or_match")))
        case "and_match":
            return AndMatch(_parse_rules(node.child("and_match")))
        case "not_match":
            rule = node.child("not_match")
            return AnyMatch() if rule is None else NotMatch(_parse_predicate(rule))
        case "destination_port_range":
            ports = node.child("destination_port_range")
            return AnyMatch() if ports is None else DestinationPortRange(ports.get("start"), ports.get("end"))
        case _:
            node.get("any_match")
            return AnyMatch()


def _parse_rules(node: Node | None) -> tuple[Predicate, ...]:
    return () if node is None else tuple(map(_parse_predicate, node.children("rules")))


def _parse_tls_inspector(node: Node) -> TlsInspector:
    node.ignore("initial_read_buffer_size", "the ClientHello is peeked at whole")
    return TlsInspector(
        node.wrapped("max_client_hello_size", 16384), node.get("close_connection_on_client_hello_parsing_errors")
    )


def _parse_proxy_protocol(node: Node) -> ProxyProtocol:
    rules = []
    for rule in node.children("rules"):
        target = rule.child("on_tlv_present")
        if target is not None:
            namespace = target.get("metadata_namespace") or "envoy.filters.listener.proxy_protocol"
            rules.append(TlvRule(rule.get("tlv_type"), namespace, target.get("key")))
    disallowed = frozenset(node.enums("disallowed_versions"))
    if {"V1", "V2"} <= disallowed:
        node.refuse("leaves no version of the PROXY protocol allowed", "disallowed_versions", "allow V1 or V2")
    return ProxyProtocol(
        tuple(rules), node.get("allow_requests_without_proxy_protocol"), disallowed, node.get("stat_prefix")
    )


_parsers: dict[str, Callable[[Node], ListenerFilterConfig]] = {
    f"{_LISTENER}.original_dst.v3.OriginalDst": lambda _: OriginalDst(),
    f"{_LISTENER}.tls_inspector.v3.TlsInspector": _parse_tls_inspector,
    f"{_LISTENER}.http_inspector.v3.HttpInspector": lambda _: HttpInspector(),
    f"{_LISTENER}.proxy_protocol.v3.ProxyProtocol": _parse_proxy_protocol,
}
