"""A cache of names that requests ask for: `envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig`.

The filter and the cluster of a dynamic forward proxy share one cache when both give it the same name, and the same settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.address import SocketAddress
from sidecar.config.core_types import seconds
from sidecar.config.dns import DnsSettings, parse_dns_cache_settings
from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class DnsCacheConfig:
    """Durations in seconds.

    `dns` says how, and how often, names are looked up: `dns_refresh_rate` is the wait after an answer without addresses, and
    after a failure, unless that has intervals of its own; an answer with addresses is good for its time to live, at least
    `min_refresh_rate`. A host that was not picked for `host_ttl` leaves. Of `max_hosts` no further one comes in; no more than
    `max_pending_requests` wait at a time. A lookup that takes `query_timeout` has failed (0: it never does).
    """

    name: str
    dns: DnsSettings
    min_refresh_rate: float = 5.0
    host_ttl: float = 300.0
    max_hosts: int = 1024
    max_pending_requests: int = 1024
    query_timeout: float = 5.0
    refreshes_failures: bool = True
    preresolve_hostnames: tuple[SocketAddress, ...] = ()


def parse_dns_cache_config(node: Node) -> DnsCacheConfig:
    """`DnsCacheConfig`, all but `key_value_config`: nothing is kept on disk."""
    breaker = node.child("dns_cache_circuit_breaker")
    return DnsCacheConfig(
        node.get("name"),
        parse_dns_cache_settings(node),
        seconds(node, "dns_min_refresh_rate", 5.0),
        seconds(node, "host_ttl", 300.0),
        node.wrapped("max_hosts", 1024),
        1024 if breaker is None else breaker.wrapped("max_pending_requests", 1024),
        seconds(node, "dns_query_timeout", 5.0),
        not node.get("disable_dns_refresh_on_failure"),
        tuple(_parse_hostname(one) for one in node.children("preresolve_hostnames")),
    )


def _parse_hostname(node: Node) -> SocketAddress:
    node.get("protocol")
    if node.which("port_specifier") != "port_value":
        node.get("named_port")
        node.refuse("has no number of a port", "port_value", "write it")
    return SocketAddress(node.get("address"), node.get("port_value"))
