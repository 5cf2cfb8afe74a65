"""How the names in a cluster are resolved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sidecar.config.address import SocketAddress, parse_ip_address
from sidecar.config.core_types import seconds
from sidecar.config.fields import Node

_CARES = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Durations in seconds; after a failure the wait is `failure_base_interval`, growing to `failure_max_interval`.

    `dns_lookup_family` is AUTO, V4_ONLY, V6_ONLY, V4_PREFERRED or ALL. No `resolvers` means the system's.
    """

    dns_refresh_rate: float = 5.0
    dns_jitter: float = 0.0
    failure_base_interval: float | None = None
    failure_max_interval: float | None = None
    respect_dns_ttl: bool = False
    dns_lookup_family: str = "AUTO"
    resolvers: tuple[SocketAddress, ...] = ()
    use_tcp_for_dns_lookups: bool = False
    no_default_search_domain: bool = False


DEFAULT_DNS = DnsSettings()


def parse_dns_settings(node: Node) -> DnsSettings:
    """The DNS fields of a `Cluster`; equal settings are mostly one object."""
    resolution = node.child("dns_resolution_config")
    servers = node.children("dns_resolvers") if resolution is None else resolution.children("resolvers")
    options = None if resolution is None else resolution.child("dns_resolver_options")
    settings = DnsSettings(
        **_refresh(node),
        dns_lookup_family=node.enum("dns_lookup_family"),
        resolvers=_parse_resolvers(servers),
        use_tcp_for_dns_lookups=node.get("use_tcp_for_dns_lookups"),
    )
    settings = _with_resolver(_with_options(settings, options), node)
    return DEFAULT_DNS if settings == DEFAULT_DNS else settings


def parse_dns_cluster(node: Node) -> tuple[str, DnsSettings]:
    """The `DnsCluster` extension as a cluster type and its settings."""
    family = node.enum("dns_lookup_family")
    settings = DnsSettings(**_refresh(node), dns_lookup_family="AUTO" if family == "UNSPECIFIED" else family)
    cluster_type = "LOGICAL_DNS" if node.get("all_addresses_in_single_endpoint") else "STRICT_DNS"
    return cluster_type, _with_resolver(settings, node)


def parse_dns_cache_settings(node: Node) -> DnsSettings:
    """The DNS fields of a `DnsCacheConfig`."""
    resolution = node.child("dns_resolution_config")
    settings = DnsSettings(
        dns_refresh_rate=seconds(node, "dns_refresh_rate", 60.0),
        **_after_failures(node),
        respect_dns_ttl=True,
        dns_lookup_family=node.enum("dns_lookup_family"),
        resolvers=() if resolution is None else _parse_resolvers(resolution.children("resolvers")),
        use_tcp_for_dns_lookups=node.get("use_tcp_for_dns_lookups"),
    )
    options = None if resolution is None else resolution.child("dns_resolver_options")
    return _with_resolver(_with_options(settings, options), node)


def _refresh(node: Node) -> dict[str, Any]:
    return {
        "dns_refresh_rate": seconds(node, "dns_refresh_rate", 5.0),
        "dns_jitter": seconds(node, "dns_jitter", 0.0),
        **_after_failures(node),
        "respect_dns_ttl": node.get("respect_dns_ttl"),
    }


def _after_failures(node: Node) -> dict[str, Any]:
    base: float | None = None
    longest: float | None = None
    failure = node.child("dns_failure_refresh_rate")
    if failure is not None:
        base = seconds(failure, "base_interval", 5.0)
        longest = seconds(failure, "max_interval", base * 10)
        if longest < base:
            failure.refuse("is shorter than base_interval", "max_interval", "make it at least as long")
    return {"failure_base_interval": base, "failure_max_interval": longest}


def _parse_resolvers(nodes: Iterable[Node]) -> tuple[SocketAddress, ...]:
    servers = []
    for node in nodes:
        address = parse_ip_address(node, "a DNS server", udp=True)
        if isinstance(address, SocketAddress):
            servers.append(address)
        else:
            node.refuse("must be an IP address", do="name the DNS server by IP address and port")
    return tuple(servers)


def _with_options(settings: DnsSettings, node: Node | None) -> DnsSettings:
    if node is None:
        return settings
    return replace(
        settings,
        use_tcp_for_dns_lookups=node.get("use_tcp_for_dns_lookups"),
        no_default_search_domain=node.get("no_default_search_domain"),
    )


def _with_resolver(settings: DnsSettings, node: Node) -> DnsSettings:
    resolver = node.child("typed_dns_resolver_config")
    cares = None if resolver is None else resolver.extension(known=(_CARES,))
    if cares is None:
        return settings
    settings = replace(settings, resolvers=_parse_resolvers(cares.children("resolvers")))
    return _with_options(settings, cares.child("dns_resolver_options"))
