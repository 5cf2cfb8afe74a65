"""What of a request rate limits count: actions compiled to functions that give a descriptor's entries.

Source: Envoy's ``route.v3.RateLimit.Action`` reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from sidecar.config.rate_limit import (
    DestinationCluster,
    GenericKey,
    HeaderValueMatch,
    MaskedRemoteAddress,
    MetadataAction,
    QueryParameters,
    QueryParameterValueMatch,
    RateLimit,
    RateLimitAction,
    RemoteAddress,
    RequestHeaders,
    SourceCluster,
)
from sidecar.core.matching import compile_headers, compile_query_parameter, query_parameter
from sidecar.core.metadata_match import metadata_value

Entry: TypeAlias = tuple[bytes, bytes]
"""Key and value."""

Descriptor: TypeAlias = tuple[tuple[Entry, ...], int]
"""The entries, and how many times the request counts."""

Populate = Callable[[Any], list[Descriptor]]
"""The descriptors of a request, from its stream."""

SKIP = b""
"""What an action gives that adds no entry but keeps the descriptor."""

_Action = Callable[[Any], Entry | bytes | None]


def compile_rate_limits(rate_limits: Iterable[RateLimit], node_cluster: str) -> Populate:
    """All of them as one function. A rate limit of which an action yields nothing gives no descriptor."""
    compiled = tuple(
        (tuple(_compile_action(action, node_cluster) for action in limit.actions), limit.hits_addend)
        for limit in rate_limits
    )

    def populate(stream: Any) -> list[Descriptor]:
        descriptors: list[Descriptor] = []
        for actions, hits in compiled:
            entries: list[Entry] = []
            for action in actions:
                entry = action(stream)
                if entry is None:
                    break
                if entry is not SKIP:
                    entries.append(entry)  # type: ignore[arg-type]
            else:
                if entries:
                    descriptors.append((tuple(entries), hits))
        return descriptors

    return populate


def _compile_action(action: RateLimitAction, node_cluster: str) -> _Action:
    match action:
        case SourceCluster():
            source = (b"source_cluster", node_cluster.encode())
            return lambda stream: source
        case GenericKey():
            generic = (action.descriptor_key.encode(), action.descriptor_value.encode())
            return lambda stream: generic
        case DestinationCluster():
            return _destination_cluster
        case RemoteAddress():
            return _remote_address
        case MaskedRemoteAddress():
            return _masked_remote_address(action)
        case RequestHeaders():
            return _request_headers(action)
        case QueryParameters():
            return _query_parameters(action)
        case HeaderValueMatch():
            return _header_value_match(action)
        case QueryParameterValueMatch():
            return _query_parameter_value_match(action)
        case MetadataAction():
            return _metadata(action)


def _destination_cluster(stream: Any) -> Entry | None:
    name = getattr(stream.route, "cluster_name", "")
    return (b"destination_cluster", name.encode()) if name else None


def _remote_address(stream: Any) -> Entry | None:
    ip = stream.remote_address.ip
    return None if ip is None else (b"remote_address", ip.encode())


def _masked_remote_address(action: MaskedRemoteAddress) -> _Action:
    bits = {4: action.v4_prefix_mask_len, 6: action.v6_prefix_mask_len}

    def entry(stream: Any) -> Entry | None:
        parsed = stream.remote_address.parsed
        if parsed is None:
            return None
        network = ip_network((parsed, bits[parsed.version]), strict=False)
        return b"masked_remote_address", str(network).encode()

    return entry


def _request_headers(action: RequestHeaders) -> _Action:
    name, key = action.header_name, action.descriptor_key.encode()
    absent = SKIP if action.skip_if_absent else None
    plain = name[:1] != b":" and name != b"host"

    def entry(stream: Any) -> Entry | bytes | None:
        request = stream.request
        if plain:
            values = request.get_all(name)
            return (key, values[0]) if values else absent
        value = request.lookup(name)
        return absent if value is None else (key, value)

    return entry


def _query_parameters(action: QueryParameters) -> _Action:
    name, key = action.query_parameter_name, action.descriptor_key.encode()
    absent = SKIP if action.skip_if_absent else None

    def entry(stream: Any) -> Entry | bytes | None:
        value = query_parameter(stream.request.path, name)
        return absent if value is None else (key, unquote_to_bytes(value))

    return entry


def _header_value_match(action: HeaderValueMatch) -> _Action:
    matches = compile_headers(action.headers)
    found = (action.descriptor_key.encode(), action.descriptor_value.encode())
    expected = action.expect_match
    return lambda stream: found if (matches is None or matches(stream.request)) == expected else None


def _query_parameter_value_match(action: QueryParameterValueMatch) -> _Action:
    tests = tuple(map(compile_query_parameter, action.query_parameters))
    found = (action.descriptor_key.encode(), action.descriptor_value.encode())
    expected = action.expect_match
    return lambda stream: found if all(test(stream.request) for test in tests) == expected else None


def _metadata(action: MetadataAction) -> _Action:
    keys, key = (action.key, *action.path), action.descriptor_key.encode()
    absent = SKIP if action.skip_if_absent else None
    dynamic = action.source == "DYNAMIC"

    def entry(stream: Any) -> Entry | bytes | None:
        route = stream.route
        metadata = stream.dynamic_metadata if dynamic else None if route is None else route.metadata
        value = metadata_value(metadata, keys)
        text = value if isinstance(value, str) and value else action.default_value
        return (key, text.encode()) if text else absent

    return entry
