"""Connections that a service counts: `extensions.filters.network.ratelimit.v3.RateLimit`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.core_types import Fraction
from sidecar.config.fields import Node
from sidecar.config.grpc_service import GrpcService, parse_rate_limit_service

TYPE = "envoy.extensions.filters.network.ratelimit.v3.RateLimit"

_TIMEOUT = 0.02


@dataclass(frozen=True, slots=True)
class NetworkRateLimit:
    """Ask `rate_limit_service`, with `domain` and `descriptors`, whether a connection may come.

    The descriptors are (key, format) pairs. `timeout` is in seconds, 0 for none. Without an answer the connection may come,
    unless `failure_mode_deny`. `enabled` is the share of connections for which the service is asked, `enforced` the share of
    those over a limit that are closed.
    """

    stat_prefix: str
    domain: str
    descriptors: tuple[tuple[tuple[str, str], ...], ...]
    rate_limit_service: GrpcService
    timeout: float = _TIMEOUT
    failure_mode_deny: bool = False
    enabled: Fraction = (100, 100)
    enforced: Fraction = (100, 100)


def parse_network_rate_limit(node: Node) -> NetworkRateLimit:
    """`ratelimit.v3.RateLimit` of a filter chain."""
    timeout = node.duration("timeout")
    return NetworkRateLimit(
        node.get("stat_prefix"),
        node.get("domain"),
        tuple(map(_parse_descriptor, node.children("descriptors"))),
        parse_rate_limit_service(node.child("rate_limit_service")),
        _TIMEOUT if timeout is None else timeout,
        node.get("failure_mode_deny"),
        _share(node, "ratelimit.tcp_filter_enabled"),
        _share(node, "ratelimit.tcp_filter_enforcing"),
    )


def _share(node: Node, key: str) -> Fraction:
    percent = node.context.runtime.integer(key)
    return (100 if percent is None else percent, 100)


def _parse_descriptor(node: Node) -> tuple[tuple[str, str], ...]:
    node.ignore("limit", "the service's own limits hold, as in Envoy")
    node.ignore("hits_addend", "a connection counts once, as in Envoy")
    return tuple((entry.get("key"), entry.format("value")) for entry in node.children("entries"))
