"""A mesh from YAML, and what its proxies get: what the tests of the translation begin with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from controlplane.model.mesh_config import MeshConfig
from controlplane.model.parsing import parse
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.resource import Resource
from controlplane.pilot.translator import Pilot

SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


def resources_of(text: str) -> Iterable[Resource]:
    """All resources in a YAML text."""
    return [parse(document) for document in yaml.safe_load_all(text) if document]


def sidecar(name: str = "client-1", namespace: str = "shop", address: str = "127.0.0.1", **metadata: Any) -> Proxy:
    """A sidecar with a forward proxy; ``metadata`` is its node's, `LABELS` among it."""
    return Proxy(
        f"sidecar~{address}~{name}.{namespace}~{namespace}.svc.cluster.local",
        ProxyType.SIDECAR,
        namespace,
        name,
        f"{namespace}.svc.cluster.local",
        (address,),
        metadata.get("LABELS", {}),
        metadata={"HTTP_PROXY_PORT": "15002", **metadata},
    )


def gateway(labels: Mapping[str, str], namespace: str = "shop") -> Proxy:
    """A gateway's proxy."""
    return Proxy(
        f"router~127.0.0.1~edge-1.{namespace}~{namespace}.svc.cluster.local",
        ProxyType.ROUTER,
        namespace,
        "edge-1",
        f"{namespace}.svc.cluster.local",
        ("127.0.0.1",),
        labels,
    )


class Scene:
    """A mesh of the resources in YAML texts; ``mesh`` are fields of MeshConfig."""

    def __init__(self, *texts: str, mesh: Mapping[str, Any] | None = None) -> None:
        settings = MeshConfig.model_validate(mesh or {})
        self.pilot = Pilot(settings)
        self.apply(*texts)

    def apply(self, *texts: str) -> None:
        """Add or change the resources of YAML texts."""
        self.pilot.apply({resource.key: resource for text in texts for resource in resources_of(text)})

    def remove(self, *texts: str) -> None:
        """Take the resources of YAML texts away."""
        self.pilot.apply({resource.key: None for text in texts for resource in resources_of(text)})

    def listeners(self, proxy: Proxy) -> dict[str, Any]:
        """`Listener` messages by name."""
        found = self.pilot.resources(proxy, LISTENER)
        return {name: listener_pb2.Listener.FromString(each.value) for name, each in found.items()}

    def routes(self, proxy: Proxy) -> dict[str, Any]:
        """`RouteConfiguration` messages by name."""
        found = self.pilot.resources(proxy, ROUTES)
        return {name: route_pb2.RouteConfiguration.FromString(each.value) for name, each in found.items()}
