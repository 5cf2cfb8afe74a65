"""Upstream requests whose connections offer other protocols by ALPN than their clusters say: a filter has set them.

Source: Envoy's list of well-known filter state objects, ``envoy.network.application_protocols``.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.tls_options import APPLICATION_PROTOCOLS
from sidecar.router.upstream_request import UpstreamRequest


class OfferingRequest(UpstreamRequest):
    """Goes to hosts over connections that offer what the filter state says."""

    __slots__ = ()

    offering = True

    @property
    def offers(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the filter state says; empty where it says nothing."""
        state = self.stream.filter_state
        return () if state is None else state.get(APPLICATION_PROTOCOLS, ())

    def attempt(self, host: Any) -> None:
        """The same, once the host keeps such connections apart."""
        if self.offers and (host.pool is None or not host.pool.by_offer):
            self.router.pool_of(self.cluster, host, True)
        super().attempt(host)


_kinds: dict[type[UpstreamRequest], type[UpstreamRequest]] = {}


def offering(kind: type[UpstreamRequest]) -> type[UpstreamRequest]:
    """That kind of upstream request, which asks what is to be offered."""
    if kind.offering:
        return kind
    if kind not in _kinds:
        _kinds[kind] = type(f"Offering{kind.__name__}", (OfferingRequest, kind), {"__slots__": ()})
    return _kinds[kind]
