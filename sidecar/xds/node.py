"""How a sidecar introduces itself to a server: `core.v3.Node`, filled in as Envoy fills it in."""

from __future__ import annotations

import re
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import Node

from sidecar.config.bootstrap import NodeIdentity

USER_AGENT: Final = "mizzen"
CLIENT_FEATURES: Final = ("xds.config.supports-resource-ttl", "xds.config.resource-in-sotw")
"""Of "Well Known Client Features" in Envoy's documentation."""


def make_node(identity: NodeIdentity, release: str) -> Any:
    """The ``Node`` that requests carry; ``release`` is the version of the sidecar."""
    node = Node(id=identity.id, cluster=identity.cluster, user_agent_name=USER_AGENT)
    if identity.metadata:
        node.metadata.update(identity.metadata)
    locality = identity.locality
    if locality.region or locality.zone or locality.sub_zone:
        node.locality.region, node.locality.zone = locality.region, locality.zone
        node.locality.sub_zone = locality.sub_zone
    version = node.user_agent_build_version
    numbers = re.match(r"(\d+)\.(\d+)\.?(\d*)", release)
    if numbers is not None:
        version.version.major_number, version.version.minor_number = int(numbers[1]), int(numbers[2])
        version.version.patch = int(numbers[3] or 0)
    version.metadata.update({"revision.version": release, "build.type": "RELEASE"})
    node.client_features.extend(CLIENT_FEATURES)
    return node
