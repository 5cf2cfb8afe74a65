"""The listener filters of a listener, made from their configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sidecar.config.listener_filters import HttpInspector as HttpInspectorConfig
from sidecar.config.listener_filters import ListenerFilter as ListenerFilterConfig
from sidecar.config.listener_filters import ProxyProtocol as ProxyProtocolConfig
from sidecar.config.listener_filters import TlsInspector as TlsInspectorConfig
from sidecar.listener.http_inspector import HttpInspector, HttpInspectorStats
from sidecar.listener.listener_filter import Condition, ListenerFilter, compile_predicate
from sidecar.listener.original_dst import OriginalDst
from sidecar.listener.proxy_protocol import ProxyProtocol, ProxyProtocolStats
from sidecar.listener.tls_inspector import TlsInspector, TlsInspectorStats


@dataclass(frozen=True, slots=True)
class ListenerFilterStats:
    """Where to get what the filters count; asked only for filters that there are. ``proxy_protocol`` takes the filter's
    `stat_prefix`."""

    tls_inspector: Callable[[], TlsInspectorStats]
    http_inspector: Callable[[], HttpInspectorStats]
    proxy_protocol: Callable[[str], ProxyProtocolStats]


Placed = tuple[ListenerFilter, Condition | None]
"""A filter, and for which connections it is left out."""


def build_listener_filters(configs: Iterable[ListenerFilterConfig], stats: ListenerFilterStats) -> tuple[Placed, ...]:
    """The filters in their order."""
    placed: list[Placed] = []
    for config in configs:
        disabled = None if config.filter_disabled is None else compile_predicate(config.filter_disabled)
        placed.append((_build(config, stats), disabled))
    return tuple(placed)


def _build(config: ListenerFilterConfig, stats: ListenerFilterStats) -> ListenerFilter:
    own = config.typed_config
    if isinstance(own, TlsInspectorConfig):
        return TlsInspector(own, stats.tls_inspector())
    if isinstance(own, HttpInspectorConfig):
        return HttpInspector(stats.http_inspector())
    if isinstance(own, ProxyProtocolConfig):
        return ProxyProtocol(own, stats.proxy_protocol(own.stat_prefix))
    return OriginalDst()
