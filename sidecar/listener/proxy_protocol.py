"""The listener filter `proxy_protocol`: the client's address from the header that a load balancer put in front."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.config.listener_filters import ProxyProtocol as ProxyProtocolConfig
from sidecar.core.stream_info import ConnectionInfo
from sidecar.listener.listener_filter import CLOSE, MORE
from sidecar.listener.proxy_header import V2_LONGEST, BadProxyHeader, ProxyHeader, parse_v1, parse_v2, version_of


class HeaderStats(Protocol):
    """`proxy_proto.`: connections without a header."""

    not_found_allowed: int
    not_found_disallowed: int


class VersionStats(Protocol):
    """`proxy_proto.versions.v<1|2>.`"""

    disallowed: int
    error: int
    found: int


class ErrorStats(Protocol):
    """The counter without a prefix."""

    downstream_cx_proxy_proto_error: int


@dataclass(frozen=True, slots=True)
class ProxyProtocolStats:
    """All that the filter counts."""

    headers: HeaderStats
    v1: VersionStats
    v2: VersionStats
    errors: ErrorStats


class ProxyProtocol:
    """Takes exactly the header out of the connection; a bad one ends it."""

    __slots__ = ("config", "peek", "stats")

    def __init__(self, config: ProxyProtocolConfig, stats: ProxyProtocolStats) -> None:
        self.config = config
        self.stats = stats
        self.peek = V2_LONGEST

    def inspect(self, sock: socket.socket, info: ConnectionInfo, data: bytes) -> int:
        version = version_of(data)
        if version is None:
            return MORE
        if version == 0:
            return self._without()
        counts = self.stats.v1 if version == 1 else self.stats.v2
        if f"V{version}" in self.config.disallowed_versions:
            counts.disallowed += 1
            return CLOSE
        try:
            header = parse_v1(data) if version == 1 else parse_v2(data)
            if header is None:
                return MORE
            self._apply(header, info)
        except BadProxyHeader:
            counts.error += 1
            self.stats.errors.downstream_cx_proxy_proto_error += 1
            return CLOSE
        counts.found += 1
        return header.size

    def _without(self) -> int:
        if self.config.allow_requests_without_proxy_protocol:
            self.stats.headers.not_found_allowed += 1
            return 0
        self.stats.headers.not_found_disallowed += 1
        self.stats.errors.downstream_cx_proxy_proto_error += 1
        return CLOSE

    def _apply(self, header: ProxyHeader, info: ConnectionInfo) -> None:
        if header.source is not None and header.destination is not None:
            parsed = header.source.parsed
            if parsed is None or parsed.is_multicast or header.source.ip == "255.255.255.255":
                raise BadProxyHeader("source is no unicast address")
            info.remote_address = header.source
            if header.destination != info.local_address:
                info.local_address = header.destination
        if header.tlvs:
            info.proxy_protocol_tlvs = header.tlvs
            self._publish(header.tlvs, info)

    def _publish(self, tlvs: dict[int, bytes], info: ConnectionInfo) -> None:
        """Put the TLVs that the rules name into the dynamic metadata."""
        for rule in self.config.rules:
            value = tlvs.get(rule.tlv_type)
            if value is not None:
                if info.metadata is None:
                    info.metadata = {}
                namespace: dict[str, Any] = info.metadata.setdefault(rule.metadata_namespace, {})
                namespace[rule.key] = value.decode("utf-8", "replace")
