"""What all listeners have in common: an address that nobody else has, a direction, inspectors where they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from controlplane.model.proxy import Proxy
from controlplane.model.resource import ResourceKey
from controlplane.pilot.routes.virtual_hosts import encode_bytes
from controlplane.pilot.scope import Generated, Scope
from controlplane.pilot.security.inbound_tls import PLAIN_HTTP

INBOUND = base_pb2.TrafficDirection.INBOUND
OUTBOUND = base_pb2.TrafficDirection.OUTBOUND
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"
UNIX = "unix://"

_INSPECTORS = {
    "envoy.filters.listener.original_dst": original_dst_pb2.OriginalDst,
    "envoy.filters.listener.tls_inspector": tls_inspector_pb2.TlsInspector,
    "envoy.filters.listener.http_inspector": http_inspector_pb2.HttpInspector,
}


def holder(taken: Mapping[tuple[str, int], str], address: str, number: int) -> str | None:
    """Who of those that have taken addresses stands in the way of another one on this address; None if nobody does."""
    for (other, port), owner in taken.items():
        if port == number and (other == address or ANY_ADDRESS in (other, address)):
            return owner
    return None


def listener_name(address: str, port: int) -> str:
    """Istio's name of a listener on an address and port, or on a Unix socket."""
    return address if address.startswith(UNIX) else f"{address}_{port}"


def new_listener(
    address: str, port: int, chains: Sequence[Any], direction: int, *, name: str = "", mesh: Any, bind: bool = True
) -> Any:
    """A `Listener` of its own (`enable_reuse_port` is off, so that a second one on the address is an error, not a share).

    It inspects what its filter chains ask for. Without ``bind`` it only takes connections that another listener hands to
    it (`use_original_dst`).
    """
    made = listener_pb2.Listener(
        name=name or listener_name(address, port), filter_chains=chains, traffic_direction=direction
    )
    if address.startswith(UNIX):
        made.address.pipe.path = address.removeprefix(UNIX)
    else:
        made.address.socket_address.address = address
        made.address.socket_address.port_value = port
    made.enable_reuse_port.value = False
    if not bind:
        made.bind_to_port.value = False
    matches = [chain.filter_chain_match for chain in chains]
    if any(match.server_names or match.transport_protocol == "tls" for match in matches):
        add_listener_filter(made, "envoy.filters.listener.tls_inspector")
    if any(protocol in PLAIN_HTTP for match in matches for protocol in match.application_protocols):
        add_listener_filter(made, "envoy.filters.listener.http_inspector")
    if made.listener_filters:
        # A client that waits for the server's first word gets the chain for everything else when the time is up.
        made.listener_filters_timeout.FromNanoseconds(round((mesh.protocol_detection_timeout or 0.0) * 1e9))
        made.continue_on_listener_filters_timeout = True
    return made


def add_listener_filter(listener: Any, name: str) -> None:
    """Add a listener filter by its well-known name."""
    listener.listener_filters.add(name=name).typed_config.Pack(_INSPECTORS[name](), deterministic=True)


def keep_addresses(listener: Any, proxy: Proxy) -> None:
    """With interception by TPROXY a listener takes connections that are addressed to others."""
    if proxy.metadata.get("INTERCEPTION_MODE") == "TPROXY":
        listener.transparent.value = True


def chain(*filters: Any, name: str = "", **match: Any) -> Any:
    """A filter chain of network filters; ``match`` are fields of `FilterChainMatch`."""
    made = components.FilterChain(name=name, filters=filters)
    if match:
        made.filter_chain_match.CopyFrom(components.FilterChainMatch(**match))
    return made


def without_overlaps(chains: Iterable[Any]) -> list[Any]:
    """Filter chains as they are where no two are for the same connections; else the earlier one has them, and the later one
    is for the rest of its server names and destinations. Proxies refuse a listener whose filter chains overlap.
    """
    made: list[Any] = []
    taken: set[tuple[bytes, bytes, str]] = set()
    for one in chains:
        match = one.filter_chain_match
        rest = components.FilterChainMatch()
        rest.CopyFrom(match)
        rest.ClearField("server_names")
        rest.ClearField("prefix_ranges")
        conditions = rest.SerializeToString(deterministic=True)
        free: dict[tuple[str, ...], list[Any]] = {}
        for block in match.prefix_ranges or (None,):
            to = b"" if block is None else block.SerializeToString(deterministic=True)
            asked = dict.fromkeys(match.server_names or ("",))
            names = tuple(name for name in asked if (conditions, to, name) not in taken)
            taken.update((conditions, to, name) for name in names)
            if names:
                free.setdefault(names, []).append(block)
        for names, blocks in free.items():
            left = components.FilterChain()
            left.CopyFrom(one)
            if match.server_names:
                left.filter_chain_match.server_names[:] = names
            if match.prefix_ranges:
                del left.filter_chain_match.prefix_ranges[:]
                left.filter_chain_match.prefix_ranges.extend(blocks)
            made.append(left)
    return made


def generated(scope: Scope, message: Any, causes: Sequence[ResourceKey] = ()) -> Generated:
    """The resource of a listener; the same object as long as it is the same."""
    made = encode_bytes(message.name, message.SerializeToString(deterministic=True))
    kept = scope.memo.get(("listener", made.name, made.version), lambda: made)
    return Generated(kept, tuple(dict.fromkeys(causes)))
