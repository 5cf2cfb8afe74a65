"""Transport sockets by endpoint: `Cluster.transport_socket_matches`, and which of them an endpoint gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config.core_types import Metadata
from sidecar.config.fields import Node
from sidecar.config.tls import UpstreamTlsContext, parse_upstream_proxy_protocol, parse_upstream_transport_socket

_LABELS: Final = "envoy.transport_socket_match"
"""The namespace of the endpoint's metadata that is looked into."""


@dataclass(frozen=True, slots=True)
class TransportSocketMatch:
    """A transport socket for endpoints that have all of `match` among their labels; None is the plain one.

    `proxy_protocol` is V1, V2 or empty: the version of the PROXY header that goes before it.
    """

    name: str
    match: tuple[tuple[str, Any], ...]
    transport_socket: UpstreamTlsContext | None
    proxy_protocol: str = ""


def parse_transport_socket_matches(cluster: Node) -> tuple[TransportSocketMatch, ...]:
    """Those of a `Cluster`, in their order."""
    found: list[TransportSocketMatch] = []
    for node in cluster.children("transport_socket_matches"):
        name = node.get("name")
        if any(one.name == name for one in found):
            node.refuse(f"is the second one called {name!r}", "name", "rename it")
        match = node.struct("match") or {}
        socket, proxy_protocol = parse_upstream_transport_socket(node), parse_upstream_proxy_protocol(node)
        found.append(TransportSocketMatch(name, tuple(match.items()), socket, proxy_protocol))
    return tuple(found)


def match_for(matches: Sequence[TransportSocketMatch], metadata: Metadata) -> TransportSocketMatch | None:
    """The first one that fits an endpoint with this metadata."""
    labels = metadata.get(_LABELS, {})
    missing = object()
    for one in matches:
        if all(labels.get(label, missing) == value for label, value in one.match):
            return one
    return None
