"""A proxy that asks for its configuration: who it is, by its node, as Istio's proxies say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ProxyType(StrEnum):
    """What a proxy is for, which decides what is generated for it."""

    SIDECAR = "sidecar"
    ROUTER = "router"  # a gateway
    PROXYLESS = "proxyless"  # a gRPC client without a proxy


@dataclass(frozen=True, slots=True)
class Locality:
    """Where something runs."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


NOWHERE = Locality()


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, by its node (`core.v3.Node`): id `TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN` and metadata.

    ``addresses`` are the workload's, the first one the node id's. ``metadata`` is the node's, as a dict. Two proxies on
    one machine are told apart by ``id``. ``dns_domain`` is the last part of the id, `NAMESPACE.svc.DOMAIN`: below it and
    its parents, names may be short.
    """

    id: str
    type: ProxyType
    namespace: str
    name: str
    dns_domain: str
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""
    cluster_id: str = ""
    network: str = ""
    locality: Locality = NOWHERE
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_identity(self) -> bool:
        """Whether an agent beside the proxy serves its certificates over SDS: it says so (`SDS_AGENT`), or is Istio's."""
        told = str(self.metadata.get("SDS_AGENT", "")).lower()
        return told in ("true", "1") or bool(self.metadata.get("ISTIO_VERSION"))

    @property
    def intercepts(self) -> bool:
        """Whether the node's traffic is captured, so that it wants `virtualInbound` and `virtualOutbound`."""
        return self.metadata.get("INTERCEPTION_MODE") in ("REDIRECT", "TPROXY")
