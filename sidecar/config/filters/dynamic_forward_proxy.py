"""Hosts that requests name: `extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.dns_cache import DnsCacheConfig, parse_dns_cache_config
from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class DynamicForwardProxy:
    """The cache that the names of requests are looked up in; None where the configuration has been refused."""

    dns_cache: DnsCacheConfig | None


@dataclass(frozen=True, slots=True)
class DynamicForwardProxyPerRoute:
    """The host that is meant, whatever a request says: this one, or the one in a header of this name (in lower case)."""

    host_rewrite_literal: bytes = b""
    host_rewrite_header: bytes = b""


def parse_dynamic_forward_proxy(node: Node) -> DynamicForwardProxy:
    """`FilterConfig` with a cache of names."""
    cache = node.child("dns_cache_config")
    if cache is None:
        node.refuse("is required: sub-clusters are not implemented by Mizzen", "dns_cache_config", "name a cache")
        return DynamicForwardProxy(None)
    return DynamicForwardProxy(parse_dns_cache_config(cache))


def parse_dynamic_forward_proxy_per_route(node: Node) -> DynamicForwardProxyPerRoute:
    """`PerRouteConfig`."""
    match node.which("host_rewrite_specifier"):
        case "host_rewrite_literal":
            return DynamicForwardProxyPerRoute(host_rewrite_literal=node.get("host_rewrite_literal").encode())
        case "host_rewrite_header":
            return DynamicForwardProxyPerRoute(host_rewrite_header=node.get("host_rewrite_header").lower().encode())
    return DynamicForwardProxyPerRoute()
