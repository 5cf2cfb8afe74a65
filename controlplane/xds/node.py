"""Who asks: from the node of a discovery request to a `Proxy`, as Istio's proxies name themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from controlplane.model.proxy import Locality, Proxy, ProxyType

_LABEL_OF_ACCOUNT = "security.istio.io/serviceAccount"


class InvalidNode(ValueError):
    """The node does not say who the proxy is; the message says what is missing."""


def parse_node(node: Any) -> Proxy:
    """The proxy that a `core.v3.Node` stands for. Raises InvalidNode.

    The id is `TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN`, the type `sidecar` or `router`; metadata say the rest:
    NAMESPACE, LABELS, SERVICE_ACCOUNT, CLUSTER_ID, NETWORK, INSTANCE_IPS, GENERATOR. Source: Istio, *Envoy node metadata*.
    """
    parts = node.id.split("~")
    if len(parts) != 4:
        raise InvalidNode(
            f"node id {node.id!r} is not of the form TYPE~IP~NAME.NAMESPACE~DOMAIN: set `node.id` in the bootstrap"
        )
    kind, address, name, domain = parts
    if kind not in (ProxyType.SIDECAR, ProxyType.ROUTER):
        raise InvalidNode(f"node id {node.id!r}: the type {kind!r} is neither sidecar nor router")
    metadata: dict[str, Any] = MessageToDict(node.metadata) if node.HasField("metadata") else {}
    named, _, namespace_of_name = name.rpartition(".")
    namespace = _text(metadata, "NAMESPACE") or namespace_of_name
    if not namespace:
        raise InvalidNode(f"node id {node.id!r} has no namespace, and metadata have no NAMESPACE")
    if namespace_of_name and namespace_of_name != namespace:
        raise InvalidNode(f"node id {node.id!r} is of the namespace {namespace_of_name}, but metadata say {namespace}")
    labels = metadata.get("LABELS")
    labels = {key: str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {}
    addresses = tuple(one for one in _text(metadata, "INSTANCE_IPS").split(",") if one) or (
        (address,) if address else ()
    )
    proxyless = _text(metadata, "GENERATOR") == "grpc"
    locality = node.locality
    return Proxy(
        id=node.id,
        type=ProxyType.PROXYLESS if proxyless else ProxyType(kind),
        namespace=namespace,
        name=named or name,
        dns_domain=domain if ".svc." in domain else f"{namespace}.svc.{domain or 'cluster.local'}",
        addresses=addresses,
        labels=labels,
        service_account=_text(metadata, "SERVICE_ACCOUNT") or labels.get(_LABEL_OF_ACCOUNT, ""),
        cluster_id=_text(metadata, "CLUSTER_ID"),
        network=_text(metadata, "NETWORK"),
        locality=Locality(locality.region, locality.zone, locality.sub_zone),
        metadata=metadata,
    )


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
